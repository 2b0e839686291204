"""The planner service: builds a view from Redis, asks the policy for a plan, puts it in force.

One control leads; others wait. While none is there, the last plan stays in force.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from logging import Logger

from planner.policies import make_policy
from planner.viewing import SCORES, Watch, next_plan
from shared.broker import Broker
from shared.catalog import Cascade, load_cascade
from shared.config import Settings, load, parser
from shared.log import configure
from shared.messages import Outcome
from shared.observer import Observer
from shared.plans import Plan, View
from shared.process import Stop, guarded, patiently
from shared.schema import STAGES, Stage


class Control:
    """Turns what Redis shows into a plan, every `plan_period_s`."""

    def __init__(self, settings: Settings, cascade: Cascade, policy: Callable[[View], Plan], logger: Logger) -> None:
        self._settings = settings
        self._policy = policy
        self._logger = logger
        self._broker = Broker(settings)
        self._observer = Observer(self._broker)
        self._watch = Watch(cascade)
        self._token = uuid.uuid4().hex
        self._read = ""  # up to this entry of `done`

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
        plan = next_plan(self._policy, view)
        if plan is not None and self._broker.put_plan(plan, view, self._token):
            counts = f"{plan.light_workers}x{plan.light_batch} + {plan.heavy_workers}x{plan.heavy_batch}"
            self._logger.info("plan", extra={"version": plan.version, "counts": counts, "why": plan.why})

    def _view(self, clock_s: float) -> View:
        self._watch.count(self._observer.totals().get("offered", 0.0), clock_s)
        for entry_id, fields in self._observer.latest(self._broker.keys.done, SCORES, self._read):
            self._watch.note(Outcome.from_wire(fields))
            self._read = entry_id.decode()
        backlog = self._observer.backlog()
        waiting: dict[Stage, int] = {stage: backlog[stage].waiting for stage in STAGES}
        running: dict[Stage, int] = {stage: backlog[stage].running for stage in STAGES}
        plan = self._broker.plan()
        return self._watch.view(self._broker.now(), self._observer.slots(), waiting, running, plan)


def main() -> int:
    """Run the planner until SIGTERM."""
    names = ["redis_url", "deployment", "cascade", "policy", "solver", "deadline_s", "plan_period_s", "dwell_s"]
    settings = load(parser(__doc__ or "", [*names, "peak_per_s", "pinned", "lease_s", "log_dir"]).parse_args())
    logger = configure("control", settings.log_dir)
    cascade = load_cascade(settings.cascade)
    policy = make_policy(
        settings.policy,
        cascade,
        settings.deadline_s or cascade.deadline_s,
        settings.solver,
        dwell_s=settings.dwell_s,
        peak=settings.peak_per_s,
        pinned=settings.pinned,
    )
    stop = Stop().listen()
    control = Control(settings, cascade, policy, logger)
    Broker(settings).check()
    logger.info("ready", extra={"policy": settings.policy, "cascade": cascade.name})
    patiently(control.step, stop, logger)
    control.leave()
    return 0


if __name__ == "__main__":
    guarded(main)
