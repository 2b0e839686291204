"""What the slots beyond the needed ones do: they join the stage that is tightest, and batches shrink to suit.

The program names the fewest workers that give the best quality. An idle GPU draws nothing sooner, so the
slots left over are staffed too, and with the counts given the batches are chosen for the least latency.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from itertools import product

from planner.fleet import Choice, Staff
from planner.milp import TOLERANCE, Case, Solution, finish
from planner.program import SLACK
from planner.solvers import CASES_KEPT


def pressure(case: Case, needed: Solution, staff: Staff) -> float:
    """The share of time for which the workers of the busier stage are busy; above 1 they fall behind."""
    heavy_rate = needed.heavy_share * case.demand
    heavy = heavy_rate / max(needed.heavy.drawn_by(staff.heavy), SLACK) if needed.heavy else 0.0
    return max(case.demand / max(needed.light.drawn_by(staff.light), SLACK), heavy)


def spread(case: Case, needed: Solution) -> Solution:
    """The needed workers, with each slot left over given to the busier stage that it can run in time.

    Where the answer needs no heavy worker, slots that can only run heavy stay idle.
    """
    counts = (list(needed.light_on), list(needed.heavy_on))
    choices = (needed.light, needed.heavy)
    rates = (case.demand, needed.heavy_share * case.demand)
    drawn = [needed.throughput("light"), needed.throughput("heavy")]
    slowest = [needed.light.latency_on(counts[0]), needed.heavy.latency_on(counts[1]) if needed.heavy else 0.0]
    left = case.slots - sum(counts[0]) - sum(counts[1])
    for place, pool in enumerate(case.pools):
        limits = (pool.light_slots, pool.heavy_slots)
        while left and counts[0][place] + counts[1][place] < pool.slots:
            free = [
                (stage, choice)
                for stage, choice in enumerate(choices)
                if choice
                and counts[stage][place] < limits[stage]
                # A slow GPU must not stretch the stage past what the deadline leaves.
                and max(slowest[stage], choice.latencies[place]) + slowest[1 - stage] <= case.deadline_s + SLACK
            ]
            if not free:
                break
            stage, choice = max(free, key=lambda each: rates[each[0]] / max(drawn[each[0]], SLACK))
            counts[stage][place] += 1
            drawn[stage] += choice.batch / choice.seconds[place]
            slowest[stage] = max(slowest[stage], choice.latencies[place])
            left -= 1
    return replace(needed, light_on=tuple(counts[0]), heavy_on=tuple(counts[1]))


@lru_cache(maxsize=CASES_KEPT)
def refit(case: Case, staff: Staff) -> Solution | None:
    """The batch sizes of least loss, then least mean latency, for given workers; None where light falls behind."""
    light_s = {choice: choice.latency_on(staff.light) for choice in case.light}
    heavy_s: dict[Choice | None, float] = {None: 0.0}
    if any(staff.heavy):
        heavy_s |= {choice: choice.latency_on(staff.heavy) for choice in case.heavy}
    least = case.demand * (1 - SLACK)
    able = [choice for choice in case.light if choice.drawn_by(staff.light) * case.headroom >= least]
    fits = [
        finish(case, staff, light, heavy)
        for light, heavy in product(able, heavy_s)
        if light_s[light] + heavy_s[heavy] <= case.deadline_s + SLACK
    ]
    if not fits:
        return None
    bound = min(fit.loss for fit in fits) + TOLERANCE
    return min((fit for fit in fits if fit.loss <= bound), key=lambda fit: mean_latency_s(case, fit))


def mean_latency_s(case: Case, fit: Solution) -> float:
    """Expected seconds from publish to answer over all prompts, queues included."""
    light_s = stage_latency_s(fit.light, fit.light_on, case.demand)
    if fit.heavy is None or fit.heavy_share <= 0:
        return light_s
    return light_s + fit.heavy_share * stage_latency_s(fit.heavy, fit.heavy_on, fit.heavy_share * case.demand)


def stage_latency_s(choice: Choice, on: tuple[int, ...], rate: float) -> float:
    """Service plus the wait of an M/D/c queue, by Sakasegawa's approximation.

    W = (L / 2) * u^(sqrt(2(c+1)) - 1) / (c (1 - u)); H. Sakasegawa, Ann. Inst. Stat. Math. 29 (1977).
    """
    workers, drawn = sum(on), choice.drawn_by(on)
    busy = min(rate / drawn, 0.999)
    crowding = math.pow(busy, math.sqrt(2 * (workers + 1)) - 1) / (workers * (1 - busy))
    return workers * choice.batch / drawn * (1 + crowding / 2)
