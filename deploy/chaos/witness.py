"""Follows a run from outside while its parts are being broken: outcomes, memory, consumers and keys."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, Final, cast

import psutil

from shared.broker import Broker
from shared.connection import CommandRefused, Unreachable
from shared.messages import Outcome
from shared.observer import Observer
from shared.schema import CLASSES, GROUP, STAGES

LOOK_S: Final = 0.25
AT_ONCE: Final = 2000
MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Size:
    """How large the deployment is: MiB of Redis' data and of each other process, consumers, lasting keys."""

    at_s: float
    redis_mib: float
    processes_mib: dict[str, float]
    consumers: int
    keys: int


class Witness(threading.Thread):
    """Gathers every outcome as it comes; waits while Redis is away. `sizes` every `size_s`."""

    def __init__(self, broker: Broker, size_s: float) -> None:
        super().__init__(name="witness", daemon=True)
        self.outcomes: list[Outcome] = []
        self.sizes: list[Size] = []
        self._broker = broker
        self._observer = Observer(broker)
        self._size_s = size_s
        self._seen = "0"
        self._stop_asked = threading.Event()

    def run(self) -> None:
        """Look until told to stop."""
        next_size = 0.0
        while not self._stop_asked.is_set():
            try:
                self._follow()
                if time.monotonic() >= next_size:
                    next_size = time.monotonic() + self._size_s
                    self.sizes.append(size_of(self._broker))
            except (*Unreachable, CommandRefused):  # the fault that is being injected
                pass
            self._stop_asked.wait(LOOK_S)

    def stop(self) -> None:
        """Take what is left and end."""
        self._stop_asked.set()
        self.join()
        self._follow()
        self.sizes.append(size_of(self._broker))

    def _follow(self) -> None:
        while True:
            found, self._seen = self._observer.outcomes(self._seen, AT_ONCE)
            self.outcomes += found
            if len(found) < AT_ONCE:
                return


def size_of(broker: Broker) -> Size:
    """Measure the deployment now."""
    client: Any = broker.client
    used = cast(dict[str, Any], client.info("memory"))["used_memory"] / MIB
    consumers = sum(
        len(client.xinfo_consumers(broker.keys.streams[stage][priority], GROUP))
        for stage in STAGES
        for priority in CLASSES
    )
    return Size(time.monotonic(), used, _processes_mib(), consumers, lasting_keys(broker))


def lasting_keys(broker: Broker) -> int:
    """Keys without a lifetime, beside the records of open prompts: the few that every deployment has."""
    client: Any = broker.client
    names = list(client.scan_iter(match=f"{broker.keys.root}:*", count=1000))
    with client.pipeline(transaction=False) as pipe:
        for raw in names:
            pipe.pttl(raw)
        lives: list[int] = pipe.execute()
    return max(0, lives.count(-1) - int(client.zcard(broker.keys.due)))


def _processes_mib() -> dict[str, float]:
    """By id and what it runs. Of Redis, its data count: the rest of its memory is the allocator's to keep."""
    found: dict[str, float] = {}
    for process in psutil.Process().children(recursive=True):
        try:
            if process.name() != "redis-server":
                words = [word for word in process.cmdline() if word.startswith("services.")]
                found[f"{process.pid} {' '.join(words) or process.name()}"] = process.memory_info().rss / MIB
        except psutil.Error:  # it has just ended
            continue
    return found
