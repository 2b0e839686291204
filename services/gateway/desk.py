"""The desk between HTTP and Redis: what the gateway's requests ask of the pipeline, without blocking its loop.

    offers   ── intake, one thread, many prompts a call ──> Redis
    streams  <── follower, one thread, one blocking read ── {d}:events
    all else <── a small pool of threads ─────────────────> Redis

Redis is reached through the synchronous Broker from these few threads; no client has a thread or a connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from services.gateway.following import Event, Follower
from services.gateway.intake import Intake
from shared.broker import Broker
from shared.catalog import Cascade
from shared.config import Settings
from shared.connection import CommandRefused, Unreachable
from shared.exchange import Cancellation, Receipt
from shared.lookup import Look, Lookup
from shared.messages import Job
from shared.observer import Observer
from shared.schema import Stage

__all__ = ["Desk", "Event", "Look"]

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")

POOL: Final = 4  # threads for look-ups and pictures: each waits for Redis most of the time
BEST_FIRST: Final[tuple[Stage, ...]] = ("heavy", "light")


class Desk:
    """One per gateway; start and stop it inside the event loop that uses it."""

    def __init__(self, settings: Settings, cascade: Cascade) -> None:
        self.settings = settings
        self.cascade = cascade
        self.deadline_s = settings.deadline_s or cascade.deadline_s
        self.broker = Broker(settings)
        self.observer = Observer(self.broker)
        self.logger = logging.getLogger("cascade")
        self._lookup = Lookup(self.broker)
        self._pool = ThreadPoolExecutor(POOL, thread_name_prefix="desk")
        self._intake = Intake(self.broker, lambda prompt_id: self._pool.submit(self._cancel_quietly, prompt_id))
        self._follower = Follower(self.observer, self._look_for_followers, self.logger)

    async def start(self) -> None:
        """Begin to offer and to follow."""
        self._intake.start()
        self._follower.start()

    async def stop(self) -> None:
        """Offer what was taken in, and end all threads."""
        self._follower.end_all()
        loop = asyncio.get_running_loop()
        await asyncio.gather(
            loop.run_in_executor(None, self._intake.stop), loop.run_in_executor(None, self._follower.stop)
        )
        await loop.run_in_executor(None, self._pool.shutdown)
        self.broker.close()

    def end_streams(self) -> None:
        """Let nobody wait any longer: open `follow`s end, without `settled`, and new ones tell what has happened."""
        self._follower.end_all()

    @property
    def followers(self) -> int:
        """How many iterations of `follow` are open."""
        return self._follower.followers

    async def ask(self, function: Callable[Asked, Answer], *arguments: Asked.args, **named: Asked.kwargs) -> Answer:
        """Run a function that waits for Redis in the pool; raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*arguments, **named))

    async def publish(self, job: Job, allowance_s: float) -> Receipt:
        """Offer one prompt; see Intake.offer."""
        return await self._intake.offer(job, allowance_s)

    async def cancel(self, prompt_id: str) -> Cancellation:
        """End an open prompt as cancelled, wherever it is."""
        return await self.ask(self.broker.cancel, prompt_id)

    def _cancel_quietly(self, prompt_id: str) -> None:
        try:
            self.broker.cancel(prompt_id)
        except (*Unreachable, CommandRefused) as wrong:
            self.logger.warning("a prompt is drawn for nobody", extra={"prompt": prompt_id, "reason": str(wrong)})

    async def look(self, prompt_id: str) -> Look | None:
        """A prompt as it stands, with its place in the queue; None for one that nobody knows."""
        return await self.ask(self._lookup.look, prompt_id, place=True)

    async def _look_for_followers(self, prompt_id: str) -> Look | None:
        return await self.ask(self._lookup.look, prompt_id)

    def follow(self, prompt_id: str) -> AsyncIterator[Event]:
        """What happened and what happens to a prompt, each once; see Follower.follow."""
        return self._follower.follow(prompt_id)

    async def picture(self, prompt_id: str, stage: Stage | None = None) -> bytes | None:
        """An encoded picture, of the best stage that has one unless one is named; None where it is gone."""
        wanted = [(prompt_id, each) for each in ([stage] if stage else BEST_FIRST)]
        found = await self.ask(self.observer.images, wanted)
        return next((picture for picture in found if picture is not None), None)
