"""A mixed-integer program as data: what any solver takes, and what a test can break on purpose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

FREE: Final = math.inf
SLACK: Final = 1e-6  # feasibility tolerance of the solvers, so that search rounds as they do
HALF: Final = 0.5  # tolerance of a sum that only takes whole values

# A solver's integers are off by up to 1e-6: larger weights would let that error outweigh a whole step.
HEAVIEST: Final = 1e6

Terms = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A variable and its bounds."""

    name: str
    upper: float
    integer: bool
    lower: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """lower <= sum of coefficient * column <= upper."""

    name: str
    terms: Terms
    lower: float = -FREE
    upper: float = FREE


@dataclass(frozen=True, slots=True)
class Objective:
    """A sum to minimise; the objectives after it may give up `tolerance` of its optimum.

    `span`: the largest value of a sum that only takes whole ones, FREE for any other. `settles`: groups of
    columns; a group that is zero in one optimum of this and the objectives before it is zero in all. `gap`: how
    far from the optimum a solver may stop, beside its own tolerance.
    """

    name: str
    terms: Terms
    tolerance: float
    span: float = FREE
    settles: tuple[tuple[int, ...], ...] = ()
    gap: float = 0.0


@dataclass(frozen=True, slots=True)
class Program:
    """A mixed-integer program with lexicographic objectives."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    objectives: tuple[Objective, ...]


def folded(objectives: Sequence[Objective]) -> tuple[Objective, ...]:
    """The same lexicographic order in fewer sums: each is a solve, and HiGHS takes 2-3 ms for one.

    Neighbours that only take whole values become one weighed sum where the weights stay below HEAVIEST.
    """
    kept = [objectives[0]]
    for after in objectives[1:]:
        before, step = kept[-1], after.span + 1
        if before.span * step <= HEAVIEST:
            terms = {place: cost * step for place, cost in before.terms}
            for place, cost in after.terms:
                terms[place] = terms.get(place, 0.0) + cost
            name, span = f"{before.name}, {after.name}", before.span * step + after.span
            settles, gap = before.settles + after.settles, max(before.gap * step, after.gap)
            kept[-1] = Objective(name, tuple(terms.items()), after.tolerance, span, settles, gap)
        else:
            kept.append(after)
    return tuple(kept)
