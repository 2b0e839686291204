"""The prompts of one request: offered together, awaited together, given up together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Final

from fastapi import Header

from services.gateway.callers import Caller
from services.gateway.desk import Desk
from services.gateway.errors import ApiError, refused, unanswered
from services.gateway.following import Event
from services.gateway.requests import LONGEST_NAME, Wish, request_id
from shared.exchange import Receipt
from shared.messages import REQUEST, Job
from shared.spans import parent_fields

# The keeper ends every prompt by its deadline. Where none runs, a request must not wait for ever.
KEEPER_S: Final = 10.0
COMPARE_AGAIN_S: Final = 1.0
KEY: Final = "Idempotency-Key"

# What a client may say of a request beside its body.
IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=255, description="a repetition finds what became of the first request"),
]
Traceparent = Annotated[
    str | None, Header(max_length=LONGEST_NAME, description="the caller's span, as the W3C writes it")
]


class Series:
    """Prompts of one request. With an Idempotency-Key their ids come of it, so that they may be known already."""

    def __init__(
        self, desk: Desk, wish: Wish, caller: Caller, idempotency_key: str | None, traceparent: str | None
    ) -> None:
        """Raises what `Wish.jobs` raises, and ApiError 429 where the caller's rate is used up."""
        first = request_id(caller, idempotency_key)
        ids = [first if place == 0 else f"{first}-{place}" for place in range(wish.count)]
        keyed = {REQUEST: wish.fingerprint().encode()} if idempotency_key else {}
        self.jobs = wish.jobs(ids, caller, desk.cascade, {**keyed, **parent_fields(traceparent)})
        caller.charge(len(self.jobs))
        self._desk = desk
        self._allowance_s = wish.deadline_s or desk.deadline_s
        self._keyed = bool(keyed)
        self._leaving: set[asyncio.Task[None]] = set()

    async def publish(self) -> list[Receipt]:
        """Offer them all; raises ApiError 429 where one is refused, 422 where the key was another request's, 409 where
        that can't be told now, and what `Desk.publish` raises.

        Of a request that is refused none is drawn, but those with a key that came in: its repetition finds them.
        """
        known_by = 1 if self._keyed else len(self.jobs)
        receipts = await self._offer(self.jobs[:known_by])
        if self._keyed and receipts[0].status == "known":
            await self._compare(self.jobs[0])
        receipts += await self._offer(self.jobs[known_by:])
        wrong = [each for each in receipts if each.status == "refused"]
        if wrong:
            if len(wrong) < len(receipts):
                await self.give_up()
            raise refused(max(wrong, key=lambda each: each.retry_after_s))
        return receipts

    async def _offer(self, jobs: Sequence[Job]) -> list[Receipt]:
        offers = (self._desk.publish(job, self._allowance_s) for job in jobs)
        answers = await asyncio.gather(*offers, return_exceptions=True)
        receipts = [each for each in answers if isinstance(each, Receipt)]
        if len(receipts) < len(answers):
            self.give_up_soon()  # after Unreachable one may have come in all the same
            raise next(each for each in answers if isinstance(each, BaseException))
        return receipts

    async def _compare(self, job: Job) -> None:
        look = await self._desk.look(job.id)
        if look is None or not look.request:
            message = "what the first request with this Idempotency-Key asked for can't be read now"
            raise ApiError(409, message, code="idempotency_unknown", param=KEY, retry_after_s=COMPARE_AGAIN_S)
        if look.request != job.extra[REQUEST].decode():
            message = "this Idempotency-Key came with another request before"
            raise ApiError(422, message, code="idempotency_key_reused", param=KEY)

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """What happens to each, with its place, until all have ended; raises the ApiError of one that failed.

        Who stops listening before gives them all up.
        """
        heard: asyncio.Queue[tuple[int, Event | Exception]] = asyncio.Queue()
        tasks = [asyncio.create_task(self._hear(place, heard)) for place in range(len(self.jobs))]
        ends_at = asyncio.get_running_loop().time() + self._allowance_s + KEEPER_S
        waiting = len(tasks)
        try:
            while waiting:
                place, event = await self._next(heard, ends_at)
                if isinstance(event, Exception):
                    raise event
                if event.kind == "settled":
                    waiting -= 1
                    await self._check(event)
                yield place, event
        finally:
            for task in tasks:
                task.cancel()
            if waiting:  # one failed, or nobody listens any more: the others are in vain
                self.give_up_soon()

    async def _hear(self, place: int, heard: asyncio.Queue[tuple[int, Event | Exception]]) -> None:
        try:
            async for event in self._desk.follow(self.jobs[place].id):
                heard.put_nowait((place, event))
                if event.kind == "settled":
                    return
        except Exception as wrong:  # noqa: BLE001 (handed over to whoever waits for the events)
            heard.put_nowait((place, wrong))
            return
        message = f"the gateway stops; the prompt goes on: GET /v1/jobs/{self.jobs[place].id}"
        heard.put_nowait((place, ApiError(503, message, code="stopping", retry_after_s=1.0)))

    async def _next(
        self, heard: asyncio.Queue[tuple[int, Event | Exception]], ends_at: float
    ) -> tuple[int, Event | Exception]:
        left_s = ends_at - asyncio.get_running_loop().time()
        try:
            return await asyncio.wait_for(heard.get(), max(0.0, left_s))
        except TimeoutError:
            message = "the deadline has passed and nobody ended the prompt: is the keeper running?"
            raise ApiError(504, message, code="unsettled", again=False) from None

    async def _check(self, event: Event) -> None:
        if event.end is None or event.end in ("light", "heavy"):
            return
        look = await self._desk.look(event.id) if event.end == "failed" else None
        raise unanswered(event.end, event.why, look.reason if look else "")

    async def give_up(self) -> None:
        """End those still open, for nobody waits for them; but not of a request that may be repeated by its key."""
        if not self._keyed:
            await asyncio.gather(*(self._desk.cancel(job.id) for job in self.jobs), return_exceptions=True)

    def give_up_soon(self) -> None:
        """As `give_up`, from where nothing can be awaited any more."""
        task = asyncio.get_running_loop().create_task(self.give_up())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
