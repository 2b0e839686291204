"""Offers prompts at a rate, open loop, and remembers what the door said of each."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from shared.broker import Broker
from shared.connection import CommandRefused, Unreachable
from shared.exchange import Publication
from shared.messages import Job, Route

AT_ONCE: Final = 64  # prompts in one call to the door
RETRY_S: Final = 0.1
PROMPTS: Final = ("a cat", "a dog on the moon", "an astronaut riding a horse")


@dataclass(frozen=True, slots=True)
class Offer:
    """What is offered: prompts/s in the mean, seconds promised, the share sent straight to heavy, and the texts.

    `spoils`: faults that a faulty backend does to itself when a prompt asks for them; `spoilt`: the share that does.
    """

    per_s: float
    allowance_s: float
    direct: float = 0.0
    prompts: Sequence[str] = PROMPTS
    spoils: Sequence[str] = ()
    spoilt: float = 0.0


class Offering(threading.Thread):
    """A publisher that goes on until told to stop; `said` holds what the door said, by id.

    While Redis is away it offers the same ids again: the door knows those that came through. An id is in `said`
    once it was answered, and only then counts as offered.
    """

    def __init__(self, broker: Broker, offer: Offer, seed: int = 0) -> None:
        super().__init__(name="offering", daemon=True)
        self.said: dict[str, str] = {}
        self.spoilt: dict[str, str] = {}  # id -> the fault it asks for
        self._broker = broker
        self._offer = offer
        self._draw = random.Random(seed)
        self._stop_asked = threading.Event()
        self._number = 0

    def run(self) -> None:
        """Offer each prompt at its time."""
        began, due = time.monotonic(), 0.0
        waiting: list[tuple[float, Job]] = []
        while not self._stop_asked.is_set():
            now = time.monotonic() - began
            while due <= now:
                waiting.append((due, self._job()))
                due += self._draw.expovariate(self._offer.per_s)
            while waiting and self._take(waiting[:AT_ONCE], began):
                del waiting[:AT_ONCE]
            self._stop_asked.wait(RETRY_S if waiting else max(0.001, due - (time.monotonic() - began)))

    def stop(self) -> None:
        """Offer nothing more; returns when the last call is answered."""
        self._stop_asked.set()
        self.join()

    @property
    def accepted(self) -> set[str]:
        """The ids that the door took: each must end once."""
        return {prompt_id for prompt_id, status in self.said.items() if status != "refused"}

    @property
    def refused(self) -> int:
        """Prompts that the door refused."""
        return len(self.said) - len(self.accepted)

    def _take(self, group: Sequence[tuple[float, Job]], began: float) -> bool:
        now = time.monotonic() - began
        offers = [Publication(job, self._offer.allowance_s, now - due) for due, job in group]
        try:
            receipts = self._broker.publish(offers)
        except (*Unreachable, CommandRefused):
            return False
        self.said |= {receipt.id: receipt.status for receipt in receipts}
        return True

    def _job(self) -> Job:
        number, offer = self._number, self._offer
        self._number += 1
        route: Route = "heavy" if self._draw.random() < offer.direct else "cascade"
        text = offer.prompts[number % len(offer.prompts)]
        prompt_id = f"c{number}"
        parameters: dict[str, Any] = {"index": number % 5000}
        if offer.spoils and self._draw.random() < offer.spoilt:
            self.spoilt[prompt_id] = parameters["fault"] = offer.spoils[len(self.spoilt) % len(offer.spoils)]
        return Job(prompt_id, text, 0.0, 0.0, seed=number, route=route, parameters=parameters)
