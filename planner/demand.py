"""How many prompts per second to plan for, from the prompts offered in each of the last seconds.

Offered, not accepted and never in flight: counting accepted prompts locks an overloaded planner in, and
counting those in flight is off by the latency (DiffServe's artifact: 1.8 times the truth).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import mul
from typing import Final

RISE_COM: Final = 1.0  # centre of mass, in seconds, of the average that follows a rise
FALL_COM: Final = 4.0  # ... and of the one that holds on when load falls
TREND_S: Final = 10  # seconds the trend is fitted to; shorter fits chase Poisson noise
HORIZON_S: Final = 2.0  # a plan acts about this long after its last count: one period and one batch
RECENT_S: Final = 3  # a forecast never exceeds the largest count in these last seconds
BURST_Z: Final = 0.84  # 80th percentile of the normal distribution
BURST_S: Final = 5.0  # counts are pooled over this time, which a queue absorbs within the deadline
LIMIT: Final = 1e9  # prompts/s; keeps arithmetic finite whatever is offered


@dataclass(frozen=True, slots=True)
class Demand:
    """Prompts per second: the present level, the rise expected within the horizon, and room for a burst."""

    level: float
    rise: float
    burst: float

    @property
    def planned(self) -> float:
        """What a plan has to carry."""
        return self.level + self.rise + self.burst


def forecast(offered: Sequence[int]) -> Demand:
    """Smooth, extrapolate, and add a burst term; `offered` holds counts per second, oldest first.

    The level is the larger of a quick and a slow average, so it rises within two seconds and falls
    gently. The rise is the fitted slope times HORIZON_S, capped by the largest recent count so that a step
    is not overshot. The burst term sizes for the 80th percentile of the mean over BURST_S seconds of a
    Poisson process of that level: z * sqrt(level / BURST_S).
    """
    counts = [min(float(min(count, 10**9)), LIMIT) for count in offered]
    if not counts:
        return Demand(0.0, 0.0, 0.0)
    level = max(averaged(counts, RISE_COM), averaged(counts, FALL_COM))
    ceiling = max(counts[-RECENT_S:])
    rise = max(0.0, min(slope(counts[-TREND_S:]) * HORIZON_S, ceiling - level))
    return Demand(level, rise, BURST_Z * math.sqrt((level + rise) / BURST_S))


def averaged(counts: Sequence[float], com: float) -> float:
    """Exponentially weighted mean with centre of mass `com`, normalised (pandas' `ewm(com).mean()`)."""
    weights, total = _weights(len(counts), com)
    return float(sum(map(mul, weights, counts)) / total)


@lru_cache(maxsize=1024)
def _weights(count: int, com: float) -> tuple[tuple[float, ...], float]:
    decay = com / (1.0 + com)
    weights = tuple(decay**age for age in range(count - 1, -1, -1))
    return weights, sum(weights)


def slope(counts: Sequence[float]) -> float:
    """Least-squares slope per second; 0 for fewer than three counts."""
    if len(counts) < 3:
        return 0.0
    middle = (len(counts) - 1) / 2
    spread = sum((place - middle) ** 2 for place in range(len(counts)))
    return sum((place - middle) * count for place, count in enumerate(counts)) / spread
