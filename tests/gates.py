"""A gateway inside the test's process: the real application on a real port, over a test's deployment."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import uvicorn
from fastapi import FastAPI

from services.gateway.__main__ import config_of
from services.gateway.app import make_app
from services.gateway.desk import Desk
from shared.broker import Broker
from shared.catalog import load_cascade
from shared.config import Settings

PATIENCE_S = 30.0
T = TypeVar("T")


@dataclass(frozen=True)
class Gate:
    """A gateway that answers."""

    url: str
    app: FastAPI

    @property
    def desk(self) -> Desk:
        desk: Desk = self.app.state.desk
        return desk

    def client(self, **options: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE_S, headers=options)


class _Quiet(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # a thread can catch none


@contextmanager
def gate(settings: Settings) -> Iterator[Gate]:
    """A gateway of its own, on a port that was free; ended in the end."""
    app = make_app(settings, with_page=False)  # several may live in this process
    server = _Quiet(config_of(settings.model_copy(update={"http_port": 0, "grace_s": 1.0}), app))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        end = time.monotonic() + PATIENCE_S
        while not server.started:
            assert thread.is_alive() and time.monotonic() < end, "the gateway did not start"
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Gate(f"http://127.0.0.1:{port}", app)
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)


def gate_of(broker: Broker, **given: object) -> Settings:
    """Settings of a gateway over a test's deployment."""
    return broker.settings.model_copy(update={"cascade": "tiny", "deadline_s": 20.0, **given})


def patiently(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, PATIENCE_S))


@asynccontextmanager
async def desk_over(broker: Broker) -> AsyncIterator[Desk]:
    desk = Desk(gate_of(broker), load_cascade("tiny"))
    await desk.start()
    try:
        yield desk
    finally:
        await desk.stop()
