"""Makes supervisor on this node run what the plan asks, again and again, and buries its dead workers at once.

The set of programs is fixed (slot x stage); nothing is trusted but the next listing: supervisor says yes to
starting a program that is still stopping, never retries a FATAL one, and kills a group whose size changes.
Whether a worker's process has ended is asked of the system: it says so sooner than supervisor, and surely.
"""

from __future__ import annotations

import time
import xmlrpc.client
from collections.abc import Iterable, Mapping
from http.client import HTTPException
from logging import Logger
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast

from supervisor.xmlrpc import SupervisorTransport

from shared.beat import Beat
from shared.broker import Broker
from shared.catalog import load_cascade
from shared.census import knows_its_place
from shared.config import Settings, load, parser
from shared.connection import CommandRefused
from shared.incarnation import Deaths, machine
from shared.log import configure
from shared.observer import Observer
from shared.plans import Plan, Slot
from shared.process import Stop, guarded, patiently, until_done
from shared.schema import STAGES, Stage

PERIOD_S: Final = 1.0
DEATH_LOOK_S: Final = 0.5  # at most, between two looks whether the known workers' processes live
# Where all is as wanted: a listing of 32 programs costs supervisor 10 ms; and as each agent asks for the names of all
# workers, these cost Redis the square of the fleet.
SETTLED_PERIOD_S: Final = 5.0
FATAL_PAUSE_S: Final = 10.0  # a program that cannot start is tried again, but not in a busy loop

Verb = Literal["startProcess", "stopProcess"]


class Action(NamedTuple):
    """One call to supervisor."""

    verb: Verb
    program: str


def program(slot: int, stage: Stage) -> str:
    """The name of a slot's program for a stage."""
    return f"worker-{slot}-{stage}"


def wanted_programs(settings: Settings, plan: Plan | None, listing: Mapping[str, str]) -> set[str]:
    """The programs that should run: both of a slot where both models fit, else the one the plan asks for.

    Where it asks for none, what runs stays (`listing`, as of `actions`): a drained node's worker must not be stopped
    over its last batch. Where nothing runs, light: a node must show itself before it is planned for.
    """
    if settings.resident:
        return {program(slot, stage) for slot in range(settings.slots) for stage in STAGES}
    assignment = plan.assignment if plan else {}
    slots = (Slot(settings.node, number, "") for number in range(settings.slots))
    return {program(slot.number, assignment.get(slot.name) or _running(listing, slot.number)) for slot in slots}


def _running(listing: Mapping[str, str], slot: int) -> Stage:
    return next((stage for stage in STAGES if listing.get(program(slot, stage)) in ("RUNNING", "STARTING")), "light")


def actions(listing: Mapping[str, str], wanted: Iterable[str], retry_fatal: bool) -> list[Action]:
    """What to ask of supervisor, given its listing (program -> state name); STARTING and STOPPING are waited for.

    A slot's new program is started only when its old one has left the slot's memory.
    """
    wanted = set(wanted)
    startable = {"STOPPED", "EXITED"} | ({"FATAL"} if retry_fatal else set())
    asked = [
        Action("stopProcess", name)
        for name, state in sorted(listing.items())
        if name not in wanted and state in ("RUNNING", "STARTING", "BACKOFF")
    ]
    held = {
        name.rsplit("-", 1)[0]
        for name, state in listing.items()
        if name not in wanted and state not in ("STOPPED", "EXITED", "FATAL")
    }
    asked += [
        Action("startProcess", name)
        for name in sorted(wanted)
        if listing.get(name) in startable and name.rsplit("-", 1)[0] not in held
    ]
    return asked


class Supervisor:
    """Supervisor's XML-RPC over its unix socket."""

    def __init__(self, path: Path) -> None:
        self._address = f"unix://{path.resolve()}"
        self._groups: dict[str, str] = {}

    def _rpc(self) -> Any:
        # A connection of its own each time: after a call that failed, supervisor's transport can't be used again.
        transport = SupervisorTransport(None, None, self._address)
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor

    def listing(self) -> dict[str, str]:
        """Program -> state name, of the workers only."""
        rows = cast(list[dict[str, Any]], self._rpc().getAllProcessInfo())
        workers = [row for row in rows if row["name"].startswith("worker-")]
        self._groups = {row["name"]: row["group"] for row in workers}
        return {row["name"]: row["statename"] for row in workers}

    def act(self, action: Action) -> None:
        """Ask without waiting; the next listing tells what came of it."""
        group = self._groups.get(action.program, action.program)
        getattr(self._rpc(), action.verb)(f"{group}:{action.program}", False)


