"""The denoiser: v-prediction on fixed latents; on a CPU two processes of one thread each, faster than two threads."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.functional import mse_loss

from models.scenes import KINDS, Scene, caption
from models.tiny_training import networks
from models.tiny_training.data import gaussian, generator, latents, pictures, training_scenes
from models.tiny_training.loop import DEVICE, Course, Trainer, finished, part

NAME = "denoiser"
SAMPLES_PER_STEP = 64
RANKS = 2 if DEVICE.type == "cpu" else 1
BATCH = SAMPLES_PER_STEP // RANKS
_UNCONDITIONAL = 0.1
_LEVELS = 1000

Build = Callable[[int, Path], nn.ModuleDict]
RankLoss = Callable[[nn.ModuleDict, int, int, int, int], Tensor]


def course_for(samples: int, batch: int = BATCH) -> Course:
    """Flat for the first half: the total may be changed on resuming, up to there, as if it had been asked for at once.

    Snapshots, candidates for the light model, every 19,200 samples.
    """
    steps = samples // (batch * RANKS)
    return Course(
        NAME, steps=steps, rate=1.2e-3, average=0.999, checkpoint_every=300,
        snapshots=range(1500, steps, 300), slow={"text": 0.2},
    )  # fmt: skip


def networks_for(seed: int, work: Path) -> nn.ModuleDict:
    """A fresh denoiser beside the pre-trained text encoder; the same on every rank."""
    torch.manual_seed(seed)
    words = networks.tokenizer()
    text = networks.text_encoder(len(words))
    text.load_state_dict(part(finished(work, "text"), "encoder"))
    return nn.ModuleDict({"unet": networks.denoiser(), "text": text}).to(DEVICE)


TOKENISE = networks.word_table(networks.tokenizer())
_SCHEDULER = networks.scheduler()


@dataclass(frozen=True)
class Noised:
    """Scenes, what is said of each ("" for one in ten), latents and noise (batch, 12, 8, 8), times (batch,)."""

    scenes: list[Scene]
    texts: list[str]
    clean: Tensor
    noise: Tensor
    times: Tensor


def noised(seed: int, stream: str, step: int, rank: int, batch: int, kinds: Mapping[str, float] = KINDS) -> Noised:
    """The batch of one step and rank, one time from each stratum, on the device that trains."""
    rng = generator(seed, stream, step, rank)
    scenes = training_scenes(rng, batch, kinds)
    clean = latents(pictures(scenes))
    noise = gaussian(rng, *clean.shape)
    times = torch.from_numpy((rng.permutation(batch) + rng.random(batch)) / batch * _LEVELS).long()
    texts = ["" if rng.random() < _UNCONDITIONAL else caption(scene) for scene in scenes]
    return Noised(scenes, texts, clean.to(DEVICE), noise.to(DEVICE), times.to(DEVICE))


def velocity_error(unet: nn.Module, drawn: Noised, context: Tensor) -> Tensor:
    """Mean squared error of v = alpha * noise - sigma * latent (Salimans & Ho 2022)."""
    noisy = _SCHEDULER.add_noise(drawn.clean, drawn.noise, drawn.times)
    target = _SCHEDULER.get_velocity(drawn.clean, drawn.noise, drawn.times)
    return mse_loss(cast(Tensor, unet(noisy, drawn.times, context).sample), cast(Tensor, target))


def velocity_loss(module: nn.ModuleDict, seed: int, step: int, rank: int, batch: int) -> Tensor:
    drawn = noised(seed, NAME, step, rank, batch)
    context = module["text"](TOKENISE(drawn.texts).to(DEVICE)).last_hidden_state
    return velocity_error(module["unet"], drawn, context)


def train(
    seed: int, work: Path, course: Course, build: Build = networks_for, loss: RankLoss = velocity_loss,
    batch: int = BATCH, ranks: int = RANKS,
) -> None:  # fmt: skip
    """Runs the course in `ranks` processes of `batch` samples each; the weights lie in the course's checkpoint."""
    with tempfile.TemporaryDirectory() as meeting:
        arguments = (seed, work, course, build, loss, batch, ranks, meeting)
        spawn(_rank, args=arguments, nprocs=ranks)  # type: ignore[no-untyped-call]


def _rank(
    rank: int, seed: int, work: Path, course: Course, build: Build, loss: RankLoss, batch: int, ranks: int,
    meeting: str,
) -> None:  # fmt: skip
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}/store", rank=rank, world_size=ranks)
    try:
        module = build(seed, work)
        Trainer(course, module, work, rank, ranks).run(lambda step: loss(module, seed, step, rank, batch))
    finally:
        dist.destroy_process_group()
