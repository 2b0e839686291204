"""A cluster under load, what is done to it, and when: each step is noted by the server's clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from deploy.chaos.offering import Offer, Offering
from deploy.chaos.witness import Witness
from deploy.cluster.client import Clients
from deploy.cluster.cluster import CASCADE, Cluster
from shared.broker import Broker
from shared.catalog import load_cascade
from shared.connection import CommandRefused, Unreachable
from shared.errors import CascadeError

CLIENT_S: Final = 1.0  # between two clients of the door over HTTP, beside the prompts that are published
NEVER_S: Final = 1e9
SETTLE_S: Final = 10.0  # after the last deadline nothing is open
LOOK_S: Final = 0.02
PATIENCE_S: Final = 60.0
AWAY: Final = (*Unreachable, CommandRefused, CascadeError)
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Step:
    """Something that was done. `node`: whose slots the plan shall use (`wanted` of them) from then on; else empty."""

    what: str
    at: float
    node: str = ""
    wanted: int = 0


class Drill:
    """What a scenario may do, and what came of it. `seconds`: how long it waits where it waits, times the scale."""

    def __init__(self, cluster: Cluster, per_s: float, scale: float, say: Say) -> None:
        self.cluster = cluster
        self.deadline_s = load_cascade(CASCADE).deadline_s
        self.offering = Offering(Broker(cluster.settings), Offer(per_s, self.deadline_s))
        self.witness = Witness(Broker(cluster.settings), NEVER_S)
        self.clients = Clients(cluster.network.hosts["head"].address, cluster.key, CLIENT_S)
        self.steps: list[Step] = []
        self.first_ready: tuple[str, float] | None = None  # of the node that joined: its name, and when
        self.broken: list[str] = []
        self.restarts = 0
        self._scale = scale
        self._say = say
        self._began = time.monotonic()

    @contextmanager
    def under_load(self) -> Iterator[None]:
        """Offer prompts while the block runs; afterwards wait until all of them have ended."""
        self._began = time.monotonic()
        self.offering.start()
        self.witness.start()
        self.clients.start()
        try:
            yield
        finally:
            self.offering.stop()
            self.clients.stop()
            end = time.monotonic() + self.deadline_s + SETTLE_S
            while self.cluster.observer.next_due() is not None and time.monotonic() < end:
                time.sleep(LOOK_S)
            self.witness.stop()
            self.note("end")

    def wait(self, seconds: float) -> None:
        """Let it run for so long, shortened by the scale."""
        time.sleep(seconds * self._scale)

    def note(self, what: str, node: str = "", wanted: int = 0) -> None:
        """Write a step down."""
        self._say(f"{time.monotonic() - self._began:6.1f} s  {what}")
        self.steps.append(Step(what, self.cluster.broker.now(), node, wanted))

    def join(self, name: str) -> None:
        """Start a node's compose file; the step is when all its slots can draw, its first worker is noted apart."""
        self._say(f"{time.monotonic() - self._began:6.1f} s  {name} starts")
        self.cluster.nodes[name].up()
        self.cluster.until(lambda: self.cluster.ready_workers(name), f"a worker of {name} is ready")
        self.first_ready = (name, self.cluster.broker.now())
        self.cluster.await_slots(name)
        self.note(f"{name} joins", name, self.cluster.specs[name].slots)

    def drain(self, name: str) -> None:
        """Empty a node with the command for it."""
        self.note(f"{name} is drained", name)
        self.cluster.ctl("drain", name)
        if sum(self.cluster.observer.in_hands(name)):
            self.broken.append(f"ctl said that {name} was drained, and it was not")

    def undrain(self, name: str) -> None:
        """Let it draw again."""
        self.note(f"{name} joins again", name, self.cluster.specs[name].slots)
        self.cluster.ctl("undrain", name)

    def cut(self, name: str, seconds: float) -> None:
        """Pull a node's cable for so long."""
        self.note(f"{name} is cut off", name)
        self.cluster.network.cut(name)
        try:
            time.sleep(seconds)
        finally:
            self.cluster.network.heal(name)
        self.note(f"{name} comes back", name, self.cluster.specs[name].slots)

    def restart(self, service: str) -> None:
        """Restart a service of the head; returns when it is well and pictures are drawn again."""
        took_s = self.cluster.head.restart(service)
        self._restarted(f"{service} restarts (stopped in {took_s:.1f} s)")
        self.cluster.head.wait_healthy([service])
        self.flow_returns()

    def restart_program(self, node: str, program: str) -> None:
        """Restart what a node's supervisord runs; returns when it runs again, a worker when it can draw."""
        container = self.cluster.agent(node)
        control = ["python", "-m", "supervisor.supervisorctl", "-c", "/run/cascade/supervisord.conf"]
        name = f"workers:{program}" if program.startswith("worker-") else program
        code, said = container.run([*control, "restart", name])
        self._restarted(f"{node}: {program} restarts")
        if code:
            self.broken.append(f"{node}: {program} was not restarted: {said}")
        self.cluster.await_slots(node)

    def restart_node(self, name: str) -> None:
        """Restart a node's container, and so its supervisord and all that it runs."""
        took_s = self.cluster.nodes[name].restart("node")
        self._restarted(f"{name} restarts (stopped in {took_s:.1f} s)")
        self.cluster.until(lambda: self.cluster.able(name) == 0, f"{name} is gone")
        self.cluster.await_slots(name)

    def flow_returns(self) -> None:
        """Wait until something ends that was published from now on."""
        patient = self._patient
        since = patient(self.cluster.broker.now)
        end = time.monotonic() + PATIENCE_S
        while not any(each.published > since for each in self.witness.outcomes[-200:]):
            if time.monotonic() > end:
                raise CascadeError(f"nothing was drawn any more after: {self.steps[-1].what}")
            time.sleep(LOOK_S)

    def _restarted(self, what: str) -> None:
        self.restarts += 1
        self._say(f"{time.monotonic() - self._began:6.1f} s  {what}")
        self.steps.append(Step(what, self._patient(self.cluster.broker.now)))

    def _patient(self, ask: Callable[[], float]) -> float:
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                return ask()
            except AWAY:
                if time.monotonic() > end:
                    raise
                time.sleep(LOOK_S)
