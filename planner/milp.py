"""The program of the design, as data: which workers at which batch size give the best quality in time.

    n[m,b]  workers of model m at batch b      (integer)
    y[m,b]  batch b is the one used for m      (binary; one for light, at most one for heavy: none = all light)
    h       heavy share, on the segments of q  (weights of its points; a binary per segment where q is not convex)

    min   loss(h)  then  workers  then  switches  then  the counts in order   (lexicographic)
    s.t.  rho * sum_b n[light,b] * b/L >= D              rho * sum_b n[heavy,b] * b/L >= h * D
          sum n <= slots      y <= n <= slots of the stage * y
          sum_b y[light,b] * (L + w) + sum_b y[heavy,b] * (L + w) <= deadline

Counting workers per batch size makes DiffServe's products (workers times throughput of a chosen batch,
MLSys 2025, section 4) linear. A `Case` holds the numbers, a `Solution` the answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from planner.program import FREE, Column, Objective, Program, Row, Terms, folded
from shared.catalog import Cascade, Curve
from shared.plans import Slot
from shared.schema import STAGES, Stage

HEADROOM: Final = 0.9  # rho: share of the throughput that is planned for
WAIT_SHARE: Final = 0.25  # w / L: mean time until the next of two busy workers is free
HEAVY_PRICE: Final = 1e-3  # loss per unit of heavy share: where quality is equal, less heavy work wins
TOLERANCE: Final = 1e-3  # loss given up for fewer workers: a thousandth of the range of quality
DEMAND_FLOOR: Final = 0.1  # prompts/s; an idle system still keeps a worker of each stage
RESOLUTION: Final = 1.02  # demand and pace are rounded to steps of 2 %, so that a quiet view solves nothing
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """A batch size of a model: seconds per batch, and the wait `w` counted against the deadline."""

    batch: int
    service_s: float
    wait_s: float

    @property
    def throughput(self) -> float:
        """Prompts per second of one worker in full batches."""
        return self.batch / self.service_s

    @property
    def latency_s(self) -> float:
        """Seconds this stage takes from the deadline."""
        return self.service_s + self.wait_s


@dataclass(frozen=True, slots=True)
class Case:
    """The numbers of one program, hashable: equal cases have equal solutions.

    `light_slots`, `heavy_slots`: slots that can run the stage, of `slots` in all. `loss`: points of the
    loss over the heavy share. `counts`: workers of the plan in force, if there is one.
    """

    demand: float
    deadline_s: float
    light: tuple[Choice, ...]
    heavy: tuple[Choice, ...]
    slots: int
    light_slots: int
    heavy_slots: int
    loss: Points
    counts: tuple[int, int] | None = None
    headroom: float = HEADROOM


@dataclass(frozen=True, slots=True)
class Solution:
    """Workers and batch sizes, the heavy share they carry and its loss. `heavy` is None where all is light."""

    light_workers: int
    heavy_workers: int
    light: Choice
    heavy: Choice | None
    heavy_share: float
    loss: float


def loss_points(curve: Curve) -> Points:
    """The curve as a loss in [0, 1], 0 at its best point, plus HEAVY_PRICE for each unit of heavy share."""
    shares = sorted({0.0, 1.0} | {share for share, _ in curve.points if 0 < share < 1})
    worth = [curve.at(share) * (1 if curve.lower_is_better else -1) for share in shares]
    scale = (max(worth) - min(worth)) or 1.0
    return tuple((h, (q - min(worth)) / scale + HEAVY_PRICE * h) for h, q in zip(shares, worth, strict=True))


def best_share(loss: Points, capacity: float) -> tuple[float, float]:
    """The heavy share in [0, capacity] of least loss, the smallest such, and its loss."""
    limit = min(1.0, max(0.0, capacity))
    within = [(value, h) for h, value in loss if h <= limit]
    for (h0, loss0), (h1, loss1) in pairwise(loss):
        if h0 < limit < h1:
            within.append((loss0 + (loss1 - loss0) * (limit - h0) / (h1 - h0), limit))
    value, share = min(within)
    return share, value


def case_of(
    cascade: Cascade,
    slots: tuple[Slot, ...],
    demand: float,
    deadline_s: float,
    loss: Points,
    counts: tuple[int, int] | None = None,
    wait_share: float = WAIT_SHARE,
) -> Case:
    """The case of a (paced) cascade on these slots; `demand` in prompts/s is rounded up to the resolution."""
    light = worthwhile(_choices(cascade, "light", slots, wait_share), deadline_s)
    left_s = deadline_s - min((choice.latency_s for choice in light), default=deadline_s)
    return Case(
        demand=round_up(max(demand, DEMAND_FLOOR)),
        deadline_s=deadline_s,
        light=light,
        heavy=worthwhile(_choices(cascade, "heavy", slots, wait_share), left_s),
        slots=sum(1 for slot in slots if slot.stages),
        light_slots=sum("light" in slot.stages for slot in slots),
        heavy_slots=sum("heavy" in slot.stages for slot in slots),
        loss=loss,
        counts=counts,
    )


def round_up(number: float) -> float:
    """The next step of the planner's resolution, for a positive number."""
    return float(RESOLUTION ** math.ceil(math.log(number, RESOLUTION) - 1e-9))


