"""The way back from a caption to the scene it describes, so that a picture can be judged by its caption alone."""

from __future__ import annotations

import re
from typing import Final

from models.scenes import COLOURS, COUNTS, GROUNDS, PLACES, RADII, SHAPES, Scene, Thing, caption

_LOOK: Final = rf"({'|'.join(RADII)}) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
_WHERE: Final = re.compile(rf"{_LOOK} ({'|'.join(PLACES)})")
_PAIR: Final = re.compile(rf"{_LOOK} (above|below|left of|right of) {_LOOK}")
_COUNT: Final = re.compile(rf"({'|'.join(COUNTS)}) ({'|'.join(RADII)}) ({'|'.join(COLOURS)}) (\w+?)(?:es|s)")
_ENDS: Final = {
    "above": ("top", "bottom"),
    "below": ("bottom", "top"),
    "left of": ("left", "right"),
    "right of": ("right", "left"),
}
_CELLS: Final[dict[str, tuple[tuple[int, int], ...]]] = {
    "two": ((1, 0), (1, 2)),
    "three": ((0, 1), (2, 0), (2, 2)),
    "four": ((0, 0), (0, 2), (2, 0), (2, 2)),
}


def scene_of(text: str) -> Scene | None:
    """The scene that this caption describes, nothing displaced; None where it is no caption of a scene."""
    what, _, ground = text.rpartition(" on ")
    things = _things(what)
    if ground not in GROUNDS or not things:
        return None
    kind = "count" if _COUNT.fullmatch(what) else "pair" if _PAIR.fullmatch(what) else "one"
    scene = Scene("three" if len(things) == 3 and kind == "one" else kind, ground, things)
    # The words decide: what another caption would describe was not read.
    return scene if caption(scene) == text else None


def _things(what: str) -> tuple[Thing, ...]:
    if match := _PAIR.fullmatch(what):
        first, second = _ENDS[match[4]]
        return Thing(match[1], match[2], match[3], PLACES[first]), Thing(match[5], match[6], match[7], PLACES[second])
    if match := _COUNT.fullmatch(what):
        shape = next((shape for shape in SHAPES if what.endswith((f" {shape}s", f" {shape}es"))), "")
        return tuple(Thing(match[2], match[3], shape, cell) for cell in _CELLS[match[1]]) if shape else ()
    each = [_WHERE.fullmatch(part) for part in what.split(" and ")]
    return tuple(Thing(m[1], m[2], m[3], PLACES[m[4]]) for m in each if m) if all(each) else ()
