"""From what happened to the next plan: the memory behind a View, and the step from a view to a plan in force.

The planner service and the simulator share it; they differ only in where the facts come from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from statistics import median
from typing import Final

from planner.deferral import drift
from planner.placement import place
from shared.cascade import hardness
from shared.catalog import Cascade
from shared.messages import Outcome
from shared.plans import Plan, Slot, View
from shared.schema import STAGES, Stage

REMEMBERED_S: Final = 120  # seconds of offered counts in a view
SCORES: Final = 512  # newest outcomes whose scores enter a view
PACE_WINDOW_S: Final = 20.0
PACE_FADE: Final = 0.9  # a look
PACE_VISITS: Final = 5  # fewer visits say nothing of a machine's pace


class Watch:
    """What a planner remembers: counts of offered prompts, newest scores, and how long batches took."""

    def __init__(self, cascade: Cascade) -> None:
        self._profiled_s = lru_cache(maxsize=None)(cascade.service_s)
        self._known = cascade.profiles
        self._gpus: dict[str, str] = {}
        self._offered: deque[int] = deque(maxlen=REMEMBERED_S)
        self._counted: float | None = None
        self._looked = 0.0
        self._scores: deque[float] = deque(maxlen=SCORES)
        self._hardness: deque[float] = deque(maxlen=SCORES)
        self._ratios: dict[Stage, deque[tuple[float, float]]] = {stage: deque(maxlen=SCORES) for stage in STAGES}
        self._pace: dict[Stage, float] = {}

    def note(self, outcome: Outcome) -> None:
        """Learn from an outcome: its score, the time its batches took, how hard its prompt looks."""
        self._hardness.append(hardness(outcome.prompt))
        for visit in outcome.visits:
            if visit.score is not None:
                self._scores.append(visit.score)
            profiled_s = self._profiled_s(visit.stage, visit.batch, self._gpu(visit.worker, visit.stage))
            self._ratios[visit.stage].append((visit.finished, (visit.finished - visit.started) / profiled_s))

    def count(self, offered: float, clock_s: float) -> None:
        """Note how many prompts were offered until now in all; kept as counts per second."""
        if self._counted is not None:
            elapsed_s = max(clock_s - self._looked, 1e-3)
            # Fewer than before: Redis came back empty.
            self._offered.append(max(0, round((offered - self._counted) / elapsed_s)))
        self._counted, self._looked = offered, clock_s

    def view(
        self,
        now: float,
        slots: tuple[Slot, ...],
        waiting: Mapping[Stage, int],
        running: Mapping[Stage, int],
        plan: Plan | None,
        ceilings: Mapping[Stage, Mapping[str, int]] | None = None,
    ) -> View:
        """The view of this moment. A measured pace that is no longer seen fades, lest one slow spell last for ever."""
        self._gpus |= {slot.name: slot.gpu for slot in slots}
        faded: dict[Stage, float] = {stage: 1 + (pace - 1) * PACE_FADE for stage, pace in self._pace.items()}
        self._pace = faded | self._measured(now - PACE_WINDOW_S)
        return View(
            now=now,
            offered=tuple(self._offered),
            slots=slots,
            scores=tuple(self._scores),
            waiting=waiting,
            running=running,
            pace=dict(self._pace),
            plan=plan,
            hardness=tuple(self._hardness),
            ceilings=ceilings or {},
        )

    def _gpu(self, worker: str, stage: Stage) -> str | None:
        """The GPU type a worker draws on, by its slot; None, the cascade's own, where it was never profiled."""
        gpu = self._gpus.get(":".join(worker.rsplit("-", 3)[:2]))
        return gpu if gpu in self._known[stage] else None

    def _measured(self, since: float) -> dict[Stage, float]:
        """Measured over profiled seconds per batch: the median of the visits since a time, where there are enough."""
        recent = {stage: [ratio for at, ratio in ratios if at >= since] for stage, ratios in self._ratios.items()}
        return {stage: median(ratios) for stage, ratios in recent.items() if len(ratios) >= PACE_VISITS}


def next_plan(policy: Callable[[View], Plan], view: View) -> Plan | None:
    """The plan to put in force, placed on slots and numbered; None where the one in force says the same."""
    present = view.plan.assignment if view.plan else {}
    plan = place(policy(view), view.slots, present)
    if view.plan is None:
        return replace(plan, version=1, staffed=view.now)
    staffed = view.plan.staffed if _staff(plan) == _staff(view.plan) else view.now
    plan = replace(plan, staffed=staffed, drift=round(drift(view.plan, view.scores), 4))
    return None if _same(plan, view.plan) else replace(plan, version=view.plan.version + 1)


def _staff(plan: Plan) -> tuple[object, ...]:
    return plan.light_workers, plan.heavy_workers, plan.light_on, plan.heavy_on


def _same(new: Plan, old: Plan) -> bool:
    return replace(new, version=old.version, made=old.made, solve_ms=old.solve_ms, drift=old.drift) == old