def _choices(cascade: Cascade, stage: Stage, slots: tuple[Slot, ...], wait_share: float) -> tuple[Choice, ...]:
    known = cascade.profiles[stage]
    # A slot whose GPU was never profiled is planned as the cascade's own; the measured pace corrects it.
    types = {slot.gpu if slot.gpu in known else cascade.gpu for slot in slots if stage in slot.stages}
    types = types or {cascade.gpu}
    batches = set.intersection(*(set(cascade.batches(stage, gpu)) for gpu in types))
    slowest = {batch: max(cascade.service_s(stage, batch, gpu) for gpu in types) for batch in sorted(batches)}
    return tuple(Choice(batch, service_s, wait_share * service_s) for batch, service_s in slowest.items())


def worthwhile(choices: tuple[Choice, ...], time_s: float) -> tuple[Choice, ...]:
    """The choices that fit into the time and draw faster than every smaller batch; no optimum needs another."""
    kept: list[Choice] = []
    for choice in choices:
        if choice.latency_s <= time_s and all(choice.throughput > smaller.throughput for smaller in kept):
            kept.append(choice)
    return tuple(kept)


class _Sheet:
    """Columns and rows as they are written down."""

    def __init__(self) -> None:
        self.columns: list[Column] = []
        self.rows: list[Row] = []

    def column(self, name: str, upper: float, integer: bool = True) -> int:
        self.columns.append(Column(name, upper, integer))
        return len(self.columns) - 1

    def row(self, name: str, terms: list[tuple[int, float]], lower: float = -FREE, upper: float = FREE) -> None:
        self.rows.append(Row(name, tuple(terms), lower, upper))


def build(case: Case) -> Program:
    """Write the case down as a program; see the module's docstring."""
    sheet = _Sheet()
    workers: dict[Stage, list[int]] = {}
    used: dict[Stage, list[int]] = {}
    choices = {"light": case.light, "heavy": case.heavy}
    limits = {"light": case.light_slots, "heavy": case.heavy_slots}
    for stage in STAGES:
        workers[stage] = [sheet.column(f"n[{stage},{c.batch}]", limits[stage]) for c in choices[stage]]
        used[stage] = [sheet.column(f"y[{stage},{c.batch}]", 1) for c in choices[stage]]
        for n, y in zip(workers[stage], used[stage], strict=True):
            sheet.row("workers only at the batch used", [(n, 1), (y, -limits[stage])], upper=0)
            sheet.row("a batch used has a worker", [(n, 1), (y, -1)], lower=0)
        sheet.row(f"one batch of {stage}", [(y, 1) for y in used[stage]], float(stage == "light"), 1)
    share, loss = _on_segments(sheet, case.loss)
    rate = case.headroom / case.demand
    drawn = {s: [(n, rate * c.throughput) for n, c in zip(workers[s], choices[s], strict=True)] for s in STAGES}
    sheet.row("light demand", drawn["light"], lower=1)
    sheet.row("heavy demand", drawn["heavy"] + [(place, -h) for place, h in share], lower=0)
    every = [(n, 1.0) for stage in STAGES for n in workers[stage]]
    sheet.row("slots", every, upper=case.slots)
    seconds = [(y, c.latency_s) for s in STAGES for y, c in zip(used[s], choices[s], strict=True)]
    sheet.row("deadline", seconds, upper=case.deadline_s)
    objectives = [Objective("loss", loss, TOLERANCE), Objective("workers", tuple(every), 0.5, case.slots)]
    if case.counts is not None:
        furthest = sum(max(before, case.slots) for before in case.counts)
        objectives.append(Objective("switches", _switches(sheet, workers, case.counts), 0.5, furthest))
    objectives.append(_order(case, workers, used))
    return Program(tuple(sheet.columns), tuple(sheet.rows), folded(objectives))


