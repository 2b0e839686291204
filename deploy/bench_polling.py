"""What idle workers cost the one Redis that they all poll: processor seconds of its process over a window.

Each worker is the one of `services.worker`: its lease beats, it holds its slot's token, obeys a plan, claims in vain
and waits for a token, over connections of its own. A control, a keeper and an agent for every 8 workers look meanwhile.
Made simpler: workers are threads, many in a process; none has a watchdog, which asks nothing of Redis between batches;
and in place of supervisord stands a listing in which every program runs.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

import psutil

from deploy.bench_queue import end_all, started
from models.sleeping import SleepingBackend
from services.agent import Agent, Supervisor, program
from services.control import Control
from services.keeper import Keeper
from services.lease import Lease
from services.worker import Worker
from shared.broker import Broker
from shared.catalog import load_cascade
from shared.config import Settings
from shared.embedded import EmbeddedRedis
from shared.plans import Plan, View
from shared.process import Stop, patiently
from shared.schema import STAGES, Stage

CASCADE: Final = "sdturbo"
SLOTS_A_NODE: Final = 8
NODES_A_PROCESS: Final = 4  # of workers: as many threads as one interpreter runs without being late
WINDOW_S: Final = 20.0
SETTLING_S: Final = 5.0  # after the last slot has its worker: the first beats come all at once
PATIENCE_S: Final = 90.0
SIZES: Final = (50, 100, 200, 400)
ASKED: Final = 200
Told = tuple[str, float, str, str]  # what, value, unit, aim


class Polled(NamedTuple):
    """What `slots` cost Redis: shares of a core, of its process and of one slot; commands a second; load beside it."""

    slots: int
    core: float
    commands_per_s: float
    load: float

    @property
    def core_a_slot(self) -> float:
        """The share of a core that one slot takes of Redis."""
        return self.core / self.slots


def polling() -> Iterator[Told]:
    """Every figure; sizes beside each other show whether the cost grows with the workers or faster."""
    found = {slots: polled(slots) for slots in SIZES}
    for slots, each in found.items():
        aim = "<= 15" if slots == ASKED else ""
        yield from _told(f"polling, {slots} idle workers", each, aim)
    without = polled(ASKED, services=False)
    yield from _told(f"polling, {ASKED} idle workers and no services", without)
    yield from _told(f"polling, {ASKED} slots with both processes", polled(ASKED, both=True), "<= 15")


def _told(what: str, found: Polled, aim: str = "") -> Iterator[Told]:
    yield f"{what}, Redis", found.core * 100, "% of a core", aim
    yield f"{what}, Redis for each", found.core_a_slot * 1e6, "us a second", ""
    yield f"{what}, commands and those inside scripts", found.commands_per_s, "1/s", ""
    yield f"{what}, load average beside it", found.load, "", ""


def polled(slots: int, *, both: bool = False, services: bool = True, window_s: float = WINDOW_S) -> Polled:
    """Measure so many idle slots, whose workers all hold their slot and poll.

    `both`: beside each the process of the other stage, which waits for its turn as where both models stay loaded.
    `services`: control, keeper and agents too; without them the plan stands and nobody looks.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cascade-")))
        redis = stack.enter_context(EmbeddedRedis(folder, durability="everysec"))
        settings = Settings(redis_url=redis.url, deployment="bench", cascade=CASCADE, gpu=load_cascade(CASCADE).gpu)
        broker = Broker(settings)
        broker.check()
        processes: list[Any] = []
        stack.callback(lambda: end_all(processes))
        nodes = [f"node-{number}" for number in range(math.ceil(slots / SLOTS_A_NODE))]
        hosts = [nodes[first : first + NODES_A_PROCESS] for first in range(0, len(nodes), NODES_A_PROCESS)]
        processes += [started(_draw, settings, _places(host, slots), both) for host in hosts]
        processes.append(started(_control, settings, slots))
        if services:
            processes += [started(_keep, settings), started(_agents, settings, nodes, both)]
        _wait_until_held(broker, _places(nodes, slots))
        time.sleep(SETTLING_S)
        if not services:
            end_all([processes.pop()])
        return _measured(broker, psutil.Process(redis.pid), slots, window_s)


def _places(nodes: Sequence[str], slots: int) -> list[tuple[str, int]]:
    """Node and number of every slot on these nodes, of `slots` in all; the last node may have fewer."""
    numbers = [(node, number) for node in nodes for number in range(SLOTS_A_NODE)]
    return [(node, number) for node, number in numbers if int(node.split("-")[1]) * SLOTS_A_NODE + number < slots]


