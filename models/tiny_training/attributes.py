"""The judge: which ground, and which colour, shape and size in each of nine cells, read off a picture.

It is trained on real scenes only, clean and spoilt, and never sees a picture that a model drew: neither the light nor
the heavy model can have taught it their habits. Its features also carry the Frechet distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from models.tiny_training.data import MIXTURE, Layout, gaussian, generator, layout, pictures, training_scenes
from models.tiny_training.loop import DEVICE, Course, Trainer
from models.tiny_training.text import layout_loss, layout_reader

COURSE = Course("attributes", steps=3000, rate=2e-3, average=0.995, checkpoint_every=250)
FEATURES = 128
WEIGHTS = "model.safetensors"
_BATCH = 32


class Judge(nn.Module):
    """Pictures (batch, 3, 64, 64) in [-1, 1] -> features (batch, 128) -> logits of the layout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(_stage(before, after) for before, after in pairwise((3, 24, 48, 96))),
            _stage(96, 96, stride=1), _stage(96, 128), nn.Flatten(), nn.Linear(128 * 16, FEATURES),
        )  # fmt: skip
        self.head = layout_reader(FEATURES)

    def features(self, images: Tensor) -> Tensor:
        return torch.relu(self.body(images))

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logits: tuple[Tensor, dict[str, Tensor]] = self.head(self.features(images))
        return logits


@dataclass(frozen=True)
class Verdict:
    """Per picture, whether the judge finds each attribute as the caption has it; bool (batch,).

    `count` is the number of things, `position` the cells they stand in; `colour` (of both halves), `shape` and `size`
    must be right in all nine cells at once. `right` asks for ground, count, position, colour and shape; a wrong size
    is forgiven.
    """

    ground: Tensor
    count: Tensor
    position: Tensor
    colour: Tensor
    shape: Tensor
    size: Tensor

    @property
    def right(self) -> Tensor:
        return self.ground & self.count & self.position & self.colour & self.shape


def judge(logits: tuple[Tensor, dict[str, Tensor]], truth: Layout) -> Verdict:
    """A cell counts as filled where the heads for colour and shape both see something there."""
    ground, rows = logits
    seen = {name: cells.argmax(-1) for name, cells in rows.items()}
    filled = (seen["colour"] > 0) & (seen["shape"] > 0)
    wanted = truth.cells["shape"] > 0
    same = {name: (seen[name] == truth.cells[name]).all(-1) for name in seen}
    return Verdict(
        ground=ground.argmax(-1) == truth.ground,
        count=filled.sum(-1) == wanted.sum(-1),
        position=(filled == wanted).all(-1),
        colour=same["colour"] & same["right_colour"],
        shape=same["shape"],
        size=same["size"],
    )


def train(seed: int, work: Path, course: Course = COURSE, batch: int = _BATCH) -> dict[str, Tensor]:
    """Averaged weights of the judge (`judge.`)."""
    torch.manual_seed(seed)
    module = nn.ModuleDict({"judge": Judge()}).to(DEVICE)

    def loss(step: int) -> Tensor:
        rng = generator(seed, course.name, step)
        scenes = training_scenes(rng, batch, MIXTURE)
        spoilt = spoil(pictures(scenes), rng).to(DEVICE)
        return layout_loss(module["judge"](spoilt), layout(scenes).to(DEVICE))

    return Trainer(course, module, work).run(loss)


def spoil(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Mixes pictures with noisy coarse copies of themselves (the 16 x 16 that a latent knows), as a decoder might."""
    batch = len(images)
    coarse = avg_pool2d(images, 4)
    dents = _uniform(rng, batch, 0.25) * gaussian(rng, *coarse.shape)
    blurred = interpolate(coarse + dents, scale_factor=4, mode="bicubic", align_corners=False)
    share = _uniform(rng, batch, 0.8)
    grain = _uniform(rng, batch, 0.1) * gaussian(rng, *images.shape)
    return images * (1 - share) + blurred * share + grain


def load(folder: Path) -> Judge:
    """The judge from a folder with `model.safetensors`, in single precision, ready to judge."""
    network = Judge()
    network.load_state_dict({name: value.float() for name, value in load_file(folder / WEIGHTS).items()})
    return network.eval()


def _stage(before: int, after: int, stride: int = 2) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1)
    return nn.Sequential(convolution, nn.GroupNorm(8, after), nn.SiLU())


def _uniform(rng: np.random.Generator, batch: int, top: float) -> Tensor:
    return torch.from_numpy(rng.uniform(0, top, (batch, 1, 1, 1)).astype(np.float32))