def _on_segments(sheet: _Sheet, loss: Points) -> tuple[Terms, Terms]:
    """Columns that weigh the points of the loss; its terms for the heavy share and for the loss."""
    weights = [sheet.column(f"weight[{h:g}]", 1, integer=False) for h, _ in loss]
    sheet.row("weights", [(weight, 1) for weight in weights], 1, 1)
    slopes = [(loss1 - loss0) / (h1 - h0) for (h0, loss0), (h1, loss1) in pairwise(loss)]
    if any(after < before - 1e-9 for before, after in pairwise(slopes)):
        segments = [sheet.column(f"segment[{h:g}]", 1) for h, _ in loss[1:]]
        sheet.row("one segment", [(segment, 1) for segment in segments], 1, 1)
        for place, weight in enumerate(weights):
            beside = segments[max(0, place - 1) : place + 1]
            sheet.row("weights beside the segment", [(weight, 1), *((segment, -1) for segment in beside)], upper=0)
    shares = tuple((weight, h) for weight, (h, _) in zip(weights, loss, strict=True) if h > 0)
    return shares, tuple((weight, value) for weight, (_, value) in zip(weights, loss, strict=True))


def _switches(sheet: _Sheet, workers: Mapping[Stage, list[int]], counts: tuple[int, int]) -> Terms:
    """|change of the workers of a stage|, summed over the stages."""
    changes = []
    for stage, before in zip(STAGES, counts, strict=True):
        change = sheet.column(f"change[{stage}]", FREE, integer=False)
        now = [(n, 1.0) for n in workers[stage]]
        sheet.row("change up", [*now, (change, -1)], upper=before)
        sheet.row("change down", [*now, (change, 1)], lower=before)
        changes.append((change, 1.0))
    return tuple(changes)


def _order(case: Case, workers: Mapping[Stage, list[int]], used: Mapping[Stage, list[int]]) -> Objective:
    """Small heavy batches, then small light ones, then few light workers: leaves exactly one optimum."""
    heavy_step, light_step = order_steps(case)
    terms = [(y, place * heavy_step) for place, y in enumerate(used["heavy"], start=1)]
    terms += [(y, place * light_step) for place, y in enumerate(used["light"], start=1)]
    terms += [(n, 1.0) for n in workers["light"]]
    return Objective("order", tuple(terms), 0.5, heavy_step * (len(case.heavy) + 1))


def order_steps(case: Case) -> tuple[float, float]:
    """Weights that make one step of the heavy batch outweigh any light batch, and that any worker count."""
    light_step = case.slots + 1.0
    return light_step * (len(case.light) + 1), light_step


def decode(case: Case, values: tuple[float, ...]) -> Solution:
    """Read the workers off the columns; the share is then the best one those workers carry.

    The share's own columns are not read: within the tolerance they differ from solver to solver.
    """
    rounded = [round(value) for value in values[: 2 * (len(case.light) + len(case.heavy))]]
    light = len(case.light)
    place = next(place for place, used in enumerate(rounded[light : 2 * light]) if used)
    heavy_counts = rounded[2 * light : 2 * light + len(case.heavy)]
    heavy = next((place for place, count in enumerate(heavy_counts) if count), None)
    if heavy is None:
        return finish(case, rounded[place], 0, case.light[place], None)
    return finish(case, rounded[place], heavy_counts[heavy], case.light[place], case.heavy[heavy])


def finish(case: Case, light_workers: int, heavy_workers: int, light: Choice, heavy: Choice | None) -> Solution:
    """The solution of these workers, with the heavy share of least loss that they carry."""
    drawn = heavy_workers * heavy.throughput * case.headroom if heavy else 0.0
    share, loss = best_share(case.loss, drawn / case.demand)
    return Solution(light_workers, heavy_workers, light, heavy, share, loss)