class Agent:
    """Level-triggered: looks, compares, acts, and looks again."""

    def __init__(
        self, settings: Settings, supervisor: Supervisor, logger: Logger, models: Mapping[Stage, str] | None = None
    ) -> None:
        self._settings = settings
        self._models = models or {}  # what its workers load, by name
        self._supervisor = supervisor
        self._logger = logger
        self._broker = Broker(settings)
        self._last_retry = 0.0
        self._observer = Observer(self._broker)
        self._known: dict[str, Mapping[str, str]] = {}  # this node's workers, by their names as consumers
        self._deaths = Deaths()
        self._settled: set[str] = set()
        self._listing: dict[str, str] = {}  # as supervisor gave it last
        self._next_period = self._next_look = 0.0

    def check(self) -> None:
        """Raise ServerUnfit when this Redis cannot carry the agent."""
        self._broker.check()

    def step(self) -> float:
        """One look at the workers and, once a period, at the plan; returns the seconds until the next look.

        Supervisor is asked only where not all was as the plan wants, and now and then; so is who works here, once
        every program's worker is known. One that ends is forgotten at once, and its successor looked for.
        """
        now_s = time.monotonic()
        if now_s >= self._next_period:
            self._next_period = now_s + PERIOD_S
            plan = self._broker.plan()
            wanted = wanted_programs(self._settings, plan, self._listing)
            looks = wanted != self._settled or now_s >= self._next_look
            if looks:
                self._look(plan)
            if looks or len(self._known) < len(wanted):
                self._meet()
        self._bury_the_dead()
        return min(DEATH_LOOK_S, max(0.0, self._next_period - time.monotonic()))

    def sleep(self, seconds: float) -> None:
        """Sleep for so long, or until a worker's process ends."""
        self._deaths.wait(seconds)

    def _meet(self) -> None:
        """Get to know the workers of this node that are new, and forget those that the groups have forgotten."""
        names = set(self._observer.worker_names(self._settings.node))
        for gone in self._known.keys() - names:
            self._deaths.forget(self._known.pop(gone)["process"])
        for about in self._observer.about(names - self._known.keys()):
            if about.get("process") and about.get("consumer") in names and knows_its_place(about):
                self._known[about["consumer"]] = about
                self._deaths.watch(about["process"])

    def _bury_the_dead(self) -> None:
        """Hand back at once what workers of this node held whose process has ended.

        Raises CommandRefused after it has buried whom it could.
        """
        over, refused = self._deaths.over(), None
        for consumer, about in list(self._known.items()) if over else ():
            if about["process"] in over:
                try:
                    self._bury(consumer, about)
                except CommandRefused as wrong:  # what one held must not keep the others' prompts from going back
                    refused = wrong
        if refused is not None:
            raise refused

    def _bury(self, consumer: str, about: Mapping[str, str]) -> None:
        slot_key = self._broker.keys.slot(self._settings.node, int(about["slot"]))
        taken = self._broker.bury(cast(Stage, about["stage"]), consumer, slot_key)
        del self._known[consumer]
        self._deaths.forget(about["process"])
        self._logger.info("a worker ended", extra={"worker": consumer, "handed_back": taken})

    def _look(self, plan: Plan | None) -> None:
        try:
            listing = self._listing = self._supervisor.listing()
        except (OSError, HTTPException, xmlrpc.client.Error) as wrong:
            if "SHUTDOWN_STATE" not in str(wrong):  # the node is being stopped, and we with it
                self._logger.warning("supervisor does not answer", extra={"reason": str(wrong)})
            return
        wanted = wanted_programs(self._settings, plan, listing)
        retry = time.monotonic() - self._last_retry >= FATAL_PAUSE_S
        for action in actions(listing, wanted, retry):
            if listing[action.program] == "FATAL":
                self._last_retry = time.monotonic()
            self._ask(action)
        running = {name for name, state in listing.items() if state == "RUNNING"}
        self._settled = wanted if running == wanted else set()
        self._next_look = time.monotonic() + SETTLED_PERIOD_S
        self._broker.announce_node(self._settings.node, self._about(listing))

    def _ask(self, action: Action) -> None:
        try:
            self._supervisor.act(action)
            self._logger.info(action.verb, extra={"program": action.program})
        except xmlrpc.client.Fault as refused:  # it changed its state meanwhile; the next look decides anew
            self._logger.info("supervisor refused", extra={"program": action.program, "reason": refused.faultString})

    def _about(self, listing: Mapping[str, str]) -> dict[str, str]:
        settings = self._settings
        about = {"name": settings.node, "slots": str(settings.slots), "gpu": settings.gpu or ""}
        about["machine"] = machine()  # two of one name are told apart by it
        about["resident"] = "1" if settings.resident else "0"  # host: both processes run, too
        return about | {f"model:{stage}": name for stage, name in self._models.items()} | dict(listing)


def main() -> int:
    """Run the agent of one node until SIGTERM; the workers stay under supervisor."""
    names = ["redis_url", "deployment", "cascade", "node", "slots", "gpu", "resident", "supervisor_socket", "lease_s"]
    settings = load(parser(__doc__ or "", [*names, "picture_ttl_s", "done_keep_s", "beats", "log_dir"]).parse_args())
    cascade = load_cascade(settings.cascade)
    settings = settings.model_copy(update={"gpu": settings.gpu or cascade.gpu})
    models: dict[Stage, str] = {stage: model.name for stage, model in cascade.models.items()}
    logger = configure("agent", settings.log_dir)
    stop, beat = Stop().listen(), Beat(settings.beats, "agent")
    agent = Agent(settings, Supervisor(settings.supervisor_socket), logger, models)
    if until_done(agent.check, stop, logger, beat):
        logger.info("ready", extra={"node": settings.node, "slots": settings.slots})
        patiently(agent.step, stop, logger, sleep=agent.sleep, beat=beat)
    return 0


if __name__ == "__main__":
    guarded(main)
