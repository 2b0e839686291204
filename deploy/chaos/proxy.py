"""A small proxy before Redis whose connections can be cut, delayed, or left half-open.

Half-open is what a host that vanished leaves behind: this side's connections look alive and no byte arrives. When
the network is back, who sends on such a connection learns that it is gone; who only waits is never told.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

Mode = Literal["open", "cut", "half-open"]
PATIENCE_S: Final = 10.0


class Link:
    """One connection of a client, and its way on to Redis unless that was lost."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter | None) -> None:
        self.client = client
        self.server = server
        self.sent_in_vain = False

    @property
    def severed(self) -> bool:
        """Whether the way to Redis is gone without the client knowing."""
        return self.server is None

    def close(self) -> None:
        """Both sides learn that the connection is gone."""
        self.sever()
        self.client.close()

    def sever(self) -> None:
        """Only Redis learns it."""
        if self.server is not None:
            self.server.close()
            self.server = None


class Proxy:
    """A port on the loopback that leads to a unix socket; ended when the block is left."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._mode: Mode = "open"
        self._delay_s = 0.0
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._listening.wait(PATIENCE_S):
            raise TimeoutError("the proxy does not listen")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)

    @property
    def url(self) -> str:
        """The address that leads through this proxy."""
        return f"redis://127.0.0.1:{self._port}/0"

    def cut(self) -> None:
        """Close every connection, and every new one at once."""
        self._soon(lambda: self._enter("cut", Link.close))

    def half_open(self) -> None:
        """Swallow all bytes; nobody on this side is told."""
        self._soon(lambda: self._enter("half-open", Link.sever))

    def delay(self, seconds: float) -> None:
        """Every piece of every connection comes so much later, either way."""
        self._delay_s = seconds

    def heal(self) -> None:
        """Carry bytes again."""
        self._delay_s = 0.0
        self._soon(lambda: self._enter("open", _tell_who_sent))

    def _soon(self, act: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(act)

    def _enter(self, mode: Mode, act: Callable[[Link], None]) -> None:
        self._mode = mode
        for link in list(self._links):
            act(link)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self._port = server.sockets[0].getsockname()[1]
        self._listening.set()
        self._loop.run_forever()
        server.close()
        for link in list(self._links):
            link.close()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode == "cut":
            writer.close()
            return
        link = Link(writer, None)
        if self._mode == "open":
            try:
                answers, link.server = await asyncio.open_unix_connection(str(self._target))
            except OSError:  # Redis is away
                writer.close()
                return
            self._start(self._backward(answers, link))
        self._links.add(link)
        self._start(self._forward(reader, link))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, reader: asyncio.StreamReader, link: Link) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await asyncio.sleep(self._delay_s)
                if link.server is not None:
                    link.server.write(data)
                    await link.server.drain()
                elif self._mode == "half-open":
                    link.sent_in_vain = True
                else:
                    break
        self._links.discard(link)
        link.close()

    async def _backward(self, answers: asyncio.StreamReader, link: Link) -> None:
        with suppress(OSError):
            while data := await answers.read(65536):
                await asyncio.sleep(self._delay_s)
                if link.severed:
                    return
                link.client.write(data)
                await link.client.drain()
        if not link.severed:  # Redis hung up
            link.close()


def _tell_who_sent(link: Link) -> None:
    if link.severed and link.sent_in_vain:
        link.close()
