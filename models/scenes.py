"""Captioned scenes: what the tiny cascade draws, as pure functions of a numpy generator.

A scene is one to four flat shapes on a plain ground, described by a caption. Four kinds of at most 16 words, from
easy to hard: `one` ("big green triangle right on grey"), `pair` ("big red cross below big green ring on black"),
`count` ("three small red rings on grey") and `three` ("small red ring top and ... on white"). Four harder ones of
at most 18: `halves` ("big red blue circle left on black": red on its left, blue on its right), `four` ("red ring top
and blue cross left and ... on white", all small), `relations` ("small red ring above small blue cross and small
green ring right of small red circle on grey") and `both` ("big red blue ring above big green red cross on white").

A caption fixes everything but a displacement of up to two pixels per thing. One caption in ten is held out: never
trained on. Numpy only, so that a publisher of captions loads no learning library.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from models.stencils import MARGIN, stencil

SIDE = 64
SHAPES = ("circle", "square", "triangle", "ring", "cross")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 30, 30),
    "green": (30, 160, 45),
    "blue": (40, 70, 240),
    "yellow": (255, 225, 25),
    "purple": (145, 40, 190),
    "orange": (255, 135, 20),
}
GROUNDS: dict[str, tuple[int, int, int]] = {"white": (255, 255, 255), "black": (10, 10, 10), "grey": (128, 128, 128)}
RADII = {"small": 9, "big": 13}
COUNTS = ("two", "three", "four")
PLACES: dict[str, tuple[int, int]] = {
    "center": (1, 1),
    "top": (0, 1),
    "bottom": (2, 1),
    "left": (1, 0),
    "right": (1, 2),
}
KINDS: dict[str, float] = {"one": 0.18, "count": 0.15, "pair": 0.32, "three": 0.35}
HARD_KINDS: dict[str, float] = {"halves": 0.25, "relations": 0.25, "four": 0.25, "both": 0.25}

_RELATIONS = {"top": "above", "bottom": "below", "left": "left of", "right": "right of"}
_OPPOSITE = {"top": "bottom", "bottom": "top", "left": "right", "right": "left"}
_ARRANGEMENTS: dict[str, tuple[tuple[int, int], ...]] = {
    "two": ((1, 0), (1, 2)),
    "three": ((0, 1), (2, 0), (2, 2)),
    "four": ((0, 0), (0, 2), (2, 0), (2, 2)),
}
_PLURALS = {shape: shape + ("es" if shape == "cross" else "s") for shape in SHAPES}
_PLACE_NAMES = tuple(PLACES)
_SHIFT = 2

WORDS: tuple[str, ...] = (
    *COLOURS,
    *SHAPES,
    *_PLURALS.values(),
    *RADII,
    *GROUNDS,
    *COUNTS,
    *PLACES,
    *("above", "below", "of", "on", "and"),
)


@dataclass(frozen=True, slots=True)
class Thing:
    """One shape: its look, its cell (row, column) of three by three, its displacement (down, right) in pixels.

    `second` is the colour of its right half, empty where that is the same.
    """

    size: str
    colour: str
    shape: str
    cell: tuple[int, int]
    shift: tuple[int, int] = (0, 0)
    second: str = ""

    @property
    def look(self) -> str:
        return " ".join(word for word in (self.size, self.colour, self.second, self.shape) if word)

    @property
    def right_colour(self) -> str:
        return self.second or self.colour


@dataclass(frozen=True, slots=True)
class Scene:
    """Things in the order in which the caption names them, on a ground; `kind` is a key of `KINDS` or `HARD_KINDS`."""

    kind: str
    ground: str
    things: tuple[Thing, ...]


def caption(scene: Scene) -> str:
    """The scene in words; two scenes with the same caption differ in displacements only."""
    _, say = _GRAMMAR[scene.kind]
    return f"{say(scene.things)} on {scene.ground}"


def draw(scene: Scene) -> NDArray[np.uint8]:
    """The scene as a picture, uint8 of shape (64, 64, 3), edges smoothed by 8 x 8 supersampling."""
    wide = SIDE + 2 * MARGIN
    canvas = np.empty((wide, wide, 3), np.float32)
    canvas[:] = GROUNDS[scene.ground]
    for thing in scene.things:
        row, column = centre(thing)
        window = canvas[row : row + 2 * MARGIN, column : column + 2 * MARGIN]
        window += stencil(thing.shape, RADII[thing.size]) * (_paint(thing) - window)
    inner = canvas[MARGIN:-MARGIN, MARGIN:-MARGIN]
    return np.rint(inner).astype(np.uint8)


def _paint(thing: Thing) -> NDArray[np.float32]:
    """The thing's colour across its window, float32 of shape (1, 32, 3)."""
    halves = [COLOURS[thing.colour]] * MARGIN + [COLOURS[thing.right_colour]] * MARGIN
    return np.asarray(halves, np.float32)[None]


