"""f(t), the share of scores below t, and its inverse, from live scores with recorded ones as the prior.

Scores are P(real) in [0, 1]. The distribution is the weighted empirical one, in percentiles of what was
seen: no grid and no fit, so the step at a crowded score is kept (DiffServe's f(t) has one near 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.plans import Plan

WINDOW: Final = 1_000  # live scores looked at: a minute or so under load, long enough for steady percentiles
PRIOR_GONE: Final = 300  # live scores after which the prior has no weight; a percentile is then known to 3 points

_UNIFORM: Final = tuple((place + 0.5) / 100 for place in range(100))


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
    seen = _finite(live[-WINDOW:])
    prior = _finite(recorded if len(recorded) else _UNIFORM)
    prior_weight = max(0.0, 1.0 - len(seen) / PRIOR_GONE)
    values, weights = seen, np.full(len(seen), 1.0)
    if prior_weight > 0 and len(prior):
        values = np.concatenate([seen, prior])
        live_each = (1.0 - prior_weight) / max(1, len(seen))
        weights = np.repeat([live_each, prior_weight / len(prior)], [len(seen), len(prior)])
    distinct, places = np.unique(values, return_inverse=True)
    through = np.cumsum(np.bincount(places, weights=weights))
    return Deferral(distinct, through / through[-1])


def drift(plan: Plan, scores: Sequence[float]) -> float:
    """Measured minus predicted escalation: the share of these scores that the plan escalates, less its heavy share.

    In [-1, 1]; 0 without scores. Far from 0 over many scores means that f(t) is out of date.
    """
    seen = _finite(scores)
    if not len(seen):
        return 0.0
    weak = np.count_nonzero(seen < plan.threshold) + plan.tie_share * np.count_nonzero(seen == plan.threshold)
    return float(weak) / len(seen) - plan.heavy_share


def _finite(scores: Sequence[float]) -> NDArray[np.float64]:
    # One score that is no number would poison every percentile after it.
    numbers = np.asarray(scores, dtype=np.float64)
    return numbers[np.isfinite(numbers)]
