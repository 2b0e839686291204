"""Exhaustive search over the batch pairs: exact for GPUs of one type, and quick."""

from __future__ import annotations

import math

from planner.fleet import Choice, Staff
from planner.milp import TOLERANCE, Case, Points, Solution, best_share, finish
from planner.program import SLACK

Pair = tuple[int, int, int]


def exhaustive(case: Case) -> Solution | None:
    """Try every pair of batch sizes with the fewest workers that serve; None where infeasible.

    Fewest workers is all that need be tried: with GPUs of one type, a pair that takes the least workers in all
    takes the least of each stage. The case has one pool.
    """
    pairs = _pairs(case)
    if not pairs:
        return None
    rates = [case.headroom * choice.throughput / case.demand for choice in case.heavy]
    carried = max((_room(case, light) * rates[heavy] for light, _, heavy in pairs if heavy >= 0), default=0.0)
    share = _least_share(case.loss, best_share(case.loss, carried)[1] + TOLERANCE)
    least = [max(1, math.ceil(share / rate - SLACK)) for rate in rates]
    before = (case.counts.light[0], case.counts.heavy[0]) if case.counts else None
    best: tuple[int, int, int, int, int] | None = None
    for light_workers, light, heavy in pairs:
        heavy_workers = least[heavy] if heavy >= 0 else 0
        if heavy_workers > _room(case, light_workers) or (heavy < 0 and share > SLACK):
            continue
        switches = abs(light_workers - before[0]) + abs(heavy_workers - before[1]) if before else 0
        key = (light_workers + heavy_workers, switches, heavy, light, light_workers)
        best = min(best, key) if best else key
    if best is None:
        return None
    workers, _, heavy, light, light_workers = best
    staff = Staff((light_workers,), (workers - light_workers,))
    return finish(case, staff, case.light[light], case.heavy[heavy] if heavy >= 0 else None)


def _pairs(case: Case) -> list[Pair]:
    """(fewest light workers, place of the light batch, of the heavy one or -1) of the pairs that meet the deadline."""
    latest_s = case.deadline_s + SLACK
    heavy_s = [0.0, *(choice.latency_s for choice in case.heavy)]
    most = min(case.slots, case.light_slots)
    pairs: list[Pair] = []
    for light, choice in enumerate(case.light):
        workers, light_s = _workers_for(case, choice), choice.latency_s
        if workers <= most:
            pairs += [(workers, light, place - 1) for place, s in enumerate(heavy_s) if light_s + s <= latest_s]
    return pairs


def _workers_for(case: Case, light: Choice) -> int:
    """The fewest workers whose full batches draw the demand with headroom to spare."""
    return max(1, math.ceil(case.demand / (case.headroom * light.throughput) - SLACK))


def _room(case: Case, light_workers: int) -> int:
    return min(case.heavy_slots, case.slots - light_workers)


def _least_share(loss: Points, bound: float) -> float:
    """The smallest heavy share whose loss is within the bound."""
    before = loss[0]
    if before[1] <= bound:
        return before[0]
    for after in loss[1:]:
        if after[1] <= bound:
            return before[0] + (after[0] - before[0]) * (before[1] - bound) / (before[1] - after[1])
        before = after
    return best_share(loss, 1.0)[0]