def centre(thing: Thing) -> tuple[int, int]:
    """Row and column of the thing's middle in pixels; small things stand further out, so that all keep clear."""
    reach = SIDE // 2 - 1 - _SHIFT - RADII[thing.size]
    row, column = (SIDE // 2 + (cell - 1) * reach + shift for cell, shift in zip(thing.cell, thing.shift, strict=True))
    return row, column


def arranged(thing: Thing, count: str) -> tuple[Thing, ...]:
    """`two`, `three` or `four` of a thing, where a caption that counts them has them."""
    return tuple(replace(thing, cell=cell) for cell in _ARRANGEMENTS[count])


def is_held_out(text: str) -> bool:
    """Whether a caption belongs to the tenth that no training ever sees."""
    return zlib.crc32(text.encode()) % 10 == 0


def sample(rng: np.random.Generator, kind: str | None = None, kinds: Mapping[str, float] = KINDS) -> Scene:
    """A random scene of the given kind, or of a kind drawn by the weights in `kinds`."""
    chosen = kind or _pick_kind(rng, kinds)
    compose, _ = _GRAMMAR[chosen]
    things = compose(rng)
    return Scene(chosen, _pick(rng, tuple(GROUNDS)), things)


def training_scene(rng: np.random.Generator, kinds: Mapping[str, float] = KINDS) -> Scene:
    """A random scene of those kinds whose caption is not held out."""
    while True:
        scene = sample(rng, kinds=kinds)
        if not is_held_out(caption(scene)):
            return scene


def held_out_scenes(count: int, seed: int, kinds: Mapping[str, float] = KINDS) -> list[Scene]:
    """`count` scenes with distinct held-out captions, shuffled.

    Kinds come in the proportions of `kinds` as far as they reach: there are only about 90 held-out captions of one
    thing and 50 that count, and what they lack is made up by pairs and threes.
    """
    rng = np.random.default_rng([seed, zlib.crc32(b"held out")])
    found: list[Scene] = []
    weights = dict(kinds)
    for kind in kinds:
        wanted = round((count - len(found)) * weights[kind] / sum(weights.values()))
        found += _distinct_held_out(rng, kind, wanted)
        del weights[kind]
    return [found[i] for i in rng.permutation(len(found))]


def _distinct_held_out(rng: np.random.Generator, kind: str, wanted: int, patience: int = 5000) -> list[Scene]:
    """Up to `wanted` scenes; gives up after `patience` draws in a row that brought nothing new."""
    found: dict[str, Scene] = {}
    barren = 0
    while len(found) < wanted and barren < patience:
        scene = sample(rng, kind)
        text = caption(scene)
        barren += 1
        if is_held_out(text) and text not in found:
            found[text] = scene
            barren = 0
    return list(found.values())


def _pick(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _pick_kind(rng: np.random.Generator, kinds: Mapping[str, float]) -> str:
    mark = rng.random() * sum(kinds.values())
    for kind, weight in kinds.items():
        mark -= weight
        if mark < 0:
            return kind
    return kind


def _thing(rng: np.random.Generator, size: str, cell: tuple[int, int]) -> Thing:
    return Thing(size, _pick(rng, tuple(COLOURS)), _pick(rng, SHAPES), cell, _shift(rng))


def _shift(rng: np.random.Generator) -> tuple[int, int]:
    down, right = (int(step) * _SHIFT for step in rng.integers(-1, 2, size=2))
    return down, right


def _any_size(rng: np.random.Generator) -> str:
    return _pick(rng, tuple(RADII))


def _compose_one(rng: np.random.Generator) -> tuple[Thing, ...]:
    return (_thing(rng, _any_size(rng), PLACES[_pick(rng, _PLACE_NAMES)]),)


def _compose_pair(rng: np.random.Generator) -> tuple[Thing, ...]:
    place = _pick(rng, tuple(_OPPOSITE))
    first = _thing(rng, _any_size(rng), PLACES[place])
    while True:
        second = _thing(rng, _any_size(rng), PLACES[_OPPOSITE[place]])
        if second.look != first.look:
            return first, second


def _compose_count(rng: np.random.Generator) -> tuple[Thing, ...]:
    size, colour, shape = _any_size(rng), _pick(rng, tuple(COLOURS)), _pick(rng, SHAPES)
    like = Thing(size, colour, shape, (1, 1))
    return tuple(replace(thing, shift=_shift(rng)) for thing in arranged(like, _pick(rng, COUNTS)))


def _compose_several(count: int, rng: np.random.Generator) -> tuple[Thing, ...]:
    places = [_PLACE_NAMES[i] for i in rng.permutation(len(_PLACE_NAMES))[:count]]
    return tuple(_thing(rng, "small", PLACES[place]) for place in places)


def _compose_halves(rng: np.random.Generator) -> tuple[Thing, ...]:
    return tuple(_halved(rng, thing) for thing in _compose_one(rng))


def _compose_both(rng: np.random.Generator) -> tuple[Thing, ...]:
    """A pair of which each thing has two colours."""
    return tuple(_halved(rng, thing) for thing in _compose_pair(rng))


def _halved(rng: np.random.Generator, thing: Thing) -> Thing:
    return replace(thing, second=_pick(rng, tuple(colour for colour in COLOURS if colour != thing.colour)))


def _compose_relations(rng: np.random.Generator) -> tuple[Thing, ...]:
    """One thing above or below another, and one beside another, in either order."""
    first = _pick(rng, tuple(_OPPOSITE))
    second = _pick(rng, ("left", "right") if first in ("top", "bottom") else ("top", "bottom"))
    places = (first, _OPPOSITE[first], second, _OPPOSITE[second])
    return tuple(_thing(rng, "small", PLACES[place]) for place in places)


def _place_name(thing: Thing) -> str:
    return next(name for name, cell in PLACES.items() if cell == thing.cell)


def _say_pair(things: tuple[Thing, ...]) -> str:
    first, second = things
    return f"{first.look} {_RELATIONS[_place_name(first)]} {second.look}"


def _say_count(things: tuple[Thing, ...]) -> str:
    first = things[0]
    return f"{COUNTS[len(things) - 2]} {first.size} {first.colour} {_PLURALS[first.shape]}"


def _say_each(things: tuple[Thing, ...]) -> str:
    return " and ".join(f"{thing.look} {_place_name(thing)}" for thing in things)


def _say_four(things: tuple[Thing, ...]) -> str:
    return " and ".join(f"{thing.colour} {thing.shape} {_place_name(thing)}" for thing in things)


def _say_relations(things: tuple[Thing, ...]) -> str:
    return f"{_say_pair(things[:2])} and {_say_pair(things[2:])}"


_Compose = Callable[[np.random.Generator], tuple[Thing, ...]]
_Say = Callable[[tuple[Thing, ...]], str]
_GRAMMAR: dict[str, tuple[_Compose, _Say]] = {
    "one": (_compose_one, _say_each),
    "count": (_compose_count, _say_count),
    "pair": (_compose_pair, _say_pair),
    "three": (partial(_compose_several, 3), _say_each),
    "halves": (_compose_halves, _say_each),
    "four": (partial(_compose_several, 4), _say_four),
    "relations": (_compose_relations, _say_relations),
    "both": (_compose_both, _say_pair),
}
