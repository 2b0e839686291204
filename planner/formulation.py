"""Writes cases down as a program, and reads the answer back. `milp` says what the program is.

Several cases are cascades that share the slots: each has rows of its own, the slots' rows are common, and the
losses are added, weighed by demand. One case is the program of one cascade.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from planner.fleet import Choice, Staff
from planner.milp import TOLERANCE, Case, Points, Solution, best_share, finish
from planner.program import FREE, HALF, SLACK, Column, Objective, Program, Row, Terms, folded
from shared.schema import STAGES, Stage

LARGE_FLEET: Final = 256  # slots


class _Sheet:
    """Columns and rows as they are written down."""

    def __init__(self) -> None:
        self.columns: list[Column] = []
        self.rows: list[Row] = []

    def column(self, name: str, upper: float, integer: bool = True) -> int:
        self.columns.append(Column(name, upper, integer))
        return len(self.columns) - 1

    def row(self, name: str, terms: Sequence[tuple[int, float]], lower: float = -FREE, upper: float = FREE) -> None:
        self.rows.append(Row(name, tuple(terms), lower, upper))


@dataclass(frozen=True, slots=True)
class _Block:
    """The columns of one case: workers by stage, batch and pool; `used` by stage, batch and slowest GPU let in."""

    case: Case
    workers: dict[Stage, list[list[int]]]
    used: dict[Stage, list[list[int]]]

    def on_pool(self, stage: Stage, pool: int) -> Terms:
        """All workers of the stage on a pool, at any batch."""
        return tuple((batch[pool], 1.0) for batch in self.workers[stage])

    def every(self) -> Iterator[tuple[Stage, int, Terms]]:
        """All workers of each stage on each pool."""
        for stage in STAGES:
            for pool in range(len(self.case.pools)):
                yield stage, pool, self.on_pool(stage, pool)


def build(*cases: Case, shed: bool = False) -> Program:
    """The program of cases that share their slots: all have the same pools and the same most of workers.

    To `shed` is to draw all light and to carry the largest share of every demand, in place of all of it.
    """
    sheet = _Sheet()
    # The workers come first, where `decode` finds them.
    workers = [{stage: _worker_columns(sheet, case, stage) for stage in STAGES} for case in cases]
    carried = sheet.column("carried", 1, integer=False) if shed else None
    total = sum(case.demand for case in cases)
    blocks: list[_Block] = []
    loss: list[tuple[int, float]] = []
    for case, columns in zip(cases, workers, strict=True):
        used = {stage: _batches(sheet, case, stage, columns[stage]) for stage in STAGES}
        blocks.append(_Block(case, columns, used))
        loss += [(weight, value * case.demand / total) for weight, value in _demands(sheet, blocks[-1], carried)]
    # On large fleets the last GPU of hundreds is not worth the time that its proof takes.
    gap = cases[0].slots // LARGE_FLEET if len(cases) * len(cases[0].pools) > 1 else 0
    spared = TOLERANCE / 2 if gap else 0.0
    first = Objective("loss", tuple(loss), TOLERANCE - spared, gap=spared)
    if carried is not None:
        first = Objective("shed", ((carried, -1.0),), TOLERANCE, gap=TOLERANCE)
    objectives = [first, Objective("workers", _slots(sheet, blocks), HALF, cases[0].slots, gap=gap)]
    if any(case.counts for case in cases):
        objectives.append(replace(_switches(sheet, blocks), gap=gap))
    return Program(tuple(sheet.columns), tuple(sheet.rows), folded([*objectives, *_order(blocks)]))


def decode(case: Case, values: Sequence[float], start: int = 0) -> Solution:
    """Read the workers of a case off its columns, which begin at `start`; the share is the best one they carry.

    The share's own columns are not read: within the tolerance they differ from solver to solver.
    """
    light, light_on = _read(case.light, values, start, len(case.pools))
    heavy, heavy_on = _read(case.heavy, values, start + len(case.light) * len(case.pools), len(case.pools))
    return finish(case, Staff(light_on, heavy_on), light or case.light[0], heavy)


def width(case: Case) -> int:
    """How many columns hold the workers of a case."""
    return (len(case.light) + len(case.heavy)) * len(case.pools)


def _read(
    choices: tuple[Choice, ...], values: Sequence[float], start: int, pools: int
) -> tuple[Choice | None, tuple[int, ...]]:
    for choice in choices:
        workers = tuple(round(value) for value in values[start : start + pools])
        if any(workers):
            return choice, workers
        start += pools
    return None, (0,) * pools


def _worker_columns(sheet: _Sheet, case: Case, stage: Stage) -> list[list[int]]:
    return [
        [
            sheet.column(f"n[{stage},{choice.batch},{pool.gpu}]", pool.limit(stage) if seconds < math.inf else 0)
            for pool, seconds in zip(case.pools, choice.seconds, strict=True)
        ]
        for choice in case.choices(stage)
    ]


def _batches(sheet: _Sheet, case: Case, stage: Stage, workers: list[list[int]]) -> list[list[int]]:
    """One batch for the stage, on the GPUs that are quick enough for the latency chosen with it.

    No optimum has more workers on a pool than carry all of the demand: the bound keeps a solver from splitting
    a batch's column.
    """
    most = 1.0 if stage == "light" else best_share(case.loss, 1.0)[0]
    used: list[list[int]] = []
    for choice, columns in zip(case.choices(stage), workers, strict=True):
        lets_in = let_in(case, stage, choice)
        ys = [sheet.column(f"y[{stage},{choice.batch},{latency_s:.6g} s]", 1) for latency_s in lets_in]
        used.append(ys)
        rates = _rates(case, choice)
        for column, pool, latency_s, rate in zip(columns, case.pools, choice.latencies, rates, strict=True):
            slow_enough = [y for y, most_s in zip(ys, lets_in, strict=True) if most_s >= latency_s]
            needed = math.ceil(most / rate - SLACK) if rate else 0
            limit = min(pool.limit(stage), case.slots, needed)
            sheet.row("workers only at the batch used", [(column, 1), *((y, -limit) for y in slow_enough)], upper=0)
        sheet.row("a batch used has a worker", [*((n, 1.0) for n in columns), *((y, -1.0) for y in ys)], lower=0)
    sheet.row(f"one batch of {stage}", [(y, 1) for ys in used for y in ys], float(stage == "light"), 1)
    return used


def _rates(case: Case, choice: Choice) -> tuple[float, ...]:
    """The share of the demand that a worker on each pool draws, with headroom."""
    return tuple(case.headroom * choice.batch / (seconds * case.demand) for seconds in choice.seconds)


def let_in(case: Case, stage: Stage, choice: Choice) -> tuple[float, ...]:
    """The latencies worth choosing between for a batch: each lets in the GPUs that take no longer.

    Left out are those too long with any batch of the other stage, and those short enough with all of them
    where a longer one is so too.
    """
    others = [latency_s for other in case.choices(_other(stage)) for latency_s in other.latencies]
    finite = [latency_s for latency_s in others if latency_s < math.inf]
    least = min(finite, default=math.inf) if stage == "heavy" else 0.0
    fits = sorted({latency_s for latency_s in choice.latencies if latency_s + least <= case.deadline_s + SLACK})
    easy = [latency_s for latency_s in fits if latency_s + max(finite, default=0.0) <= case.deadline_s]
    return tuple(fits[max(0, len(easy) - 1) :])


def _other(stage: Stage) -> Stage:
    return "heavy" if stage == "light" else "light"


def _demands(sheet: _Sheet, block: _Block, carried: int | None) -> Terms:
    """The rows of one case: both demands and the deadline; returns the terms of its loss.

    `carried`: the column that says how much of the light demand is carried; all of it where there is none.
    """
    case = block.case
    share, loss = _on_segments(sheet, case.loss)
    drawn: dict[Stage, list[tuple[int, float]]] = {
        stage: [
            (column, rate)
            for choice, columns in zip(case.choices(stage), block.workers[stage], strict=True)
            for column, rate in zip(columns, _rates(case, choice), strict=True)
            if rate
        ]
        for stage in STAGES
    }
    if carried is None:
        sheet.row("light demand", drawn["light"], lower=1)
    else:
        sheet.row("light demand", [*drawn["light"], (carried, -1)], lower=0)
    sheet.row("heavy demand", drawn["heavy"] + [(place, -h) for place, h in share], lower=0)
    _deadline(sheet, block)
    return loss


def _deadline(sheet: _Sheet, block: _Block) -> None:
    """The deadline as conflicts: of the light latencies from one up and the heavy ones too long beside it, one.

    The same as sum y * (L + w) <= deadline for whole y, and much tighter where a solver splits them.
    """
    latencies = {stage: sorted(_latencies(block, stage)) for stage in STAGES}
    for place, (light_s, _) in enumerate(latencies["light"]):
        too_long = [y for heavy_s, y in latencies["heavy"] if light_s + heavy_s > block.case.deadline_s + SLACK]
        if too_long:
            terms = [(y, 1.0) for y in [*(y for _, y in latencies["light"][place:]), *too_long]]
            sheet.row("deadline", terms, upper=1)


def _latencies(block: _Block, stage: Stage) -> Iterator[tuple[float, int]]:
    for choice, ys in zip(block.case.choices(stage), block.used[stage], strict=True):
        yield from zip(let_in(block.case, stage, choice), ys, strict=True)


def _on_segments(sheet: _Sheet, loss: Points) -> tuple[Terms, Terms]:
    """Columns that weigh the points of the loss; its terms for the heavy share and for the loss."""
    loss = tuple(point for point in loss if point[0] <= best_share(loss, 1.0)[0])  # no optimum lies beyond the best
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


def _slots(sheet: _Sheet, blocks: Sequence[_Block]) -> Terms:
    """The rows of the slots, which all blocks share; returns the terms that count all workers."""
    case = blocks[0].case
    on: dict[tuple[Stage, int], list[tuple[int, float]]] = defaultdict(list)
    for block in blocks:
        for stage, place, workers in block.every():
            on[stage, place] += workers
    for place, pool in enumerate(case.pools):
        sheet.row(f"slots of {pool.gpu}", on["light", place] + on["heavy", place], upper=pool.slots)
        for stage in STAGES if len(blocks) > 1 else ():
            sheet.row(f"slots of {pool.gpu} for {stage}", on[stage, place], upper=pool.limit(stage))
    every = tuple(term for terms in on.values() for term in terms)
    sheet.row("slots", every, upper=case.slots)
    return every


def _switches(sheet: _Sheet, blocks: Sequence[_Block]) -> Objective:
    """Workers that leave a stage on a pool, summed: as many as join, less a constant, for all workers are counted."""
    leaving: list[tuple[int, float]] = []
    furthest = 0
    for block in blocks:
        if block.case.counts is None:
            continue
        for stage, pool, workers in block.every():
            before = (block.case.counts.light if stage == "light" else block.case.counts.heavy)[pool]
            left = sheet.column(f"left[{stage},{block.case.pools[pool].gpu}]", FREE, integer=False)
            sheet.row("left", [*workers, (left, 1)], lower=before)
            leaving.append((left, 1.0))
            furthest += before
    return Objective("switches", tuple(leaving), HALF, furthest)


def _order(blocks: Sequence[_Block]) -> Iterator[Objective]:
    """Small heavy batches, then small light ones, then few workers on one pool after the other.

    Leaves exactly one optimum: the last count of all follows from the number of workers.
    """
    for stage in reversed(STAGES):
        for block in blocks:
            places = enumerate(block.used[stage], start=1)
            terms = tuple((y, float(place)) for place, ys in places for y in ys)
            # With the batches known, little is left to solve.
            yield Objective(f"{stage} batch", terms, HALF, len(block.used[stage]), tuple(map(tuple, block.used[stage])))
    counts = [(block, stage, pool, workers) for block in blocks for stage, pool, workers in block.every()]
    for block, stage, pool, workers in counts[:-1]:
        yield Objective(f"{stage} on {pool}", workers, HALF, block.case.pools[pool].limit(stage))
