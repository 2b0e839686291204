"""The accounting: one pass over the outcomes of a run, live or simulated.

The conservation law: offered = refused + light + heavy + dropped + failed + cancelled + open.
violation = (late + dropped + failed + refused) / offered, everywhere.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from shared.measured import Curve
from shared.messages import ENDS, Outcome
from shared.schema import Stage

ROUNDING_S: Final = 1e-9
WINDOW_S: Final = 5.0  # quality is read off its curve over windows of this length
KEPT: Final = frozenset(("deadline", "no_time"))  # why a light picture is the answer though a heavy one was wanted


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality over the windows of a run, beside the same heavy shares drawn by lot.

    `kept_by_lot`: the figure where prompts kept light for lack of time count on the lot's curve, for it was
    the clock that chose them. `whole`: the figure at the heavy share of the whole run, as the published
    systems give it. `assumed`: part of `value` stands on a curve that no one measured.
    """

    metric: str
    value: float
    selector: str
    control: float
    control_assumed: bool
    kept_by_lot: float
    whole: float
    assumed: bool


@dataclass(frozen=True, slots=True)
class Ledger:
    """What became of the prompts of a run."""

    offered: int
    refused: int
    ends: dict[str, int]
    why: dict[str, int]
    on_time: int
    late: int
    latencies_s: Sequence[float]
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


@dataclass(slots=True)
class Window:
    """Answers on time to the prompts published in one window."""

    answers: int = 0
    heavy: int = 0
    kept: int = 0
    direct: int = 0

    def count(self, outcome: Outcome) -> None:
        """Add an answer that came on time."""
        self.answers += 1
        if outcome.end == "heavy":
            self.heavy += 1
            self.direct += outcome.route == "heavy"
        else:
            self.kept += outcome.why in KEPT

    def include(self, other: Window) -> None:
        """Add what another one counted."""
        self.answers += other.answers
        self.heavy += other.heavy
        self.kept += other.kept
        self.direct += other.direct

    @property
    def share(self) -> float:
        """Heavy share of the answers."""
        return self.heavy / self.answers


