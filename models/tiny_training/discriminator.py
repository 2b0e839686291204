"""The discriminator: P(real) of a picture, EfficientNet, trained to tell decoded real scenes from failed light ones.

Real against every light picture, as published (Ahmad et al., MLSys 2025), teaches it texture and it then ranks no
better than chance here; undecoded real scenes teach it the decoder's traces. So real is what the decoder makes of a
real scene's latent, and fake are only those light pictures that the judge calls wrong.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from models.tiny_training import networks
from models.tiny_training.data import generator
from models.tiny_training.loop import Course, Trainer
from models.tiny_training.sampling import Pictures, as_tensor

COURSE = Course("discriminator", steps=500, rate=2e-3, flat=0.999, average=0.995, checkpoint_every=100)
REAL = 1
_BATCH = 48


def train(
    seed: int, work: Path, real: Pictures, fake: Pictures, course: Course = COURSE, batch: int = _BATCH
) -> dict[str, Tensor]:
    """Averaged weights (`discriminator.`); half of each batch is real, half fake, each mirrored by chance."""
    torch.manual_seed(seed)
    module = nn.ModuleDict({"discriminator": networks.discriminator()})
    labels = torch.tensor([REAL, 1 - REAL]).repeat_interleave(batch // 2)

    def loss(step: int) -> Tensor:
        rng = generator(seed, course.name, step)
        images = torch.cat([some(real, rng, batch // 2), some(fake, rng, batch // 2)])
        return cross_entropy(module["discriminator"](images).logits, labels, label_smoothing=0.02)

    return Trainer(course, module, work).run(loss)


def scores(network: nn.Module, pictures: Pictures, batch: int = 100) -> NDArray[np.float64]:
    """P(real) of each picture, float64 (pictures,); higher is better."""
    network.eval()
    with torch.inference_mode():
        rows = [
            network(as_tensor(pictures[i : i + batch])).logits.softmax(-1)[:, REAL]
            for i in range(0, len(pictures), batch)
        ]
    return np.asarray(torch.cat(rows).double().numpy())


def some(pictures: Pictures, rng: np.random.Generator, count: int) -> Tensor:
    """A batch of so many of the pictures, each mirrored by chance."""
    chosen = as_tensor(pictures[rng.integers(len(pictures), size=count)])
    mirrored = torch.from_numpy(rng.random(count) < 0.5)
    chosen[mirrored] = chosen[mirrored].flip(-1)
    return chosen
