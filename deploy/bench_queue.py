"""Three pipelines of one shape, for `deploy.bench`: publish -> light -> done, 40 % of it through heavy.

Ours with leases, fencing, records and outcomes; a bare redis-py loop that only reads, writes and
acknowledges; FastStream in batches where it is installed. Each has one publisher and one worker a stage.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from typing import Any, Final

from models.backend import Abandoned, Backend, Picture, never
from services.lease import Lease
from services.worker import Worker
from shared.broker import Broker
from shared.cascade import draw_lot
from shared.catalog import load_cascade
from shared.config import Settings
from shared.connection import Connection
from shared.exchange import Publication
from shared.messages import Job
from shared.plans import Plan, View
from shared.schema import STAGES, Stage

BATCH: Final = 32
HEAVY: Final = 0.4
AT_ONCE: Final = 64
HOLD_S: Final = 0.01  # the heavy worker waits so long for its batch to fill
PATIENCE_S: Final = 300.0


class NothingDrawn:
    """A model that takes no time; its score is even, so that the share HEAVY lies below HEAVY."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def warm_up(self, batches: Sequence[int]) -> None:
        """Nothing to load."""

    def draw(self, jobs: Sequence[Job], _abandoned: Abandoned = never) -> list[Picture]:
        """One empty picture a job."""
        light = self.stage == "light"
        return [Picture(b"", draw_lot(job.id) if light else None) for job in jobs]


def cascade_rate(settings: Settings, prompts: int, text: str) -> float:
    """Prompts per second from the first publish to the last outcome, through our own services."""
    broker = Broker(settings)
    broker.check()
    slots = {f"bench:{number}": stage for number, stage in enumerate(STAGES)}
    plan = Plan("bench", HEAVY, 1, 1, BATCH, BATCH, 1e-6, 1e-6, version=1, heavy_hold_s=HOLD_S, assignment=slots)
    broker.hold(broker.keys.leader("control"), "bench")
    broker.put_plan(plan, View(0.0, (), ()), "bench")
    workers = [started(run_worker, settings, number, stage, NothingDrawn(stage)) for number, stage in enumerate(STAGES)]
    try:
        began = time.perf_counter()
        publisher = started(_publish, settings, prompts, text)
        _wait_for(lambda: int(broker.client.xlen(broker.keys.done)), prompts)
        elapsed_s = time.perf_counter() - began
    finally:
        end_all([*workers, publisher])
    return prompts / elapsed_s


def _publish(settings: Settings, prompts: int, text: str) -> None:
    broker = Broker(settings)
    for first in range(0, prompts, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, prompts))
        broker.publish([Publication(Job(f"p{number}", text, 0.0, 0.0, seed=number), 1000.0) for number in numbers])


def run_worker(settings: Settings, slot: int, stage: Stage, backend: Backend) -> None:
    """A worker of the stage with this model, until its process is ended."""
    settings = settings.model_copy(update={"node": "bench", "slot": slot, "gpu": "a100-80g"})
    logger = logging.getLogger("bench")
    lease = Lease(settings, stage, f"bench-{slot}", "nothing", logger)
    lease.start()
    worker = Worker(settings, stage, load_cascade("sdturbo"), backend, lease, logger)
    while True:
        worker.step()


def bare_rate(settings: Settings, prompts: int, text: str) -> float:
    """The same pattern with nothing but XADD, XREADGROUP, XACK and XDEL."""
    client: Any = Connection(settings).client
    for stream in STAGES:
        client.xgroup_create(stream, "bare", id="0", mkstream=True)
    workers = [started(_bare_worker, settings, stage) for stage in STAGES]
    try:
        began = time.perf_counter()
        publisher = started(_bare_publish, settings, prompts, text)
        _wait_for(lambda: int(client.xlen("done")), prompts)
        elapsed_s = time.perf_counter() - began
    finally:
        end_all([*workers, publisher])
    return prompts / elapsed_s


