"""What open dashboards cost the door, for `deploy.bench`: acknowledgements while so many pages follow a deployment.

A page is what a browser is to the gateway: the page over HTTP, then a socket that takes what is sent and answers pings.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import psutil

from deploy.bench_gateway import client_of, gateway_over, offered
from shared.broker import Broker
from shared.config import Settings
from shared.ledger import percentile
from shared.messages import Job, Visit
from shared.plans import Plan

SOCKET: Final = "/_nicegui_ws/socket.io/"
CLIENT: Final = re.compile(r'client_id["\s\':&#;a-z]+([0-9a-f]{8}-[0-9a-f-]{27})')
SETTLE_S: Final = 3.0
PAST_S: Final = 600  # of outcomes and plans, so that the pages have their time lines full
PAST_PER_S: Final = 30
PAST_PROMPT: Final = "a lighthouse at night"


@dataclass(frozen=True, slots=True)
class Shared:
    """What a gateway does with so many pages open: milliseconds to the acknowledgement, the share of a core it takes
    and the kilobytes a second that a page is sent."""

    pages: int
    p50_ms: float
    p99_ms: float
    core: float
    page_kb_per_s: float


class Counter:
    """Bytes that the pages were sent."""

    def __init__(self) -> None:
        self.bytes = 0


def with_pages(counts: Sequence[int], rate_per_s: float, seconds: float, prompt: str) -> Iterator[Shared]:
    """Acknowledgements offered at a rate, with ever more pages open."""
    for count in counts:
        with gateway_over("no", remember) as (settings, process):
            yield asyncio.run(_shared(settings, process, count, rate_per_s, seconds, prompt))


async def _shared(
    settings: Settings, process: psutil.Process, count: int, rate_per_s: float, seconds: float, prompt: str
) -> Shared:
    sent = Counter()
    await asyncio.sleep(SETTLE_S)  # the history is read
    async with client_of(settings) as client, asyncio.TaskGroup() as group:
        # Each from the start: a page that does not answer is gone after a few seconds.
        following = [group.create_task(follow(await open_page(client), sent)) for _ in range(count)]
        await offered(settings, prompt, rate_per_s, SETTLE_S)
        sent.bytes, used, began = 0, _processor_s(process), time.perf_counter()
        taken_s = await offered(settings, prompt, rate_per_s, seconds)
        passed = time.perf_counter() - began
        core, each = (_processor_s(process) - used) / passed, sent.bytes / max(1, count) / passed / 1000
        for task in following:
            task.cancel()
    return Shared(count, percentile(taken_s, 50) * 1e3, percentile(taken_s, 99) * 1e3, core, each)


def _processor_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def open_page(client: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse:
    """A page whose socket is greeted."""
    async with client.get("/") as answer:
        found = CLIENT.search(await answer.text())
    if found is None:
        raise RuntimeError(f"no page: {answer.status}")
    ids = {name: str(uuid.uuid4()) for name in ("tab_id", "document_id")}
    about = {"client_id": found[1], **ids, "old_tab_id": "", "next_message_id": 0}
    query = {"EIO": "4", "transport": "websocket", **{name: str(value) for name, value in about.items()}}
    socket = await client.ws_connect(SOCKET, params=query, compress=15, max_msg_size=0)
    await socket.receive_str()
    await socket.send_str("40")
    await socket.receive_str()
    await socket.send_str("420" + json.dumps(["handshake", about]))
    while not (told := await socket.receive_str()).startswith("430"):
        pass
    if told != "430[true]":
        raise RuntimeError(f"the page was not let in: {told}")
    return socket


async def follow(socket: aiohttp.ClientWebSocketResponse, sent: Counter) -> None:
    """Take what a page is sent, and answer pings."""
    async for message in socket:
        sent.bytes += len(message.data)
        if message.data == "2":
            await socket.send_str("3")


def remember(broker: Broker) -> None:
    """Leave what ten minutes of drawing leave: a page that shows little costs little."""
    broker.check()
    keys, now = broker.keys, broker.now()
    pipe: Any = broker.client.pipeline(transaction=False)
    with pipe:
        for number in range(PAST_S):
            at = now - PAST_S + number
            plan = Plan("bench", number % 100 / 100, 4, 4, 4, 4, 1.0, 1.0, version=number + 1, demand=30.0)
            if number % 5 == 0:
                pipe.xadd(keys.plans, plan.wire(), id=f"{int(at * 1000)}-0")
            for each in range(PAST_PER_S):
                pipe.xadd(keys.done, _ended(f"{number}-{each}", at, each / PAST_PER_S), id=f"{int(at * 1000)}-{each}")
        pipe.execute()


def _ended(job_id: str, at: float, score: float) -> dict[str, Any]:
    """The fields of an entry of `done`: every third prompt was drawn heavy."""
    visits = [Visit("light", "bench-0-light-x", at - 1.0, at - 0.9, 4, score)]
    if score < 1 / 3:
        visits.append(Visit("heavy", "bench-1-heavy-x", at - 0.9, at, 4))
    job = Job(job_id, PAST_PROMPT, at - 1.0, at + 4.0, visits=tuple(visits))
    end = {"end": visits[-1].stage, "why": "confident" if score >= 1 / 3 else "cascade", "finished": at}
    return {**job.wire(), **end}
