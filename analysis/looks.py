"""How each policy looks in every figure: the same colour, mark and dashes wherever it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from analysis.figures import FAINT, INK

OURS: Final = "quality"


@dataclass(frozen=True, slots=True)
class Look:
    """Colour, mark and dashes of a policy; readable on white and black, told apart by the colour-blind."""

    colour: str
    mark: str
    dashes: tuple[float, tuple[float, ...]] = (0, ())
    width: float = 1.2


# After Okabe and Ito, the light ones darkened: they must be seen on white as well.
LOOKS: Final[Mapping[str, Look]] = {
    OURS: Look("#0b76c9", "o", width=2.2),
    "diffserve": Look("#d55e00", "s"),
    "static": Look("#b58900", "D", (0, (5, 1.5))),
    "proteus": Look("#009e73", "^", (0, (3, 1, 1, 1))),
    "hybrid": Look("#58a6e0", "v", (0, (5, 1.5))),
    "random": Look("#c0649a", "P", (0, (1.5, 1))),
    "clipper-light": Look(FAINT, "<", (0, (5, 1.5))),
    "clipper-heavy": Look(FAINT, ">", (0, (1.5, 1))),
    "pinned": Look(INK, "X", (0, (3, 1, 1, 1))),
}


def look(policy: str) -> Look:
    """The look of a policy; a new one without a row in the table is drawn in the page's ink."""
    return LOOKS.get(policy, Look(INK, "*"))
