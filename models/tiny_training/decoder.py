"""The picture decoder: from the fixed latent back to pixels, and an encoder that imitates the fixed latent."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss

from models.tiny_training import networks
from models.tiny_training.data import gaussian, generator, latents, pictures, training_scenes
from models.tiny_training.loop import Course, Trainer

COURSE = Course("decoder", steps=2200, rate=2e-3, average=0.998, checkpoint_every=250)
_BATCH = 16
_NOISE = 0.2


def train(seed: int, work: Path, course: Course = COURSE, batch: int = _BATCH) -> dict[str, Tensor]:
    """Averaged weights of the auto-encoder (`vae.`).

    The latents are blurred by noise of up to 0.2, as the denoiser's are: a decoder that saw exact ones only draws
    every small error as a dent.
    """
    torch.manual_seed(seed)
    vae = networks.autoencoder()
    module = nn.ModuleDict({"vae": vae})

    def loss(step: int) -> Tensor:
        rng = generator(seed, course.name, step)
        images = pictures(training_scenes(rng, batch))
        exact = latents(images)
        strength = torch.from_numpy(rng.uniform(0, _NOISE, (batch, 1, 1, 1)).astype("float32"))
        noisy = exact + strength * gaussian(rng, *exact.shape)
        drawn = vae.decode(noisy).sample
        imitation = vae.encode(images[:2]).latents
        return mse_loss(drawn, images) + 0.1 * l1_loss(drawn, images) + 0.1 * mse_loss(imitation, exact[:2])

    return Trainer(course, module, work).run(loss)
