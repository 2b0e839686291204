"""The planner service: builds a view from Redis, asks the policy for a plan, puts it in force.

One control leads; others wait. While none is there, the last plan stays in force.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from logging import Logger
from typing import Final

from planner.orders import obeying, without_drained
from planner.policies import make_policy
from planner.viewing import SCORES, Watch, next_plan
from shared.beat import Beat
from shared.broker import Broker
from shared.catalog import Cascade, load_cascade
from shared.census import Planned, in_words
from shared.config import Settings, load, parser
from shared.errors import PlanUnreadable
from shared.log import configure
from shared.messages import Outcome
from shared.observer import Observer
from shared.orders import Orders
from shared.plans import Plan, Slot, View
from shared.process import Stop, guarded, parting, patiently, until_done
from shared.schema import STAGES, Stage

BEATS: Final = 4  # a lease, of the control that leads
LOOKS_IN_WAITING: Final = 8  # a lease, of one that waits to take over


class Control:
    """Turns what Redis shows into a plan, every `plan_period_s`."""

    def __init__(self, settings: Settings, cascade: Cascade, policy: Callable[[View], Plan], logger: Logger) -> None:
        self._settings = settings
        self._policy = policy
        self._logger = logger
        self._broker = Broker(settings)
        self._observer = Observer(self._broker)
        self._cascade = cascade
        self._watch = Watch(cascade)
        self._orders = Orders()
        self._models: dict[Stage, str] = {stage: model.name for stage, model in cascade.models.items()}
        self._planned = Planned(cascade.name, self._models)
        self._token = self._planned.token(uuid.uuid4().hex)
        self._strange: set[str] = set()  # slots and nodes of which was said that they draw another cascade
        self._next_look = 0.0
        self._readable: Plan | None = None
        self._spoilt: PlanUnreadable | None = None
        self._read = ""  # up to this entry of `done`

    def check(self) -> None:
        """Raise ServerUnfit when this Redis cannot carry the planner."""
        self._broker.check()

    def step(self) -> float:
        """Keep or seek the lead, and plan when a planning period is over; returns the seconds until the next step."""
        leads = self._lead()
        now_s = time.monotonic()
        if now_s >= self._next_look:
            self._next_look = now_s + self._settings.plan_period_s
            view = self._view(now_s)  # one that waits looks too: it takes over with a history
            if leads and view.slots:
                self._put(view)
        looks = BEATS if leads else LOOKS_IN_WAITING
        return max(0.0, min(self._settings.lease_s / looks, self._next_look - time.monotonic()))

    def _lead(self) -> bool:
        return self._broker.hold(self._broker.keys.leader("control"), self._token)

    def leave(self) -> None:
        """Let another control lead at once; the plan stays in force."""
        self._broker.release(self._broker.keys.leader("control"), self._token)

    def _put(self, view: View) -> None:
        orders = self._told()
        plan = next_plan(obeying(self._policy, orders, self._cascade), without_drained(view, orders))
        if self._spoilt is not None and (said := plan or view.plan) is not None:
            # Put even where it says the same as the last that could be read: nobody new can read what stands there.
            plan = replace(said, version=max(said.version, self._spoilt.version) + 1)
        # Solving may outlast the lease; where nobody took the lead meanwhile, it is still ours to take.
        if plan is not None and self._lead() and self._broker.put_plan(plan, view, self._token):
            counts = f"{plan.light_workers}x{plan.light_batch} + {plan.heavy_workers}x{plan.heavy_batch}"
            self._logger.info("plan", extra={"version": plan.version, "counts": counts, "why": plan.why})

    def _told(self) -> Orders:
        """What people ordered."""
        orders = self._broker.orders()
        if orders != self._orders:
            self._orders = orders
            self._logger.info("orders", extra={"standing": orders.words()})
        return orders

    def _view(self, clock_s: float) -> View:
        self._watch.count(self._observer.totals().get("offered", 0.0), clock_s)
        for entry_id, fields in self._observer.latest(self._broker.keys.done, SCORES, self._read):
            self._read = entry_id.decode()
            try:
                self._watch.note(Outcome.from_wire(fields))
            except (KeyError, ValueError) as wrong:  # written by hand: it must not stop the planning
                self._logger.warning("no outcome", extra={"entry": self._read, "reason": repr(wrong)})
        backlog = self._observer.backlog()
        waiting: dict[Stage, int] = {stage: backlog[stage].waiting for stage in STAGES}
        running: dict[Stage, int] = {stage: backlog[stage].running for stage in STAGES}
        plan = self._standing_plan()
        slots = self._slots()
        ceilings = self._observer.ceilings(self._models, {slot.gpu for slot in slots})
        return self._watch.view(self._broker.now(), slots, waiting, running, plan, ceilings)

    def _slots(self) -> tuple[Slot, ...]:
        """The slots that draw this cascade; of others it is said once that they are left out."""
        found = self._observer.census(self._models)
        if found.strangers.keys() - self._strange:
            self._logger.warning("left out of the plan", extra={"reason": in_words(found.strangers, self._planned)})
        back = {name for slot in found.slots for name in (slot.name, slot.node)}
        self._strange = (self._strange - back) | found.strangers.keys()
        return found.slots

    def _standing_plan(self) -> Plan | None:
        """The plan in force; where somebody spoilt it, the last one that could be read."""
        self._spoilt = None
        try:
            self._readable = self._broker.standing_plan()
        except PlanUnreadable as wrong:
            self._logger.warning("no plan", extra={"reason": str(wrong), "version": wrong.version})
            self._spoilt = wrong
        return self._readable


def main() -> int:
    """Run the planner until SIGTERM."""
    names = ["redis_url", "deployment", "cascade", "policy", "solver", "deadline_s", "plan_period_s", "dwell_s"]
    names += ["resident", "peak_per_s", "pinned", "lease_s", "beats", "log_dir"]
    settings = load(parser(__doc__ or "", names).parse_args())
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
        resident=settings.resident,
    )
    stop, beat = Stop().listen(), Beat(settings.beats, "control")
    control = Control(settings, cascade, policy, logger)
    if until_done(control.check, stop, logger, beat):
        logger.info("ready", extra={"policy": settings.policy, "cascade": cascade.name})
        patiently(control.step, stop, logger, longest_pause_s=settings.lease_s / BEATS, beat=beat)
        parting(control.leave, logger)
    return 0


if __name__ == "__main__":
    guarded(main)
