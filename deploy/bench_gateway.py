"""What the door over HTTP costs, for `deploy.bench`: acknowledgements, open streams, a picture's detour.

The gateway is a process of its own on one core; whoever asks it sits on the others, where there are others.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import aiohttp
import psutil

from deploy.bench_queue import NothingDrawn, end_all, run_worker, started
from deploy.runner import Run, deployment, environment_of
from deploy.serve import address, wait_ready
from deploy.supervision import ROOT
from models.backend import Abandoned, Picture, never
from shared.broker import Broker
from shared.config import Settings
from shared.embedded import EmbeddedRedis
from shared.ledger import percentile
from shared.messages import Job
from shared.plans import Plan, View
from shared.process import die_with_parent
from shared.schema import STAGES

PATIENCE_S: Final = 60.0
LONG_S: Final = 600.0  # a deadline that no measurement waits for
CONNECTIONS: Final = 64
PICTURE: Final = bytes(24 * 1024)  # about what a picture of 512 x 512 takes as webp


@dataclass(frozen=True, slots=True)
class Streams:
    """Open event streams of one gateway: its memory in MiB before, with all open, and after their end."""

    before_mib: float
    open_mib: float
    after_mib: float
    told_s: float  # from the first settlement to the last stream's end


class OnePicture(NothingDrawn):
    """A model that takes no time and whose light pictures all look weak."""

    def draw(self, jobs: Sequence[Job], _abandoned: Abandoned = never) -> list[Picture]:
        """The same picture for each job."""
        return [Picture(PICTURE, 0.0 if self.stage == "light" else None) for _ in jobs]


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def on_one_core(gateway: psutil.Process) -> None:
    """Give the gateway the last core to itself, where there is another for this process."""
    cores = sorted(os.sched_getaffinity(0))
    for thread in gateway.threads():
        os.sched_setaffinity(thread.id, cores[-1:])
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[:-1])


# -- acknowledgements ----------------------------------------------------------------------------------------


def acknowledgements(rate_per_s: float, seconds: float, prompt: str) -> tuple[float, float, float]:
    """Accepted prompts/s as fast as they are taken; p50 and p99 in ms to the answer, offered at a rate."""
    cores = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory(prefix="cascade-run-") as folder:
        settings = Settings(backend="sleeping", slots=4, node="bench", deployment="bench", http_port=free_port())
        settings = settings.model_copy(update={"deadline_s": LONG_S})
        run = Run(Path(folder), settings, Path(folder), gateway=True)
        try:
            with deployment(run) as running:
                running.wait_ready(lambda _: None)
                wait_ready(running, address(settings))
                on_one_core(_listening(settings.http_port))
                asyncio.run(offered(settings, prompt, rate_per_s, 1.0))  # connections, caches
                taken_s = asyncio.run(offered(settings, prompt, rate_per_s, seconds))
                fastest = asyncio.run(_saturated(settings, prompt, seconds))
        finally:
            os.sched_setaffinity(0, cores)
    return fastest, percentile(taken_s, 50) * 1e3, percentile(taken_s, 99) * 1e3


def _listening(port: int) -> psutil.Process:
    mine = psutil.Process().children(recursive=True)
    return next(each for each in mine if "services.gateway" in each.cmdline() and _listens(each, port))


def _listens(process: psutil.Process, port: int) -> bool:
    return any(each.laddr.port == port for each in process.net_connections() if each.status == psutil.CONN_LISTEN)


async def offered(settings: Settings, prompt: str, rate_per_s: float, seconds: float) -> list[float]:
    """Seconds from when each prompt was due to its answer, ascending; each is due at its time, come what may."""
    taken: list[float] = []
    async with client_of(settings) as session, asyncio.TaskGroup() as group:
        began = time.perf_counter()
        for number in range(int(rate_per_s * seconds)):
            due = began + number / rate_per_s
            await asyncio.sleep(due - time.perf_counter())
            group.create_task(_timed(session, prompt, due, taken))
    return sorted(taken)


async def _timed(session: aiohttp.ClientSession, prompt: str, due: float, taken: list[float]) -> None:
    await _publish(session, prompt)
    taken.append(time.perf_counter() - due)


async def _saturated(settings: Settings, prompt: str, seconds: float) -> float:
    """Prompts per second that CONNECTIONS clients get accepted who always have one more."""
    accepted = 0
    end = time.perf_counter() + seconds

    async def ask(session: aiohttp.ClientSession) -> None:
        nonlocal accepted
        while time.perf_counter() < end:
            await _publish(session, prompt)
            accepted += 1

    async with client_of(settings) as session:
        await asyncio.gather(*(ask(session) for _ in range(CONNECTIONS)))
    return accepted / seconds


async def _publish(session: aiohttp.ClientSession, prompt: str) -> str:
    async with session.post("/v1/jobs", json={"prompt": prompt}) as answer:
        told = await answer.json()
        if answer.status != 202:
            raise RuntimeError(f"not accepted: {answer.status} {told}")
        return str(told["id"])


def client_of(settings: Settings) -> aiohttp.ClientSession:
    """Somebody who asks the gateway, over as many connections as there are questions."""
    connector = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(address(settings), connector=connector, timeout=aiohttp.ClientTimeout(PATIENCE_S))


# -- streams -------------------------------------------------------------------------------------------------


def streams(count: int, rounds: int, prompt: str) -> list[Streams]:
    """Follow so many prompts at once, end them all, and see that every stream tells it; again and again."""
    with gateway_over("no") as (settings, process):
        return [asyncio.run(_streams(settings, process, count, prompt)) for _ in range(rounds)]


async def _streams(settings: Settings, process: psutil.Process, count: int, prompt: str) -> Streams:
    async with client_of(settings) as session:
        ids = [await _publish(session, prompt) for _ in range(count)]
        before = _mib(process)
        opened = asyncio.Semaphore(0)
        following = [asyncio.create_task(_follow(session, each, opened)) for each in ids]
        for _ in ids:
            await asyncio.wait_for(opened.acquire(), PATIENCE_S)
        held = _mib(process)
        began = time.perf_counter()
        cancelling = asyncio.create_task(asyncio.to_thread(_cancel, settings, ids))
        told = await asyncio.wait_for(asyncio.gather(*following), PATIENCE_S)
        told_s = time.perf_counter() - began
        await cancelling
        if told != ["settled"] * count:
            raise RuntimeError(f"only {told.count('settled')} of {count} streams told the end")
    return Streams(before, held, _mib(process), told_s)


async def _follow(session: aiohttp.ClientSession, job_id: str, opened: asyncio.Semaphore) -> str:
    async with session.get(f"/v1/jobs/{job_id}/events") as answer:
        opened.release()
        return (await answer.content.readline()).decode().removeprefix("event: ").strip()


def _cancel(settings: Settings, ids: Sequence[str]) -> None:
    broker = Broker(settings)
    for each in ids:
        broker.cancel(each)
    broker.close()


def _mib(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 2**20


# -- the detour ----------------------------------------------------------------------------------------------


def detour(durability: str, prompts: int, prompt: str) -> float:
    """Milliseconds that gateway and both hops add until the heavy picture is returned, one prompt at a time; median."""
    with gateway_over(durability) as (settings, _):
        broker = Broker(settings)
        slots = {f"bench:{number}": stage for number, stage in enumerate(STAGES)}
        plan = Plan("bench", 1.0, 1, 1, 1, 1, 1e-6, 1e-6, version=1, assignment=slots)
        broker.hold(broker.keys.leader("control"), "bench")
        broker.put_plan(plan, View(0.0, (), ()), "bench")
        workers = [
            started(run_worker, settings, number, stage, OnePicture(stage)) for number, stage in enumerate(STAGES)
        ]
        try:
            taken_s = asyncio.run(_drawn(settings, prompts, prompt))
        finally:
            end_all(workers)
        broker.close()
    return (median(taken_s) - _directly_s(prompt)) * 1e3


async def _drawn(settings: Settings, prompts: int, prompt: str) -> list[float]:
    """Seconds from a request to its heavy picture, the first few left out."""
    taken: list[float] = []
    async with client_of(settings) as session:
        for _ in range(prompts + 5):
            began = time.perf_counter()
            async with session.post("/v1/images/generations", json={"prompt": prompt}) as answer:
                told: Any = await answer.json()
            taken.append(time.perf_counter() - began)
            if answer.status != 200 or told["data"][0]["stage"] != "heavy":
                raise RuntimeError(f"no heavy picture: {answer.status} {told}"[:300])
    return taken[5:]


def _directly_s(prompt: str) -> float:
    """Seconds for both models called as functions."""
    job, models = Job("direct", prompt, 0.0, 0.0), [OnePicture(stage) for stage in STAGES]
    began = time.perf_counter()
    for model in models:
        model.draw([job])
    return time.perf_counter() - began


@contextmanager
def gateway_over(
    durability: str, before: Callable[[Broker], None] = Broker.check
) -> Iterator[tuple[Settings, psutil.Process]]:
    """A gateway on one core over a Redis of its own, with no other service. `before`: what is done before it starts."""
    cores = os.sched_getaffinity(0)
    with (
        tempfile.TemporaryDirectory(prefix="cascade-") as folder,
        EmbeddedRedis(Path(folder), durability=durability) as redis,
    ):
        settings = Settings(redis_url=redis.url, deployment="bench", node="bench", http_port=free_port())
        settings = settings.model_copy(update={"deadline_s": LONG_S})
        before(Broker(settings))
        command = [sys.executable, "-m", "services.gateway"]
        environment = {**os.environ, **environment_of(settings)}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, preexec_fn=die_with_parent)
        try:
            asyncio.run(_until_it_lives(settings, process))
            on_one_core(psutil.Process(process.pid))
            yield settings, psutil.Process(process.pid)
        finally:
            os.sched_setaffinity(0, cores)
            process.terminate()
            process.wait()


async def _until_it_lives(settings: Settings, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE_S
    async with client_of(settings) as session:
        while True:
            try:
                async with session.get("/healthz"):
                    return
            except aiohttp.ClientConnectionError:
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError("the gateway did not start") from None
                await asyncio.sleep(0.05)