def _bare_publish(settings: Settings, prompts: int, text: str) -> None:
    client: Any = Connection(settings).client
    for first in range(0, prompts, AT_ONCE):
        pipe = client.pipeline(transaction=False)
        for number in range(first, min(first + AT_ONCE, prompts)):
            pipe.xadd("light", {"id": f"p{number}", "prompt": text})
        pipe.execute()


def _bare_worker(settings: Settings, stage: Stage) -> None:
    client: Any = Connection(settings).client
    while True:
        for _, entries in client.xreadgroup("bare", stage, {stage: ">"}, count=BATCH, block=1000) or []:
            pipe = client.pipeline(transaction=False)
            for entry, fields in entries:
                weak = stage == "light" and draw_lot(fields[b"id"].decode()) < HEAVY
                pipe.xadd("heavy" if weak else "done", fields)
                pipe.xack(stage, "bare", entry)
                pipe.xdel(stage, entry)
            pipe.execute()


def faststream_rate(settings: Settings, prompts: int, text: str) -> float | None:
    """The same pattern as a FastStream application in batches; None where it is not installed."""
    if importlib.util.find_spec("faststream") is None or importlib.util.find_spec("faststream.redis") is None:
        return None
    client: Any = Connection(settings).client
    worker = started(_faststream_app, settings)
    try:
        _wait_for(lambda: int(client.exists("light")) + int(client.exists("heavy")), 2)
        began = time.perf_counter()
        publisher = started(_faststream_publish, settings, prompts, text)
        _wait_for(lambda: int(client.xlen("done")), prompts)
        elapsed_s = time.perf_counter() - began
    finally:
        end_all([worker, publisher])
    return prompts / elapsed_s


def _faststream_app(settings: Settings) -> None:
    from faststream import FastStream
    from faststream.redis import Pipeline, RedisBroker, StreamSub

    broker = RedisBroker(settings.redis_url, logger=None)

    def stream(name: str) -> Any:
        return StreamSub(name, group="bench", consumer="one", batch=True, max_records=BATCH, polling_interval=10)

    async def pass_on(jobs: list[dict[str, str]], pipe: Any, following: Callable[[dict[str, str]], str]) -> None:
        for job in jobs:
            await broker.publish(job, stream=following(job), pipeline=pipe)
        await pipe.execute()

    async def light(jobs: list[dict[str, str]], pipe: Pipeline) -> None:
        await pass_on(jobs, pipe, lambda job: "heavy" if draw_lot(job["id"]) < HEAVY else "done")

    async def heavy(jobs: list[dict[str, str]], pipe: Pipeline) -> None:
        await pass_on(jobs, pipe, lambda _: "done")

    # FastStream reads the annotations, which are text in this module and name a local import.
    for name, handler in (("light", light), ("heavy", heavy)):
        handler.__annotations__ = {"jobs": list[dict[str, str]], "pipe": Pipeline}
        broker.subscriber(stream=stream(name))(handler)
    asyncio.run(FastStream(broker, logger=None).run())


def _faststream_publish(settings: Settings, prompts: int, text: str) -> None:
    from faststream.redis import RedisBroker

    async def publish() -> None:
        async with RedisBroker(settings.redis_url, logger=None) as broker:
            client: Any = await broker.connect()
            for first in range(0, prompts, AT_ONCE):
                pipe = client.pipeline(transaction=False)
                for number in range(first, min(first + AT_ONCE, prompts)):
                    await broker.publish({"id": f"p{number}", "prompt": text}, stream="light", pipeline=pipe)
                await pipe.execute()

    asyncio.run(publish())


def started(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A process of its own that runs the function."""
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def _wait_for(count: Callable[[], int], wanted: int) -> None:
    end = time.monotonic() + PATIENCE_S
    while (found := count()) < wanted:
        if time.monotonic() > end:
            raise TimeoutError(f"only {found} of {wanted} came through in {PATIENCE_S:.0f} s")
        time.sleep(0.01)


def end_all(processes: Sequence[BaseProcess]) -> None:
    """End them at once."""
    for process in processes:
        process.kill()
        process.join()