class Tally:
    """Outcomes counted one at a time: a run of a million prompts needs no list of them.

    Windows count from `origin`, the first publication: by a clock's own zero, one run would be cut in two ways.
    """

    def __init__(self, origin: float | None = None) -> None:
        self.origin = origin
        self.ends, self.why = Counter[str](), Counter[str]()
        self.on_time = self.late = 0
        self.gpu_s = 0.0
        self.first_published, self.last_finished = math.inf, 0.0
        self.windows: dict[int, Window] = defaultdict(Window)
        self.batches: dict[Stage, float] = {"light": 0.0, "heavy": 0.0}
        self.visits: dict[Stage, int] = {"light": 0, "heavy": 0}
        self.latencies_s = array("d")
        self._seen: set[str] = set()
        self._twice: set[str] = set()

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> Tally:
        """All of them, counted."""
        known = tuple(outcomes)
        made = cls(min((outcome.published for outcome in known), default=None))
        for outcome in known:
            made.add(outcome)
        return made

    def add(self, outcome: Outcome) -> None:
        """Count one outcome."""
        (self._twice if outcome.id in self._seen else self._seen).add(outcome.id)
        self.ends[outcome.end] += 1
        self.why[f"{outcome.end}:{outcome.why}"] += 1
        self.first_published = min(self.first_published, outcome.published)
        self.last_finished = max(self.last_finished, outcome.finished)
        for visit in outcome.visits:
            self.gpu_s += visit.gpu_s
            self.visits[visit.stage] += 1
            self.batches[visit.stage] += 1 / visit.batch
        if outcome.answered:
            self.latencies_s.append(outcome.latency_s)
            if outcome.on_time:
                self.on_time += 1
                self._window(outcome.published).count(outcome)
            else:
                self.late += 1

    def include(self, other: Tally) -> None:
        """Add what another one counted of other prompts, from the same origin."""
        self.ends.update(other.ends)
        self.why.update(other.why)
        self.on_time += other.on_time
        self.late += other.late
        self.gpu_s += other.gpu_s
        self.first_published = min(self.first_published, other.first_published)
        self.last_finished = max(self.last_finished, other.last_finished)
        for stage, batches in other.batches.items():
            self.batches[stage] += batches
            self.visits[stage] += other.visits[stage]
        self.latencies_s.extend(other.latencies_s)
        for number, window in other.windows.items():
            self.windows[number].include(window)

    def _window(self, published: float) -> Window:
        if self.origin is None:
            self.origin = published
        return self.windows[int((published - self.origin + ROUNDING_S) // WINDOW_S)]

    def batch_mean(self, stage: Stage) -> float:
        """Mean size of the batches a stage drew: a batch of n is seen n times, each time as an n-th of one."""
        return self.visits[stage] / self.batches[stage] if self.visits[stage] else 0.0

    def ledger(self, offered: int, refused: int = 0, wasted_s: float = 0.0) -> Ledger:
        """The accounts. `twice` names ids with more than one outcome: it must be empty."""
        return Ledger(
            offered=offered,
            refused=refused,
            ends={end: self.ends[end] for end in ENDS},
            why=dict(sorted(self.why.items())),
            on_time=self.on_time,
            late=self.late,
            latencies_s=sorted(self.latencies_s),
            gpu_s=self.gpu_s + wasted_s,
            twice=tuple(sorted(self._twice)),
        )


def account(outcomes: Iterable[Outcome], offered: int, refused: int = 0, wasted_s: float = 0.0) -> Ledger:
    """The ledger of these outcomes."""
    return Tally.of(outcomes).ledger(offered, refused, wasted_s)


def overlaps(outcomes: Iterable[Outcome], slack_s: float = 0.1) -> list[str]:
    """Pairs of batches that were drawn on one slot at the same time, by the stamps of their visits.

    A worker's name is `<node>-<slot>-<stage>-<incarnation>`.
    """
    batches = {(v.worker.rsplit("-", 2)[0], v.started, v.finished, v.worker) for o in outcomes for v in o.visits}
    return [
        f"{before} {after}"
        for before, after in pairwise(sorted(batches))
        if before[0] == after[0] and after[1] < before[2] - slack_s
    ]


def quality(tally: Tally, curve: Curve, lot: Curve) -> Quality:
    """Read quality off the selector's measured curve at each window's heavy share, weighted by prompts on time.

    Prompts sent straight to heavy were chosen by no picture: they count on the lot's curve. An assumed curve
    was measured at its ends: all light and all heavy are the same, whoever chooses.
    """
    windows = list(tally.windows.values())
    count = sum(window.answers for window in windows)
    direct = sum(window.direct for window in windows)
    share = sum(window.heavy for window in windows) / count if count else 0.0
    mixed = [window for window in windows if 0 < window.heavy < window.answers]

    def mean(by_lot: Sequence[int]) -> float:
        if not count:
            return curve.at(0.0)
        return (
            sum(
                lot.at(window.share) * chosen + curve.at(window.share) * (window.answers - chosen)
                for window, chosen in zip(windows, by_lot, strict=True)
            )
            / count
        )

    return Quality(
        metric=curve.metric,
        value=mean([window.direct for window in windows]),
        selector=curve.selector,
        control=mean([window.answers for window in windows]),
        control_assumed=lot.assumed and bool(mixed),
        kept_by_lot=mean([window.direct + window.kept for window in windows]),
        whole=curve.at(share) + (lot.at(share) - curve.at(share)) * (direct / count if count else 0.0),
        assumed=(curve.assumed and bool(mixed)) or (lot.assumed and any(window.direct for window in mixed)),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of ascending values; 0 for none."""
    if not values:
        return 0.0
    return values[max(0, math.ceil(len(values) * percent / 100) - 1)]