def _wait_until_held(broker: Broker, places: Sequence[tuple[str, int]]) -> None:
    keys = [broker.keys.slot(*place) for place in places]
    end = time.monotonic() + PATIENCE_S
    while (held := int(broker.client.exists(*keys))) < len(keys):
        if time.monotonic() > end:
            raise TimeoutError(f"only {held} of {len(keys)} slots had a worker after {PATIENCE_S:.0f} s")
        time.sleep(0.2)


def _measured(broker: Broker, process: psutil.Process, slots: int, window_s: float) -> Polled:
    before_s, commands, began = spent_s(process), _commands(broker), time.monotonic()
    time.sleep(window_s)
    elapsed_s = time.monotonic() - began
    ran = _commands(broker) - commands
    return Polled(slots, (spent_s(process) - before_s) / elapsed_s, ran / elapsed_s, os.getloadavg()[0])


def spent_s(process: psutil.Process) -> float:
    """Seconds of processor time that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _commands(broker: Broker) -> int:
    facts: Mapping[str, Any] = broker.client.info("stats")
    return int(facts["total_commands_processed"])


# -- what the processes run ----------------------------------------------------------------------------------------


def _together(runs: Sequence[Callable[[], None]]) -> None:
    """Each in a thread of its own, until the process is ended."""
    threads = [threading.Thread(target=run, daemon=True) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _draw(settings: Settings, places: Sequence[tuple[str, int]], both: bool) -> None:
    def worker(node: str, slot: int, stage: Stage) -> Callable[[], None]:
        own = settings.model_copy(update={"node": node, "slot": slot})
        return lambda: _work(own, stage)

    _together([worker(node, slot, stage) for node, slot in places for stage in _stages(slot, both)])


def _stages(slot: int, both: bool) -> Sequence[Stage]:
    return STAGES if both else (STAGES[slot % 2],)


def _work(settings: Settings, stage: Stage) -> None:
    """What `services.worker` does, but for the watchdog."""
    cascade, logger, stop = load_cascade(settings.cascade), logging.getLogger("bench"), Stop()
    consumer = f"{settings.node}-{settings.slot}-{stage}-{uuid4().hex[:8]}"
    lease = Lease(settings, stage, consumer, cascade.models[stage].name, logger)
    lease.start()
    lease.describe(ready="1")
    backend = SleepingBackend(cascade, stage, settings.gpu)
    worker = Worker(settings, stage, cascade, backend, lease, logger)
    patiently(worker.step, stop, logger)


def _control(settings: Settings, slots: int) -> None:
    """A control whose policy has every slot draw: none rests, half of them draw heavy."""
    cascade = load_cascade(settings.cascade)
    heavy = slots // 2
    plan = Plan("bench", 0.5, slots - heavy, heavy, 8, 4, cascade.service_s("light", 8), cascade.service_s("heavy", 4))

    def policy(_: View) -> Plan:
        return plan

    control = Control(settings, cascade, policy, logging.getLogger("bench"))
    patiently(control.step, Stop(), logging.getLogger("bench"), longest_pause_s=settings.lease_s / 4)


def _keep(settings: Settings) -> None:
    cascade = load_cascade(settings.cascade)
    keeper = Keeper(settings, {stage: cascade.service_s(stage, 1) for stage in STAGES}, logging.getLogger("bench"))
    patiently(keeper.step, Stop(), logging.getLogger("bench"), longest_pause_s=settings.lease_s / 4)


class _AllRuns(Supervisor):
    """A supervisor on whose node every program runs."""

    def __init__(self, slots: int) -> None:
        super().__init__(Path("none.sock"))
        self._slots = slots

    def listing(self) -> dict[str, str]:
        """Both programs of every slot."""
        return {program(slot, stage): "RUNNING" for slot in range(self._slots) for stage in STAGES}


def _agents(settings: Settings, nodes: Sequence[str], both: bool) -> None:
    # An agent expects two workers a slot. Told of slots that have one, it would look for the others for ever.
    slots = SLOTS_A_NODE if both else SLOTS_A_NODE // 2

    def agent(node: str) -> Callable[[], None]:
        own = settings.model_copy(update={"node": node, "slots": slots})
        made = Agent(own, _AllRuns(slots), logging.getLogger("bench"))
        return lambda: patiently(made.step, Stop(), logging.getLogger("bench"), sleep=made.sleep)

    _together([agent(node) for node in nodes])
