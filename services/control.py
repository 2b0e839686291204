"""The planner service: builds a view from Redis, asks the policy for a plan, puts it in force.

One control leads; others wait. While none is there, the last plan stays in force.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from logging import Logger
from statistics import median
from typing import Final

from planner.placement import place
from planner.policies import make_policy
from shared.broker import Broker
from shared.catalog import Cascade, load_cascade
from shared.config import Settings, load, parser
from shared.log import configure
from shared.messages import Outcome
from shared.observer import Observer
from shared.plans import Plan, View
from shared.process import Stop, guarded, patiently
from shared.schema import STAGES, Stage

REMEMBERED_S: Final = 120  # seconds of offered counts in a view
SCORES: Final = 512  # newest outcomes whose scores enter a view
PACE_WINDOW_S: Final = 20.0
PACE_FADE: Final = 0.9  # a look
PACE_VISITS: Final = 5  # fewer visits say nothing of a machine's pace


class Control:
    """Turns what Redis shows into a plan, every `plan_period_s`."""

    def __init__(self, settings: Settings, cascade: Cascade, policy: Callable[[View], Plan], logger: Logger) -> None:
        self._settings = settings
        self._cascade = cascade
        self._policy = policy
        self._logger = logger
        self._broker = Broker(settings)
        self._observer = Observer(self._broker)
        self._token = uuid.uuid4().hex
        self._offered: deque[int] = deque(maxlen=REMEMBERED_S)
        self._counted: float | None = None
        self._looked = 0.0
        self._pace: dict[Stage, float] = {}
        self._totals: dict[str, float] = {}
        self._outcomes: list[Outcome] = []

    def step(self) -> float:
        """One planning period; returns the seconds until the next."""
        began = time.monotonic()
        leads = self._broker.hold(self._broker.keys.leader("control"), self._token)
        view = self._view(began)
        if leads and view.slots:
            self._put(view)
        return max(0.0, self._settings.plan_period_s - (time.monotonic() - began))

    def leave(self) -> None:
        """Let another control lead at once; the plan stays in force."""
        self._broker.release(self._broker.keys.leader("control"), self._token)

    def _put(self, view: View) -> None:
        present = view.plan.assignment if view.plan else {}
        plan = place(self._policy(view), view.slots, present)
        version = view.plan.version + 1 if view.plan else 1
        if view.plan is not None and _same(plan, view.plan):
            return
        if self._broker.put_plan(replace(plan, version=version), view, self._token):
            counts = f"{plan.light_workers}x{plan.light_batch} + {plan.heavy_workers}x{plan.heavy_batch}"
            self._logger.info("plan", extra={"version": version, "counts": counts, "why": plan.why})

    def _view(self, clock: float) -> View:
        totals = self._observer.totals()
        self._count(totals.get("offered", 0.0), clock)
        if totals != self._totals:  # an idle deployment is not read again and again
            newest = self._observer.latest(self._broker.keys.done, SCORES)
            self._totals, self._outcomes = totals, [Outcome.from_wire(fields) for _, fields in newest]
        now = self._broker.now()
        # A stage that draws nothing shows no pace: believe less and less in the last one, lest a slow spell
        # keep it idle for ever.
        faded: dict[Stage, float] = {stage: 1 + (pace - 1) * PACE_FADE for stage, pace in self._pace.items()}
        self._pace = faded | measured_pace(self._outcomes, self._cascade, now - PACE_WINDOW_S)
        backlog = self._observer.backlog()
        return View(
            now=now,
            offered=tuple(self._offered),
            slots=self._observer.slots(),
            scores=tuple(outcome.score for outcome in self._outcomes if outcome.score is not None),
            waiting={stage: backlog[stage].waiting for stage in STAGES},
            running={stage: backlog[stage].running for stage in STAGES},
            pace=dict(self._pace),
            plan=self._broker.plan(),
        )

    def _count(self, offered: float, clock: float) -> None:
        """Note how many prompts came in the last period, as a count per second."""
        if self._counted is not None:
            elapsed_s = max(clock - self._looked, 1e-3)
            # Fewer than before: Redis came back empty.
            self._offered.append(max(0, round((offered - self._counted) / elapsed_s)))
        self._counted, self._looked = offered, clock


def measured_pace(outcomes: Sequence[Outcome], cascade: Cascade, since: float) -> dict[Stage, float]:
    """Measured over profiled seconds per batch, the median of the visits since a time, where there are enough."""
    ratios: dict[Stage, list[float]] = {stage: [] for stage in STAGES}
    for outcome in outcomes:
        for visit in outcome.visits:
            if visit.finished >= since:
                profiled_s = cascade.service_s(visit.stage, visit.batch)
                ratios[visit.stage].append((visit.finished - visit.started) / profiled_s)
    return {stage: median(found) for stage, found in ratios.items() if len(found) >= PACE_VISITS}


def _same(new: Plan, old: Plan) -> bool:
    return replace(new, version=old.version, made=old.made, solve_ms=old.solve_ms, demand=old.demand) == old


def main() -> int:
    """Run the planner until SIGTERM."""
    names = ["redis_url", "deployment", "cascade", "policy", "solver", "deadline_s", "plan_period_s", "dwell_s"]
    settings = load(parser(__doc__ or "", [*names, "lease_s", "log_dir"]).parse_args())
    logger = configure("control", settings.log_dir)
    cascade = load_cascade(settings.cascade)
    deadline_s = settings.deadline_s or cascade.deadline_s
    policy = make_policy(settings.policy, cascade, deadline_s, settings.solver, dwell_s=settings.dwell_s)
    stop = Stop().listen()
    control = Control(settings, cascade, policy, logger)
    Broker(settings).check()
    logger.info("ready", extra={"policy": settings.policy, "cascade": cascade.name})
    patiently(control.step, stop, logger)
    control.leave()
    return 0


if __name__ == "__main__":
    guarded(main)
