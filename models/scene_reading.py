"""The way back from a caption to the scene it describes, so that a picture can be judged by its caption alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from models.scenes import COLOURS, COUNTS, GROUNDS, PLACES, RADII, SHAPES, Scene, Thing, caption

_SMALL: Final = "small"  # where a caption of four things leaves the size out
_AND: Final = " and "
_SIZE, _COLOUR, _SHAPE, _PLACE = ("|".join(words) for words in (RADII, COLOURS, SHAPES, PLACES))
_LOOK: Final = re.compile(rf"(?:({_SIZE}) )?({_COLOUR})(?: ({_COLOUR}))? ({_SHAPE})")
_WHERE: Final = re.compile(rf"(.+) ({_PLACE})")
_PAIR: Final = re.compile(r"(.+) (above|below|left of|right of) (.+)")
_COUNT: Final = re.compile(rf"({'|'.join(COUNTS)}) ({_SIZE}) ({_COLOUR}) ({_SHAPE})(?:es|s)")
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
_Things = tuple[Thing, ...]


def scene_of(text: str) -> Scene | None:
    """The scene that this caption describes, nothing displaced; None where it is no caption of a scene."""
    what, _, ground = text.rpartition(" on ")
    if ground not in GROUNDS:
        return None
    for kind, read in _READERS.items():
        things = read(what)
        # The words decide: what another caption would describe was not read.
        if things and caption(scene := Scene(kind, ground, things)) == text:
            return scene
    return None


def _thing(look: str, place: str) -> _Things:
    found = _LOOK.fullmatch(look)
    return (Thing(found[1] or _SMALL, found[2], found[4], PLACES[place], second=found[3] or ""),) if found else ()


def _placed(what: str) -> _Things:
    """`<look> <place>`, one or several; nothing where any of them is none."""
    parts = [_WHERE.fullmatch(part) for part in what.split(_AND)]
    things = [_thing(part[1], part[2]) for part in parts if part]
    return sum(things, ()) if all(parts) and all(things) else ()


def _related(what: str) -> _Things:
    """`<look> above <look>`, one or several."""
    things: _Things = ()
    for part in what.split(_AND):
        found = _PAIR.fullmatch(part)
        ends = _ENDS[found[2]] if found else ()
        both = [_thing(look, place) for look, place in zip((found[1], found[3]), ends, strict=True)] if found else []
        if not found or not all(both):
            return ()
        things += sum(both, ())
    return things


def _counted(what: str) -> _Things:
    found = _COUNT.fullmatch(what)
    return tuple(Thing(found[2], found[3], found[4], cell) for cell in _CELLS[found[1]]) if found else ()


def _halved(things: _Things) -> bool:
    return all(thing.second for thing in things)


_READERS: Final[Mapping[str, Callable[[str], _Things]]] = {
    "one": lambda what: things if len(things := _placed(what)) == 1 and not things[0].second else (),
    "count": _counted,
    "pair": lambda what: things if len(things := _related(what)) == 2 and not _halved(things) else (),
    "three": lambda what: things if len(things := _placed(what)) == 3 else (),
    "both": lambda what: things if len(things := _related(what)) == 2 and _halved(things) else (),
    "halves": lambda what: things if len(things := _placed(what)) == 1 else (),
    "relations": lambda what: things if len(things := _related(what)) == 4 else (),
    "four": lambda what: things if len(things := _placed(what)) == 4 else (),
}
