"""The accounting: one pass over the outcomes of a run, live or simulated.

The conservation law: offered = refused + light + heavy + dropped + failed + cancelled + open.
violation = (late + dropped + failed + refused) / offered, everywhere.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from shared.catalog import Curve
from shared.messages import ENDS, Outcome

WINDOW_S: Final = 5.0  # quality is read off its curve over windows of this length


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality over the windows of a run, beside the same heavy shares drawn by lot."""

    metric: str
    value: float
    selector: str
    control: float
    control_assumed: bool
    whole: float
    """The figure at the heavy share of the whole run, as the published systems give it."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """What became of the prompts of a run."""

    offered: int
    refused: int
    ends: dict[str, int]
    why: dict[str, int]
    on_time: int
    late: int
    latencies_s: tuple[float, ...]
    gpu_s: float
    twice: tuple[str, ...] = ()
    open: int = field(init=False)

    def __post_init__(self) -> None:
        ended = sum(self.ends[end] for end in ENDS)
        object.__setattr__(self, "open", self.offered - self.refused - ended)

    @property
    def violation(self) -> float:
        """Share of the offered prompts that got no picture in time."""
        missed = self.late + self.ends["dropped"] + self.ends["failed"] + self.refused
        return missed / self.offered if self.offered else 0.0

    @property
    def heavy_share(self) -> float:
        """Share of the answered prompts that the heavy model drew."""
        answered = self.ends["light"] + self.ends["heavy"]
        return self.ends["heavy"] / answered if answered else 0.0

    def latency_s(self, percent: float) -> float:
        """A percentile of the answered prompts' latency."""
        return percentile(self.latencies_s, percent)


def account(outcomes: Iterable[Outcome], offered: int, refused: int = 0, wasted_s: float = 0.0) -> Ledger:
    """Count the outcomes. `twice` names ids with more than one outcome: it must be empty."""
    ends, why, seen = Counter[str](), Counter[str](), Counter[str]()
    on_time = late = 0
    gpu_s = wasted_s
    latencies: list[float] = []
    for outcome in outcomes:
        seen[outcome.id] += 1
        ends[outcome.end] += 1
        why[f"{outcome.end}:{outcome.why}"] += 1
        gpu_s += outcome.gpu_s
        if outcome.answered:
            latencies.append(outcome.latency_s)
            on_time += outcome.on_time
            late += not outcome.on_time
    return Ledger(
        offered=offered,
        refused=refused,
        ends={end: ends[end] for end in ENDS},
        why=dict(sorted(why.items())),
        on_time=on_time,
        late=late,
        latencies_s=tuple(sorted(latencies)),
        gpu_s=gpu_s,
        twice=tuple(sorted(prompt_id for prompt_id, times in seen.items() if times > 1)),
    )


def quality(outcomes: Iterable[Outcome], curve: Curve, control: Curve) -> Quality:
    """Read quality off the measured curve at each window's heavy share, weighted by prompts on time."""
    heavy, total = Counter[int](), Counter[int]()
    for outcome in outcomes:
        if outcome.on_time:
            window = int(outcome.published // WINDOW_S)
            total[window] += 1
            heavy[window] += outcome.end == "heavy"
    count = sum(total.values())
    share = sum(heavy.values()) / count if count else 0.0

    def weighted(of: Curve) -> float:
        values = (of.at(heavy[window] / total[window]) * total[window] for window in total)
        return sum(values) / count if count else of.at(0.0)

    return Quality(
        metric=curve.metric,
        value=weighted(curve),
        selector=curve.selector,
        control=weighted(control),
        control_assumed=control.assumed,
        whole=curve.at(share),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of ascending values; 0 for none."""
    if not values:
        return 0.0
    return values[max(0, math.ceil(len(values) * percent / 100) - 1)]
