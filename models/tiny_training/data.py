"""Batches of captioned scenes, drawn on the spot from (seed, stream, step, rank): nothing is stored."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pixel_unshuffle

from models.scenes import COLOURS, GROUNDS, HARD_KINDS, KINDS, RADII, SHAPES, Scene, draw, training_scene

CELLS = 9
# Published kinds in the proportions that they have among themselves, as many hard ones beside them.
MIXTURE: dict[str, float] = KINDS | HARD_KINDS
LATENT_SCALE = 1.25
# Class 0 means "nothing in this cell".
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": ("", *COLOURS),
    "right_colour": ("", *COLOURS),
    "shape": ("", *SHAPES),
    "size": ("", *RADII),
}
_INDEX = {name: {word: i for i, word in enumerate(words)} for name, words in ATTRIBUTES.items()}
_GROUND_INDEX = {ground: i for i, ground in enumerate(GROUNDS)}


@dataclass(frozen=True)
class Layout:
    """What stands where: `ground` int64 (batch,); colours, shape and size int64 (batch, 9), row by row, 0 for empty."""

    ground: Tensor
    cells: dict[str, Tensor]

    def to(self, device: torch.device) -> Layout:
        return Layout(self.ground.to(device), {name: cells.to(device) for name, cells in self.cells.items()})


def generator(seed: int, stream: str, step: int, rank: int = 0) -> np.random.Generator:
    """The one source of randomness for a step; it also seeds torch (dropout), so that a resumed run repeats it."""
    rng = np.random.default_rng([seed, zlib.crc32(stream.encode()), step, rank])
    torch.manual_seed(int(rng.integers(2**62)))
    return rng


def training_scenes(rng: np.random.Generator, count: int, kinds: Mapping[str, float] = KINDS) -> list[Scene]:
    return [training_scene(rng, kinds) for _ in range(count)]


def pictures(scenes: Sequence[Scene]) -> Tensor:
    """Float32 in [-1, 1], shape (batch, 3, 64, 64)."""
    stacked = np.stack([draw(scene) for scene in scenes])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0).contiguous()


def latents(images: Tensor) -> Tensor:
    """The fixed encoder: 4 x 4 area average, space to depth, times 1.25. (batch, 3, 64, 64) -> (batch, 12, 8, 8)."""
    return pixel_unshuffle(avg_pool2d(images, 4), 2) * LATENT_SCALE


def layout(scenes: Sequence[Scene]) -> Layout:
    ground = torch.tensor([_GROUND_INDEX[scene.ground] for scene in scenes])
    return Layout(ground, {name: _cells(scenes, name) for name in ATTRIBUTES})


def _cells(scenes: Sequence[Scene], attribute: str) -> Tensor:
    grid = torch.zeros(len(scenes), CELLS, dtype=torch.int64)
    for i, scene in enumerate(scenes):
        for thing in scene.things:
            row, column = thing.cell
            grid[i, 3 * row + column] = _INDEX[attribute][getattr(thing, attribute)]
    return grid


def gaussian(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


Tokenise = Callable[[Sequence[str]], Tensor]
