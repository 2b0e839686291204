"""Follows the deployment's events from one thread, and hands each to whoever waits for that prompt."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from logging import Logger
from threading import Event as Flag
from threading import Thread
from typing import Final, Literal, cast

from shared.connection import CommandRefused, Unreachable
from shared.lookup import Look
from shared.messages import End
from shared.observer import Observer, StreamRow

BLOCK_S: Final = 0.25  # also how long an end may take
AT_ONCE: Final = 1_000  # events of one read
# Events are trimmed and a failover may lose some: whoever waits looks for himself after the deadline, and again.
AFTER_DEADLINE_S: Final = 1.0
LOOK_AGAIN_S: Final = 5.0
LONGEST_WAIT_S: Final = 60.0

Kind = Literal["light", "settled", "upgraded"]
KINDS: Final[tuple[Kind, ...]] = ("light", "settled", "upgraded")


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to a prompt: `light` (its light picture is there, and it goes on), `settled`, `upgraded`.

    `score`: of the light picture, where it is known; `end` and `why` are those of a settled one.
    """

    kind: Kind
    id: str
    score: float | None = None
    end: End | None = None
    why: str = ""


def happened(look: Look) -> Iterator[Event]:
    """What has already happened to a prompt, in order."""
    if look.has_light:
        yield Event("light", look.id, look.score)
    if look.end is not None:
        yield Event("settled", look.id, look.score, look.end, look.why)
    if look.upgraded:
        yield Event("upgraded", look.id, look.score)


Message = Literal["look", "end"] | Event


class Follower:
    """One reader of `{d}:events` for all who wait; `look` reads a prompt's state without blocking the loop."""

    def __init__(self, observer: Observer, look: Callable[[str], Awaitable[Look | None]], logger: Logger) -> None:
        self._observer = observer
        self._look = look
        self._logger = logger
        self._waiting: dict[str, list[asyncio.Queue[Message]]] = {}
        self._ended = False
        self._stop = Flag()
        self._thread = Thread(target=self._run, name="events", daemon=True)
        self._loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        """Begin; inside the loop of those who will wait."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """End the thread; blocks until then."""
        self._stop.set()
        self._thread.join()

    def end_all(self) -> None:
        """Let nobody wait any longer: every open iteration ends, and new ones tell only what has happened."""
        self._ended = True
        self._tell_all("end")

    @property
    def followers(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    async def follow(self, prompt_id: str) -> AsyncIterator[Event]:
        """What happened and what happens to a prompt, each once; ends after `settled`, or with `end_all`.

        Nothing for a prompt that nobody knows. Raises one of Unreachable where the first look finds no Redis.
        """
        told: set[Kind] = set()
        with self._listening(prompt_id) as heard:
            look = await self._look(prompt_id)  # after listening began: nothing falls between the two
            while look is not None:
                for event in happened(look):
                    if event.kind not in told:
                        told.add(event.kind)
                        yield event
                if look.end is not None or self._ended:
                    return
                patience_s = min(LONGEST_WAIT_S, max(LOOK_AGAIN_S, look.deadline + AFTER_DEADLINE_S - time.time()))
                async for event in _until_in_doubt(heard, patience_s):
                    if event.kind not in told:
                        told.add(event.kind)
                        yield event
                    if event.kind == "settled":
                        return
                look = await self._again(look)

    async def _again(self, last: Look) -> Look | None:
        try:
            return await self._look(last.id)
        except (*Unreachable, CommandRefused):  # who waits goes on waiting; the thread says when Redis is back
            return last

    @contextmanager
    def _listening(self, prompt_id: str) -> Iterator[asyncio.Queue[Message]]:
        heard: asyncio.Queue[Message] = asyncio.Queue()
        self._waiting.setdefault(prompt_id, []).append(heard)
        try:
            yield heard
        finally:
            others = self._waiting[prompt_id]
            others.remove(heard)
            if not others:
                del self._waiting[prompt_id]

    # -- the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        after, away = "", False
        while not self._stop.is_set():
            try:
                after = after or self._observer.newest(self._observer.keys.events)
                if away:
                    away = False
                    self._loop.call_soon_threadsafe(self._tell_all, "look")
                rows = self._observer.follow(self._observer.keys.events, after, AT_ONCE, BLOCK_S)
            except (*Unreachable, CommandRefused) as wrong:
                if not away:
                    self._logger.warning("events cannot be followed", extra={"reason": str(wrong)})
                away = True
                self._stop.wait(random.uniform(0.1, 0.5))
                continue
            if rows:
                after = rows[-1][0].decode()
                # Whoever comes after this look at who waits, looks at Redis after it: he misses nothing.
                wanted = [event for row in rows if (event := read_event(row)) and event.id in self._waiting]
                if wanted:
                    self._loop.call_soon_threadsafe(self._tell, wanted)

    def _tell(self, events: Sequence[Event]) -> None:
        for event in events:
            for heard in self._waiting.get(event.id, ()):
                heard.put_nowait(event)

    def _tell_all(self, message: Literal["look", "end"]) -> None:
        for queues in self._waiting.values():
            for heard in queues:
                heard.put_nowait(message)


async def _until_in_doubt(heard: asyncio.Queue[Message], patience_s: float) -> AsyncIterator[Event]:
    """Events as they come; ends when it is time to look, or to end."""
    while True:
        try:
            message = await asyncio.wait_for(heard.get(), patience_s)
        except TimeoutError:
            return
        if not isinstance(message, Event):
            return
        yield message


def read_event(row: StreamRow) -> Event | None:
    """An entry of `{d}:events`; None for one that is about no prompt, or written by hand."""
    _, fields = row
    kind = fields.get(b"type", b"").decode(errors="replace")
    if kind not in KINDS or b"id" not in fields:
        return None
    end = fields.get(b"end")
    return Event(
        kind=kind,
        id=fields[b"id"].decode(errors="replace"),
        score=_score(fields.get(b"score")),
        end=None if end is None else cast(End, end.decode(errors="replace")),
        why=fields.get(b"why", b"").decode(errors="replace"),
    )


def _score(text: bytes | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
