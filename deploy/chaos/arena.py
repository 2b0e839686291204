"""A running pipeline while it is being hurt: who draws what, who dies, and how soon others take over."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar

from deploy.chaos.offering import Offering
from deploy.chaos.programs import Programs
from deploy.chaos.proxy import Proxy
from deploy.chaos.witness import Witness
from deploy.runner import Deployment
from shared.connection import CommandRefused, Unreachable
from shared.messages import Outcome
from shared.schema import CLASSES, GROUP, STAGES, Stage, reserved

LOOK_S: Final = 0.01
PATIENCE_S: Final = 20.0  # a recovery that takes longer is given up, and counts as so long


Answer = TypeVar("Answer")


class Holding(NamedTuple):
    """An entry in a worker's hands."""

    stream: str
    entry_id: str
    prompt_id: str


class Drawer(NamedTuple):
    """A live worker: its consumer's name, its place, and what it holds."""

    consumer: str
    stage: Stage
    node: str
    slot: str
    pid: int
    holds: tuple[Holding, ...]


class Arena:
    """What a fault may do to a deployment, and what was seen of it."""

    def __init__(
        self, running: Deployment, programs: Programs, offering: Offering, witness: Witness, scale: float
    ) -> None:
        self.running = running
        self.programs = programs
        self.offering = offering
        self.witness = witness
        self.scale = scale
        self.broker = running.broker
        self.draw = random.Random(0)
        self.faults = 0
        self.recoveries_s: list[float] = []
        self.broken: list[str] = []
        self.proxy: Proxy | None = None
        self.far: Programs | None = None
        self.far_places: Sequence[str] = ()  # how the names of the workers on each of the far slots begin
        self.fenced: dict[str, set[str]] = {}  # consumer -> prompts that it must not settle any more

    def expect(self, holds: bool, words: str) -> None:
        """Note what should hold and does not."""
        if not holds:
            self.broken.append(words)

    def drawers(self) -> list[Drawer]:
        """Every live worker that the plan lets draw."""
        plan, held = self.broker.plan(), self._held()
        found: list[Drawer] = []
        client: Any = self.broker.client
        for stage in STAGES:
            for row in client.xinfo_consumers(self.broker.keys.streams[stage][1], GROUP):
                name = row["name"].decode()
                raw = client.hgetall(self.broker.keys.worker(name))
                about = {key.decode(): value.decode() for key, value in raw.items()}
                if not about or plan is None or plan.assignment.get(f"{about['node']}:{about['slot']}") != stage:
                    continue
                place = (stage, about["node"], about["slot"], int(about["pid"]))
                found.append(Drawer(name, *place, tuple(held.get(name, ()))))
        return found

    def drawing(self, stage: Stage | None = None, node: str = "") -> Drawer:
        """A worker that holds prompts now; waits for one."""

        def chosen() -> list[Drawer]:
            return [
                each
                for each in self.drawers()
                if each.holds and each.stage == (stage or each.stage) and each.node == (node or each.node)
            ]

        end = time.monotonic() + PATIENCE_S
        while not (found := chosen()) and time.monotonic() < end:
            time.sleep(LOOK_S)
        if not found:
            raise TimeoutError(f"no {stage or ''} worker {node} was seen drawing")
        return self.draw.choice(found)

    def kill(self, victim: Drawer) -> float:
        """SIGKILL a worker; returns when, on this process' monotonic clock."""
        self.faults += 1
        died = time.monotonic()
        with suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGKILL)
        return died

    def orphans_return(self, consumers: Sequence[str], since: float, within_s: float = PATIENCE_S) -> None:
        """Wait until these consumers hold nothing; each entry they still held is one recovery."""
        left = self._pending(consumers)
        end = time.monotonic() + PATIENCE_S
        while left and time.monotonic() < end:
            time.sleep(LOOK_S)
            still = self._pending(consumers)
            self.recoveries_s += [time.monotonic() - since] * len(left - still)
            left = still
        self.recoveries_s += [time.monotonic() - since] * len(left)
        self.expect(not left, f"{len(left)} orphans never came back")
        waited_s = time.monotonic() - since
        self.expect(waited_s <= within_s, f"orphans came back after {waited_s:.2f} s, not {within_s:g} s")

    def flow_returns(self, since: float, places: Sequence[str] = ("",)) -> None:
        """Wait until pictures are drawn again at each place; how soon the first of them was begun is its recovery.

        `since`: on this process' monotonic clock. `places`: how the names of the workers there begin.
        """
        after = self.patient(self.broker.now) - (time.monotonic() - since)
        end = time.monotonic() + PATIENCE_S
        begun = self.patient(lambda: self._begun(after))
        while (missing := [place for place in places if not _there(begun, place)]) and time.monotonic() < end:
            time.sleep(5 * LOOK_S)
            begun = self.patient(lambda: self._begun(after))
        self.recoveries_s += [min(_there(begun, place), default=after + PATIENCE_S) - after for place in places]
        self.expect(not missing, f"no picture was drawn again by {missing}")

    def _begun(self, after: float) -> list[tuple[str, float]]:
        """Worker and start of what was drawn and settled since, as far as the newest outcomes tell."""
        rows = self.running.observer.latest(self.broker.keys.done, 500)
        visits = [visit for _, fields in rows for visit in Outcome.from_wire(fields).visits]
        return [(visit.worker, visit.started) for visit in visits if visit.started >= after]

    def patient(self, ask: Callable[[], Answer]) -> Answer:
        """Ask until Redis answers."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                return ask()
            except (*Unreachable, CommandRefused):
                if time.monotonic() > end:
                    raise
                time.sleep(LOOK_S)

    def fence(self, victims: Sequence[Drawer]) -> None:
        """From now on no outcome may carry a visit of these workers to what they hold."""
        for victim in victims:
            self.fenced.setdefault(victim.consumer, set()).update(entry.prompt_id for entry in victim.holds)

    def _held(self) -> dict[str, list[Holding]]:
        found: dict[str, list[Holding]] = {}
        client: Any = self.broker.client
        for stage in STAGES:
            for priority in CLASSES:
                stream = self.broker.keys.streams[stage][priority]
                for row in client.xpending_range(stream, GROUP, "-", "+", 1000):
                    name, entry_id = row["consumer"].decode(), row["message_id"].decode()
                    if not reserved(name):
                        entry = client.xrange(stream, entry_id, entry_id)
                        prompt_id = entry[0][1].get(b"id", b"").decode() if entry else ""
                        found.setdefault(name, []).append(Holding(stream, entry_id, prompt_id))
        return found

    def _pending(self, consumers: Sequence[str]) -> set[tuple[str, str]]:
        client: Any = self.broker.client
        return {
            (stream, row["message_id"].decode())
            for stage in STAGES
            for stream in self.broker.keys.streams[stage]
            for row in client.xpending_range(stream, GROUP, "-", "+", 1000)
            if row["consumer"].decode() in consumers
        }


def _there(begun: Sequence[tuple[str, float]], place: str) -> list[float]:
    return [started for worker, started in begun if worker.startswith(place)]
