"""The picture decoder: from the fixed latent back to pixels, and an encoder that imitates the fixed latent.

Two courses, as the denoiser has: the first on the published kinds of scenes, the second goes on with the hard ones
beside them and slows down, which straightens the edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss

from models.scenes import KINDS
from models.tiny_training import networks
from models.tiny_training.data import MIXTURE, gaussian, generator, latents, pictures, training_scenes
from models.tiny_training.loop import DEVICE, Course, Trainer, finished

COURSE = Course("decoder", steps=2200, rate=2e-3, average=0.998, checkpoint_every=250)
EDGES = Course("edges", steps=1000, rate=1.2e-3, flat=0.4, average=0.998, checkpoint_every=100)
_BATCH = 16
_NOISE = 0.2


def train(seed: int, work: Path, course: Course = COURSE, batch: int = _BATCH) -> dict[str, Tensor]:
    """Averaged weights of the auto-encoder (`vae.`) after the first course."""
    torch.manual_seed(seed)
    return _run(nn.ModuleDict({"vae": networks.autoencoder()}), seed, work, course, KINDS, batch)


def train_edges(seed: int, work: Path, course: Course = EDGES, batch: int = _BATCH) -> dict[str, Tensor]:
    """Averaged weights after the second course, which starts from those of the first."""
    module = nn.ModuleDict({"vae": networks.autoencoder()})
    module.load_state_dict(finished(work, COURSE.name))
    return _run(module, seed, work, course, MIXTURE, batch)


def _run(
    module: nn.ModuleDict, seed: int, work: Path, course: Course, kinds: Mapping[str, float], batch: int
) -> dict[str, Tensor]:
    """The latents are blurred by noise of up to 0.2, as the denoiser's are: a decoder that saw exact ones only draws
    every small error as a dent.
    """
    vae = cast(AutoencoderTiny, module.to(DEVICE)["vae"])

    def loss(step: int) -> Tensor:
        rng = generator(seed, course.name, step)
        images = pictures(training_scenes(rng, batch, kinds)).to(DEVICE)
        exact = latents(images)
        strength = torch.from_numpy(rng.uniform(0, _NOISE, (batch, 1, 1, 1)).astype("float32"))
        noisy = exact + (strength * gaussian(rng, *exact.shape)).to(DEVICE)
        drawn = vae.decode(noisy).sample
        imitation = vae.encode(images[:2]).latents
        return mse_loss(drawn, images) + 0.1 * l1_loss(drawn, images) + 0.1 * mse_loss(imitation, exact[:2])

    return Trainer(course, module, work).run(loss)
