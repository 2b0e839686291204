"""What the slots beyond the needed ones do: they join the stage that is tightest, and batches shrink to suit.

The program names the fewest workers that give the best quality. An idle GPU draws nothing sooner, so the
slots left over are staffed too, and with the counts given the batches are chosen for the least latency.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product

from planner.milp import TOLERANCE, Case, Choice, Solution, finish
from planner.solvers import CASES_KEPT, SLACK

Counts = tuple[int, int]


def loads(case: Case, needed: Solution) -> tuple[float, float]:
    """Workers of each stage that the demand would keep busy all the time, at the needed batch sizes."""
    heavy = needed.heavy_share * case.demand / needed.heavy.throughput if needed.heavy else 0.0
    return case.demand / needed.light.throughput, heavy


def pressure(case: Case, needed: Solution, counts: Counts) -> float:
    """The share of time for which the workers of the busier stage are busy; above 1 they fall behind."""
    return max(load / max(count, SLACK) for load, count in zip(loads(case, needed), counts, strict=True))


def spread(case: Case, needed: Solution) -> Counts:
    """The needed counts, with each slot left over given to the busier stage that it can run.

    Where the answer needs no heavy worker, slots that can only run heavy stay idle.
    """
    counts = [needed.light_workers, needed.heavy_workers]
    limits = (case.light_slots, case.heavy_slots if needed.heavy else 0)
    busy = loads(case, needed)
    while sum(counts) < case.slots:
        open_stages = [place for place in (0, 1) if counts[place] < limits[place]]
        if not open_stages:
            break
        counts[max(open_stages, key=lambda place: busy[place] / max(counts[place], SLACK))] += 1
    return counts[0], counts[1]


@lru_cache(maxsize=CASES_KEPT)
def refit(case: Case, counts: Counts) -> Solution | None:
    """The batch sizes of least loss, then least mean latency, for given counts; None where light falls behind."""
    light_workers, heavy_workers = counts
    fits = [
        finish(case, light_workers, heavy_workers, light, heavy)
        for light, heavy in product(case.light, (None, *(case.heavy if heavy_workers else ())))
        if light_workers * light.throughput * case.headroom >= case.demand * (1 - SLACK)
        and light.latency_s + (heavy.latency_s if heavy else 0.0) <= case.deadline_s + SLACK
    ]
    if not fits:
        return None
    bound = min(fit.loss for fit in fits) + TOLERANCE
    return min((fit for fit in fits if fit.loss <= bound), key=lambda fit: mean_latency_s(case, fit))


def mean_latency_s(case: Case, fit: Solution) -> float:
    """Expected seconds from publish to answer over all prompts, queues included."""
    light_s = stage_latency_s(fit.light, fit.light_workers, case.demand)
    if fit.heavy is None or fit.heavy_share <= 0:
        return light_s
    heavy_rate = fit.heavy_share * case.demand
    return light_s + fit.heavy_share * stage_latency_s(fit.heavy, fit.heavy_workers, heavy_rate)


def stage_latency_s(choice: Choice, workers: int, rate: float) -> float:
    """Service plus the wait of an M/D/c queue, by Sakasegawa's approximation.

    W = (L / 2) * u^(sqrt(2(c+1)) - 1) / (c (1 - u)); H. Sakasegawa, Ann. Inst. Stat. Math. 29 (1977).
    """
    busy = min(rate / (workers * choice.throughput), 0.999)
    crowding = math.pow(busy, math.sqrt(2 * (workers + 1)) - 1) / (workers * (1 - busy))
    return choice.service_s * (1 + crowding / 2)
