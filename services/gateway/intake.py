"""Offers prompts to Redis from one thread: as many in a call as have gathered while it was busy with the last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Final

from shared.broker import Broker
from shared.connection import Away, CommandRefused, Unreachable
from shared.door import Door
from shared.exchange import Publication, Receipt
from shared.messages import REQUEST, Job
from shared.wire import check_offer

AT_ONCE: Final = 64  # prompts in one call to the door
MOST_WAITING: Final = 2_000  # offers on their way to Redis; more would be late before they are made
BUSY_RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Offer:
    job: Job
    allowance_s: float
    came: float
    answer: asyncio.Future[Receipt]


class Intake:
    """The one way by which prompts of this process enter."""

    def __init__(self, broker: Broker, give_up: Callable[[str], object]) -> None:
        """`give_up` is told, in the loop, of a prompt that came in when nobody waited for it any more."""
        self._broker = broker
        self._give_up = give_up
        self._door = Door(broker.plan)
        self._waiting: SimpleQueue[_Offer | None] = SimpleQueue()
        self._open = 0
        self._thread = Thread(target=self._run, name="intake", daemon=True)
        self._loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        """Begin; inside the loop that will offer."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Offer what still waits, then end; blocks until then."""
        self._waiting.put(None)
        self._thread.join()

    async def offer(self, job: Job, allowance_s: float) -> Receipt:
        """Offer one prompt; `job.route` "cascade" lets the plan send it straight to heavy.

        Refused with why `busy`, unseen by Redis, while too many offers are on their way. Raises MalformedEntry,
        CommandRefused, or one of Unreachable; after the last of these the prompt may have been published all the same.
        Who is cancelled while he waits leaves nothing behind: what came in is given up, unless its request can be
        repeated by an Idempotency-Key.
        """
        check_offer(job.wire(stamped=False), job.parameters, allowance_s)
        if self._open >= MOST_WAITING:
            return Receipt(job.id, "refused", retry_after_s=BUSY_RETRY_S, why="busy")
        self._open += 1
        answer: asyncio.Future[Receipt] = self._loop.create_future()
        self._waiting.put(_Offer(job, allowance_s, time.monotonic(), answer))
        return await answer

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            offers = [first]
            while len(offers) < AT_ONCE:
                try:
                    more = self._waiting.get_nowait()
                except Empty:
                    break
                if more is None:
                    self._waiting.put(None)
                    break
                offers.append(more)
            wanted = [offer for offer in offers if not offer.answer.cancelled()]
            answers = self._published(wanted)
            self._loop.call_soon_threadsafe(self._answer, wanted, answers, len(offers))

    def _published(self, offers: Sequence[_Offer]) -> Sequence[Receipt | Exception]:
        try:
            return self._publish(offers) if offers else []
        except CommandRefused as refused:
            if len(offers) == 1:
                return [refused]
            # One prompt's trouble must not cost its neighbours theirs.
            return [self._published([offer])[0] for offer in offers]
        except Unreachable as away:
            return [away] * len(offers)
        except Exception as wrong:  # noqa: BLE001 (the edge: this thread must outlive whatever one call raises)
            return [wrong] * len(offers)

    def _publish(self, offers: Sequence[_Offer]) -> Sequence[Receipt]:
        jobs = [self._routed(offer.job) for offer in offers]
        now = time.monotonic()
        publications = [
            Publication(job, offer.allowance_s, now - offer.came) for job, offer in zip(jobs, offers, strict=True)
        ]
        try:
            return self._broker.publish(publications)
        except Away:
            # It answered "not now" and did nothing; its successor may take them. After a line that broke nobody knows
            # whether the script ran, and what it refused would be counted twice.
            return self._broker.publish(publications)

    def _routed(self, job: Job) -> Job:
        return job if job.route != "cascade" else replace(job, route=self._door.route(job.prompt, job.id))

    def _answer(self, offers: Sequence[_Offer], answers: Sequence[Receipt | Exception], taken: int) -> None:
        self._open -= taken
        for offer, answer in zip(offers, answers, strict=True):
            if offer.answer.cancelled():
                if REQUEST not in offer.job.extra and not _refused(answer):
                    self._give_up(offer.job.id)
            elif isinstance(answer, Exception):
                offer.answer.set_exception(answer)
            else:
                offer.answer.set_result(answer)


def _refused(answer: Receipt | Exception) -> bool:
    return isinstance(answer, Receipt) and answer.status == "refused"
