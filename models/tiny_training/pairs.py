"""Pictures with right and wrong captions: what the discriminator that sees the caption is trained on.

Right are decoded real scenes under their own captions; wrong the same pictures under a caption that differs in one
attribute. Light pictures come under their own captions, as the judge finds them, and some under an altered one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from models.scenes import COLOURS, COUNTS, GROUNDS, PLACES, SHAPES, Scene, Thing, arranged, caption
from models.tiny_training.sampling import Bools, Pictures, as_tensor

# Of a batch: decoded scenes, half under their own captions, and light pictures, a fifth under altered ones.
_DECODED, _LIGHT, _ALTERED = 24, 40, 8
BATCH = _DECODED + _LIGHT
_TRIES = 100


@dataclass(frozen=True)
class Pairs:
    """Pictures (64, 3, 64, 64) in [-1, 1], the scenes that their captions tell of, whether they are right, float (64,).

    `known`: the places of pictures of which it is known that they show the scene in `shown`, as far as one can see.
    """

    images: Tensor
    told: list[Scene]
    right: Tensor
    shown: list[Scene]
    known: list[int]


def pairs(
    rng: np.random.Generator, decoded: tuple[Pictures, Sequence[Scene]], light: tuple[Pictures, Sequence[Scene], Bools]
) -> Pairs:
    """A batch of decoded scenes and light pictures; of the latter, whether the judge finds them right."""
    real, drawn = rng.integers(len(decoded[1]), size=_DECODED), rng.integers(len(light[1]), size=_LIGHT)
    images = torch.cat([as_tensor(decoded[0][real]), as_tensor(light[0][drawn])])
    scenes = [*(decoded[1][i] for i in real), *(light[1][i] for i in drawn)]
    wrong = {*range(_DECODED // 2), *range(BATCH - _ALTERED, BATCH)}
    told = [altered(scene, rng) if i in wrong else scene for i, scene in enumerate(scenes)]
    good = np.concatenate([np.ones(_DECODED, bool), light[2][drawn]])
    right = good & [i not in wrong for i in range(BATCH)]
    return Pairs(images, told, torch.from_numpy(right.astype(np.float32)), scenes, np.flatnonzero(good).tolist())


def altered(scene: Scene, rng: np.random.Generator) -> Scene:
    """A scene of the same kind that differs in ground, one colour, one shape, or in where or how many things stand."""
    for _ in range(_TRIES):
        other = _ALTERATIONS[int(rng.integers(len(_ALTERATIONS)))](scene, rng)
        if _seen(other) != _seen(scene):
            return other
    raise ValueError(f"no other scene like {caption(scene)!r}")


def _seen(scene: Scene) -> tuple[str, frozenset[tuple[str, str, str, tuple[int, int]]]]:
    """All that a picture can be wrong in; a size is forgiven."""
    return scene.ground, frozenset(
        (thing.colour, thing.right_colour, thing.shape, thing.cell) for thing in scene.things
    )


def _other_ground(scene: Scene, rng: np.random.Generator) -> Scene:
    return replace(scene, ground=_pick(rng, tuple(GROUNDS)))


def _other_colour(scene: Scene, rng: np.random.Generator) -> Scene:
    colour, right = _pick(rng, tuple(COLOURS)), bool(rng.random() < 0.5)

    def paint(thing: Thing) -> Thing:
        if not thing.second:
            return replace(thing, colour=colour)
        halves = (thing.colour, colour) if right else (colour, thing.second)
        return thing if halves[0] == halves[1] else replace(thing, colour=halves[0], second=halves[1])

    return _changed(scene, rng, paint)


def _other_shape(scene: Scene, rng: np.random.Generator) -> Scene:
    shape = _pick(rng, SHAPES)
    return _changed(scene, rng, lambda thing: replace(thing, shape=shape))


def _changed(scene: Scene, rng: np.random.Generator, change: Callable[[Thing], Thing]) -> Scene:
    """One thing changed, or all where they must look alike."""
    chosen = int(rng.integers(len(scene.things)))
    alike = scene.kind == "count"
    things = (change(thing) if alike or i == chosen else thing for i, thing in enumerate(scene.things))
    return replace(scene, things=tuple(things))


def _other_place(scene: Scene, rng: np.random.Generator) -> Scene:
    """Another number of things; two of a pair swapped; or one thing on another place, what stood there on its own."""
    if scene.kind == "count":
        return replace(scene, things=arranged(scene.things[0], _pick(rng, COUNTS)))
    i = int(rng.integers(len(scene.things)))
    paired = scene.kind in ("pair", "relations", "both")
    to = scene.things[i ^ 1].cell if paired else PLACES[_pick(rng, tuple(PLACES))]
    swap = {scene.things[i].cell: to, to: scene.things[i].cell}
    return replace(scene, things=tuple(replace(t, cell=swap.get(t.cell, t.cell)) for t in scene.things))


_ALTERATIONS = (_other_ground, _other_colour, _other_shape, _other_shape, _other_place)


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]
