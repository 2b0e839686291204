"""The denoiser: v-prediction on fixed latents, two processes of one thread each (twice as fast as two threads)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.functional import mse_loss

from models.scenes import caption
from models.tiny_training import networks
from models.tiny_training.data import gaussian, generator, latents, pictures, training_scenes
from models.tiny_training.loop import Course, Trainer, finished, part

NAME = "denoiser"
RANKS = 2
BATCH = 32
SAMPLES_PER_STEP = BATCH * RANKS
_UNCONDITIONAL = 0.1
_LEVELS = 1000


def course_for(samples: int, batch: int = BATCH) -> Course:
    """Flat for the first half: the total may be changed on resuming, up to there, as if it had been asked for at once.

    Snapshots, candidates for the light model, every 19,200 samples.
    """
    steps = samples // (batch * RANKS)
    return Course(
        NAME, steps=steps, rate=1.2e-3, average=0.999, checkpoint_every=300,
        snapshots=range(1500, steps, 300), slow={"text": 0.2},
    )  # fmt: skip


def train(seed: int, work: Path, course: Course, batch: int = BATCH, ranks: int = RANKS) -> None:
    """Runs the course in `ranks` processes of `batch` samples each; the weights lie in the course's checkpoint."""
    with tempfile.TemporaryDirectory() as meeting:
        spawn(_rank, args=(seed, work, course, batch, ranks, meeting), nprocs=ranks)  # type: ignore[no-untyped-call]


def _rank(rank: int, seed: int, work: Path, course: Course, batch: int, ranks: int, meeting: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}/store", rank=rank, world_size=ranks)
    try:
        module = networks_for(seed, work)
        Trainer(course, module, work, rank, ranks).run(lambda step: velocity_loss(module, seed, step, rank, batch))
    finally:
        dist.destroy_process_group()


def networks_for(seed: int, work: Path) -> nn.ModuleDict:
    """A fresh denoiser beside the pre-trained text encoder; the same on every rank."""
    torch.manual_seed(seed)
    words = networks.tokenizer()
    text = networks.text_encoder(len(words))
    text.load_state_dict(part(finished(work, "text"), "encoder"))
    return nn.ModuleDict({"unet": networks.denoiser(), "text": text})


_TOKENISE = networks.word_table(networks.tokenizer())
_SCHEDULER = networks.scheduler()


def velocity_loss(module: nn.ModuleDict, seed: int, step: int, rank: int, batch: int) -> Tensor:
    """Mean squared error of v = alpha * noise - sigma * latent (Salimans & Ho 2022), one time from each stratum."""
    rng = generator(seed, NAME, step, rank)
    scenes = training_scenes(rng, batch)
    clean = latents(pictures(scenes))
    noise = gaussian(rng, *clean.shape)
    times = torch.from_numpy((rng.permutation(batch) + rng.random(batch)) / batch * _LEVELS).long()
    texts = ["" if rng.random() < _UNCONDITIONAL else caption(scene) for scene in scenes]
    context = module["text"](_TOKENISE(texts)).last_hidden_state
    noisy = _SCHEDULER.add_noise(clean, noise, times)
    target = _SCHEDULER.get_velocity(clean, noise, times)
    return mse_loss(cast(Tensor, module["unet"](noisy, times, context).sample), cast(Tensor, target))
