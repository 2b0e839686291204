"""How the rate of prompts changes over a trace: one function per shape, all with one signature."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

# The published curve of two weeks of Azure Functions invocations, at 21 equal distances, least 0 and most 1.
OUTLINE: Final = (
    *(0.07, 0.0, 0.2, 0.11, 0.32, 0.39, 0.48, 0.55, 0.56, 0.65, 0.68),
    *(0.86, 1.0, 0.96, 0.83, 0.87, 0.87, 0.64, 0.53, 0.28, 0.18),
)
# Seconds that a burst, and the calm between two bursts, lasts in the mean.
BURST_S: Final = 5.0
CALM_S: Final = 15.0
PLATEAUS: Final = (0.0, 1 / 3, 2 / 3, 1.0, 0.0)

Rate = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Span:
    """Between which rates (prompts per second) and for how long (seconds).

    `curve`: what the rate follows, in any unit, at equal distances; for the shape `azure` only.
    """

    low: float
    high: float
    seconds: float
    seed: int = 0
    curve: tuple[float, ...] = OUTLINE

    def between(self, share: float) -> float:
        """The rate at a share in [0, 1] of the way from low to high."""
        return self.low + (self.high - self.low) * share


Shape = Callable[[Span], Rate]


def poisson(span: Span) -> Rate:
    """The same rate throughout, half-way between low and high."""
    return lambda _: span.between(0.5)


def hill(span: Span) -> Rate:
    """Climbs from low to high at half time, and falls again: a squared sine."""
    return lambda at_s: span.between(math.sin(math.pi * at_s / span.seconds) ** 2)


def steps(span: Span) -> Rate:
    """Five plateaus of equal length: low, a third, two thirds, high, and down to low at once."""
    return lambda at_s: span.between(PLATEAUS[min(int(at_s / span.seconds * len(PLATEAUS)), len(PLATEAUS) - 1)])


def bursty(span: Span) -> Rate:
    """Markov-modulated: calm at low and bursts at high, each of exponential length (15 s and 5 s in the mean)."""
    random = Random(f"bursts {span.seed}")
    ends: list[float] = []
    at_s = 0.0
    while at_s < span.seconds:
        at_s += random.expovariate(1 / (BURST_S if len(ends) % 2 else CALM_S))
        ends.append(at_s)
    return lambda at_s: span.high if bisect_right(ends, at_s) % 2 else span.low


def azure(span: Span) -> Rate:
    """The curve, stretched over the span and from low to high, linear between its points."""
    lowest, highest = min(span.curve), max(span.curve)
    shares = [(value - lowest) / ((highest - lowest) or 1.0) for value in span.curve]

    def rate(at_s: float) -> float:
        place = min(max(at_s / span.seconds, 0.0), 1.0) * (len(shares) - 1)
        before = min(int(place), len(shares) - 2)
        return span.between(shares[before] + (shares[before + 1] - shares[before]) * (place - before))

    return rate


SHAPES: Final[Mapping[str, Shape]] = {
    "azure": azure,
    "poisson": poisson,
    "bursty": bursty,
    "steps": steps,
    "hill": hill,
}


def arrivals(rate: Rate, span: Span) -> list[float]:
    """Ascending times in [0, seconds) of a Poisson process of that rate, which never exceeds `span.high`.

    By thinning (Lewis and Shedler 1979): candidates at the rate `high`, each kept with probability rate / high.
    """
    random = Random(f"arrivals {span.seed}")
    times: list[float] = []
    at_s = random.expovariate(span.high)
    while at_s < span.seconds:
        if random.random() * span.high < rate(at_s):
            times.append(at_s)
        at_s += random.expovariate(span.high)
    return times
