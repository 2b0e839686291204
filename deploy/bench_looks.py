"""What a look at the whole fleet costs Redis, where the fleet is large: processor seconds of its process.

Workers are announced and a plan is put, but none of them runs: only who looks is measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import psutil

from deploy.bench_polling import SLOTS_A_NODE, Told, spent_s
from shared.broker import Broker
from shared.config import Settings
from shared.embedded import EmbeddedRedis
from shared.observer import Observer
from shared.plans import Plan, View
from shared.schema import STAGES

SLOTS: Final = 1_000
ROUNDS: Final = 200


def looks() -> Iterator[Told]:
    """Microseconds of Redis for each kind of look at 1,000 slots with both processes."""
    with tempfile.TemporaryDirectory(prefix="cascade-") as folder, EmbeddedRedis(Path(folder)) as redis:
        broker = Broker(Settings(redis_url=redis.url, deployment="bench", lease_s=600.0))
        broker.check()
        _populate(broker)
        observer, process = Observer(broker), psutil.Process(redis.pid)
        kinds: Mapping[str, Callable[[], object]] = {
            "an agent's look at the plan": broker.plan,
            "an agent's look for its workers": lambda: observer.worker_names("node-1"),
            "control's look at the slots": observer.slots,
            "the keeper's look for the dead": lambda: broker.reclaim(sweep=False),
        }
        for what, look in kinds.items():
            before_s = spent_s(process)
            for _ in range(ROUNDS):
                look()
            yield f"{what}, {SLOTS:,} slots, Redis", (spent_s(process) - before_s) / ROUNDS * 1e6, "us", ""


def _populate(broker: Broker) -> None:
    places = [(f"node-{number // SLOTS_A_NODE}", number % SLOTS_A_NODE) for number in range(SLOTS)]
    for node, slot in places:
        for stage in STAGES:
            consumer = f"{node}-{slot}-{stage}-0123abcd"
            about = {"node": node, "slot": str(slot), "gpu": "a100-80g", "stage": stage, "model": "none", "ready": "1"}
            about |= {"error": "", "pid": "12345", "consumer": consumer, "process": "0" * 60}
            broker.announce(stage, consumer, about)
    assignment = {f"{node}:{slot}": STAGES[slot % 2] for node, slot in places}
    half = SLOTS // 2
    plan = Plan("bench", 0.5, half, SLOTS - half, 8, 4, 0.5, 2.0, version=1, assignment=assignment)
    broker.hold(broker.keys.leader("control"), "bench")
    broker.put_plan(plan, View(0.0, (), ()), "bench")
