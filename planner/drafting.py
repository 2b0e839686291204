"""From a solution to a plan: threshold, holds, and the reason in words. Every policy ends here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from planner.deferral import deferral
from planner.fleet import Choice, service_s
from planner.milp import TOLERANCE, Case, Points, Solution, best_share, round_up
from planner.solvers import Solver
from shared.catalog import Cascade
from shared.config import Resident
from shared.plans import Plan, Slot, View
from shared.schema import Stage

# With 5 s a turn, simulated on 4to32 with 16 GPUs: 8 switches at a dwell of 10 s, 14 at one of 3 s, equal FID.
DWELL_TURNS: Final = 2.0
HOLD_SHARE: Final = 0.1  # of the deadline, at most, goes to waiting for a heavy batch to fill
PACE_LIMITS: Final = (0.01, 1_000.0)  # beyond these a measured pace is a fault of the clock
NO_LOSS: Final[Points] = ((0.0, 0.0), (1.0, 0.0))  # for cases of policies that weigh no quality

Policy = Callable[[View], Plan]


@dataclass(frozen=True, slots=True)
class Setup:
    """What a policy is built from; the deadline and the dwell are in seconds.

    `peak_per_s`: prompts/s that `static` is solved for. `pinned`: the file that `pinned` reads. `resident`: where the
    models of a slot stay whose workers do not say it.
    """

    cascade: Cascade
    deadline_s: float
    solver: Solver
    dwell_s: float
    peak_per_s: float | None = None
    pinned: Path | None = None
    resident: Resident = True

    def dwell_on(self, slots: Iterable[Slot]) -> float:
        """Seconds for which worker counts stand: as said, and long beside what it takes a slot to change its model.

        That is what was measured where the slots do not hold both models: as their workers say, and where they do not,
        as of the settings (`resident`).
        """
        kinds = {(slot.gpu, self.resident if slot.resident is None else slot.resident) for slot in slots}
        known = self.cascade.profiles.values()
        turns_s = (by_gpu[gpu].turn_s(resident) or 0.0 for by_gpu in known for gpu, resident in kinds if gpu in by_gpu)
        return max(self.dwell_s, DWELL_TURNS * max(turns_s, default=0.0))


def as_seen(cascade: Cascade, view: View) -> Cascade:
    """The cascade at the measured pace, rounded to the planner's resolution, without batches that do not fit.

    A pace that is nonsense is passed over.
    """
    least, most = PACE_LIMITS
    pace: dict[Stage, float] = {stage: round_up(value) for stage, value in view.pace.items() if least <= value <= most}
    return cascade.capped(view.ceilings).paced(pace)


def all_light(case: Case, cascade: Cascade) -> Solution:
    """Every slot light, at the batch of highest throughput that meets the deadline: the answer to overload.

    A slot whose GPU is too slow for that batch idles.
    """
    least = cascade.batches("light")[0]
    hopeless = Choice(least, (cascade.service_s("light", least),) * len(case.pools))
    every = tuple(pool.light_slots for pool in case.pools)
    drawing = every if any(every) else (1,) * len(every)
    fastest = max(case.light, key=lambda choice: choice.drawn_by(drawing), default=hopeless)
    able = tuple(count if seconds < math.inf else 0 for count, seconds in zip(every, fastest.seconds, strict=True))
    return Solution(able, (0,) * len(case.pools), fastest, None, 0.0, case.loss[0][1])


def no_plan(case: Case) -> str:
    """Why the program has no solution."""
    if not case.slots:
        return "no slot is there"
    if not case.light_slots:
        return "no slot can run light"
    if not case.light:
        return f"no light batch meets the deadline of {case.deadline_s:g} s"
    return f"{case.demand:.1f} prompts/s are more than {case.light_slots} slots can draw light: all light, shedding"


def binding(case: Case, solution: Solution) -> str:
    """What keeps the quality from being better."""
    best, least_loss = best_share(case.loss, 1.0)
    if solution.loss <= least_loss + TOLERANCE:
        return f"quality is at its best, heavy share {solution.heavy_share:.2f}"
    if not case.heavy_slots:
        return "no slot can run heavy"
    if not case.heavy:
        return f"no heavy batch meets the deadline of {case.deadline_s:g} s"
    return f"the slots carry a heavy share of {solution.heavy_share:.2f}, {best:.2f} would be best"


def draft(policy: str, view: View, cascade: Cascade, case: Case, solution: Solution, why: str) -> Plan:
    """The plan of a solution, with the threshold at which the live scores escalate its heavy share."""
    threshold, tie_share = deferral(view.scores, cascade.scores).threshold_for(solution.heavy_share)
    least = cascade.batches("heavy")[0]
    heavy = solution.heavy or Choice(least, (cascade.service_s("heavy", least),) * len(case.pools))
    return Plan(
        policy=policy,
        threshold=threshold,
        tie_share=tie_share,
        light_workers=solution.light_workers,
        heavy_workers=solution.heavy_workers,
        light_batch=solution.light.batch,
        heavy_batch=heavy.batch,
        light_service_s=service_s(solution.light, solution.light_on),
        heavy_service_s=service_s(heavy, solution.heavy_on),
        heavy_hold_s=hold_s(heavy.batch, solution.heavy_share * case.demand, case.deadline_s),
        heavy_share=solution.heavy_share,
        demand=case.demand,
        why=why,
        made=view.now,
        light_on=case.by_type(solution.light_on),
        heavy_on=case.by_type(solution.heavy_on),
    )


def hold_s(batch: int, rate: float, deadline_s: float) -> float:
    """Seconds until a batch has filled at `rate` prompts/s, at most HOLD_SHARE of the deadline."""
    if batch <= 1 or rate <= 0 or not math.isfinite(rate):
        return 0.0
    return min((batch - 1) / rate, HOLD_SHARE * deadline_s)
