"""f(t), the share of scores below t, and its inverse, from live scores with recorded ones as the prior.

Scores are P(real) in [0, 1]. The distribution is the weighted empirical one, in percentiles of what was
seen: no grid and no fit, so the step at a crowded score is kept (DiffServe's f(t) has one near 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.plans import Plan

WINDOW: Final = 1_000  # live scores looked at: a minute or so under load, long enough for steady percentiles
PRIOR_GONE: Final = 300  # live scores after which the prior has no weight; a percentile is then known to 3 points
KEPT: Final = 8  # a planner has one prior; notebooks have a few

UNIFORM: Final = tuple((place + 0.5) / 100 for place in range(100))


@dataclass(frozen=True, slots=True)
class Deferral:
    """The distribution of scores: distinct values, ascending, and the share of scores up to each."""

    values: NDArray[np.float64]
    through: NDArray[np.float64]

    def share_below(self, threshold: float) -> float:
        """f(t): the share of scores strictly below the threshold."""
        place = int(np.searchsorted(self.values, threshold, side="left"))
        return float(self.through[place - 1]) if place else 0.0

    def threshold_for(self, share: float) -> tuple[float, float]:
        """`(threshold, tie_share)` at which exactly this share of scores escalates, ties included."""
        if share <= 0:
            return 0.0, 0.0
        if share >= 1:
            return 1.0, 1.0
        place = min(int(np.searchsorted(self.through, share, side="left")), len(self.values) - 1)
        below = float(self.through[place - 1]) if place else 0.0
        tie_share = (share - below) / (float(self.through[place]) - below)
        return float(self.values[place]), min(1.0, max(0.0, tie_share))


def deferral(live: Sequence[float], recorded: Sequence[float]) -> Deferral:
    """Blend the last WINDOW live scores with the recorded ones.

    With k live scores the prior weighs max(0, 1 - k / PRIOR_GONE): all at the start, nothing once the
    live scores speak for themselves, for a stale prior would bend the threshold for ever. Without any
    score of either kind scores are taken as uniform, so that threshold and share are the same number.
    """
    # A tuple stays itself: what a view says is worked out once, however often its policy asks.
    return _blend(_Same(tuple(live)), _Same(tuple(recorded)))


class _Same:
    """Scores known by identity: to hash thousands of numbers takes longer than to sort a few."""

    __slots__ = ("scores",)

    def __init__(self, scores: tuple[float, ...]) -> None:
        self.scores = scores

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.scores is self.scores

    def __hash__(self) -> int:
        return id(self.scores)


@lru_cache(maxsize=KEPT)
def _blend(live: _Same, recorded: _Same) -> Deferral:
    seen = np.sort(_finite(live.scores[-WINDOW:]))
    prior_weight = max(0.0, 1.0 - len(seen) / PRIOR_GONE)
    if prior_weight == 0:
        return _stepped(seen, np.arange(1.0, len(seen) + 1))
    prior = _ascending(recorded)
    prior = prior if len(prior) else np.array(UNIFORM)
    places = np.searchsorted(prior, seen, side="right")
    weights = np.full(len(prior) + len(seen), prior_weight / len(prior))
    weights[places + np.arange(len(seen))] = (1.0 - prior_weight) / max(1, len(seen))
    return _stepped(np.insert(prior, places, seen), np.cumsum(weights))


@lru_cache(maxsize=KEPT)
def _ascending(recorded: _Same) -> NDArray[np.float64]:
    return np.sort(_finite(recorded.scores))


def _stepped(values: NDArray[np.float64], through: NDArray[np.float64]) -> Deferral:
    """From ascending values, some of them equal, and the weight up to each."""
    last = np.append(values[1:] != values[:-1], True)
    return Deferral(values[last], through[last] / through[-1])


def drift(plan: Plan, scores: Sequence[float]) -> float:
    """Measured minus predicted escalation: the share of these scores that the plan escalates, less its heavy share.

    In [-1, 1]; 0 without scores, or where lots decide. What escalates because heavy has room is
    not counted. Far from 0 over many scores means that f(t) is out of date.
    """
    seen = _finite(scores)
    if plan.lot or not len(seen):
        return 0.0
    weak = np.count_nonzero(seen < plan.threshold) + plan.tie_share * np.count_nonzero(seen == plan.threshold)
    return float(weak) / len(seen) - plan.heavy_share


def _finite(scores: Sequence[float]) -> NDArray[np.float64]:
    # One score that is no number would poison every percentile after it.
    numbers = np.asarray(scores, dtype=np.float64)
    return numbers[np.isfinite(numbers)]
