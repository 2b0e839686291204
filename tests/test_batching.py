"""Idle heavy workers draw the batches that the rule, played on a virtual clock, says they draw."""

from __future__ import annotations

import heapq
import logging
import random
import threading
import time
from collections.abc import Sequence
from statistics import mean

import pytest

from models.sleeping import SleepingBackend
from services.lease import Lease
from services.worker import Worker
from shared.broker import Broker
from shared.cascade import Waiting, batch_to_take
from shared.catalog import load_cascade
from shared.config import Settings
from shared.embedded import EmbeddedRedis
from shared.exchange import Publication
from shared.messages import Job
from shared.observer import Observer
from shared.plans import Plan, View

pytestmark = pytest.mark.live

WORKERS, BATCH, HOLD_S, LOAD, PROMPTS = 12, 4, 0.08, 0.7, 400
ALLOWANCE_S = 30.0
CASCADE = load_cascade("sdturbo").paced({"heavy": 0.1})  # a tenth of an A100's seconds, to be done sooner
SERVICE_S = [CASCADE.service_s("heavy", size) for size in range(1, BATCH + 1)]
RATE = LOAD * WORKERS * BATCH / SERVICE_S[-1]


def arrivals() -> list[float]:
    """Poisson arrivals at 70 % of what the workers carry in full batches."""
    lot = random.Random(7)
    at_s, times = 0.0, []
    for _ in range(PROMPTS):
        at_s += lot.expovariate(RATE)
        times.append(at_s)
    return times


def simulated(times: Sequence[float]) -> list[int]:
    """Batch sizes on a virtual clock, with the rule alone: no Redis, no processes."""
    queue: list[Waiting] = []
    events = [(at_s, "arrival") for at_s in times]
    heapq.heapify(events)
    idle, batches = WORKERS, []
    while events:
        now, kind = heapq.heappop(events)
        if kind == "arrival":
            queue.append(Waiting(now, now + ALLOWANCE_S))
        idle += kind == "finished"
        while idle and queue:
            take = batch_to_take(queue, now + 1e-9, BATCH, HOLD_S, SERVICE_S)
            if not take.count:
                heapq.heappush(events, (now + take.ask_again_s, "timer"))
                break
            batches.append(take.count)
            del queue[: take.count]
            idle -= 1
            heapq.heappush(events, (now + SERVICE_S[take.count - 1], "finished"))
    return batches


def live(server: EmbeddedRedis, times: Sequence[float]) -> list[int]:
    """Batch sizes of real workers on a real server, read off the visits."""
    settings = Settings(redis_url=server.url, deployment="batching", cascade="sdturbo", node="n", gpu="a100-80g")
    broker = Broker(settings)
    broker.check()
    plan = Plan(
        "test", 0.5, 0, WORKERS, 1, BATCH, 0.0, SERVICE_S[-1], version=1, heavy_hold_s=HOLD_S,
        assignment={f"n:{slot}": "heavy" for slot in range(WORKERS)},
    )  # fmt: skip
    broker.hold(broker.keys.leader("control"), "test")
    assert broker.put_plan(plan, View(0.0, (), ()), "test")
    done = threading.Event()
    threads = [threading.Thread(target=_work, args=(settings, slot, done)) for slot in range(WORKERS)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    for number, at_s in enumerate(times):
        time.sleep(max(0.0, at_s - (time.monotonic() - began)))
        broker.publish([Publication(Job(f"b{number}", "a cat", 0.0, 0.0, route="heavy"), ALLOWANCE_S)])
    observer = Observer(broker)
    while observer.next_due() is not None:
        assert time.monotonic() - began < times[-1] + 2 * ALLOWANCE_S, "the queue does not empty"
        time.sleep(0.05)
    done.set()
    for thread in threads:
        thread.join()
    outcomes, _ = observer.outcomes(count=PROMPTS + 1)
    assert [outcome.end for outcome in outcomes] == ["heavy"] * PROMPTS
    return list({(visit.worker, visit.started): visit.batch for o in outcomes for visit in o.visits}.values())


def _work(settings: Settings, slot: int, done: threading.Event) -> None:
    logger = logging.getLogger("batching")
    settings = settings.model_copy(update={"slot": slot})
    lease = Lease(settings, "heavy", f"w{slot}", "sleeping", logger)
    lease.start()
    worker = Worker(settings, "heavy", CASCADE, SleepingBackend(CASCADE, "heavy"), lease, logger)
    while not done.is_set():
        time.sleep(worker.step())
    worker.leave()


def test_idle_heavy_workers_draw_the_batches_that_the_rule_says(server: EmbeddedRedis) -> None:
    times = arrivals()
    expected, found = mean(simulated(times)), mean(live(server, times))
    assert 2.0 < expected < BATCH, "the load must neither fill every batch nor leave all single"
    assert abs(found - expected) <= 0.1 * expected, f"mean batch {found:.2f} live, {expected:.2f} by the rule"
