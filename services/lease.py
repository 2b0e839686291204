"""A worker's lease: a thread with its own connection that says, four times a lease, that the worker lives.

It also brings the news from Redis to the worker: that there is a new plan, or that its slot is gone.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from logging import Logger
from typing import Final

from shared.broker import Broker
from shared.config import Settings
from shared.connection import CommandRefused, Unreachable
from shared.incarnation import identity
from shared.messages import Entry
from shared.plans import Slot
from shared.process import Stop, patiently
from shared.schema import Stage

BEATS: Final = 4  # per lease: three may be lost
# So long after it became ready a worker leaves out no beat: a plan that names it is on its way.
NEW_S: Final = 10.0


class Lease:
    """The standing of one worker: its key, its slot's token, the entries in its hands."""

    def __init__(self, settings: Settings, stage: Stage, consumer: str, model: str, logger: Logger) -> None:
        self.consumer = consumer
        self.slot_name = Slot(settings.node, settings.slot, settings.gpu or "").name
        self.changed = threading.Event()  # set when the plan's version changed
        self.plan_version = -1
        self._broker = Broker(settings)
        self.slot_key = self._broker.keys.slot(settings.node, settings.slot)
        self._stage = stage
        self._logger = logger
        self._period_s = settings.lease_s / BEATS
        self._about = {"node": settings.node, "slot": str(settings.slot), "gpu": settings.gpu or ""}
        self._about |= {"stage": stage, "model": model, "ready": "0", "error": "", "pid": str(os.getpid())}
        self._about |= {"consumer": consumer, "process": identity()}
        self._entries: Sequence[Entry] = ()
        self._settling: Sequence[Entry] = ()
        self._unwanted: frozenset[tuple[int, str]] = frozenset()  # places of entries in hand that are not ours any more
        self._holds_slot = False
        self._no_slot_before = 0.0
        self._rests = True
        self._new_until = 0.0
        self._stop = Stop()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def start(self) -> None:
        """Announce the worker and begin to beat; raises ServerUnfit when this Redis cannot carry it."""
        self._broker.check()
        self._broker.announce(self._stage, self.consumer, self._about)
        self._thread.start()

    def describe(self, **about: str) -> None:
        """Change what the worker says of itself."""
        if about.get("ready") == "1":
            self._new_until = time.monotonic() + NEW_S
        self._about |= about
        self._broker.announce(self._stage, self.consumer, self._about)

    def carry(self, entries: Sequence[Entry]) -> None:
        """What the worker has in its hands."""
        self._entries = entries
        self._unwanted = frozenset()

    def settle(self, entries: Sequence[Entry]) -> None:
        """What is drawn and being settled while the worker goes on: it stays ours until then."""
        self._settling = entries

    def abandoned(self, entries: Sequence[Entry]) -> bool:
        """Whether nobody waits for any of these any more, as far as the last beat knew."""
        return all(entry.place in self._unwanted for entry in entries)

    def note_plan(self, version: int) -> None:
        """Remember the newest plan version seen; wakes the worker when it is another one."""
        if version != self.plan_version:
            self.plan_version = version
            self.changed.set()

    def take_slot(self, broker: Broker) -> bool:
        """Hold the slot's token, so that no other process draws on it.

        While Redis is away or stalls, who draws on the slot can't renew its token: it comes first afterwards.
        """
        if self._holds_slot or time.monotonic() < self._no_slot_before:
            return self._holds_slot
        began = time.monotonic()
        try:
            held = broker.hold(self.slot_key, self.consumer)
        except Unreachable:
            self._no_slot_before = time.monotonic() + self._period_s * BEATS / 2
            raise
        if held and time.monotonic() - began > self._period_s:
            self._no_slot_before = time.monotonic() + self._period_s * BEATS / 2
            broker.release(self.slot_key, self.consumer)
            held = False
        self._holds_slot = held
        return held

    def lose_slot(self) -> None:
        """Note that the token has gone to another process."""
        self._holds_slot = False

    def give_up_slot(self, broker: Broker) -> None:
        """Let another process draw on the slot."""
        if self._holds_slot:
            self._holds_slot = False
            broker.release(self.slot_key, self.consumer)

    def end(self, broker: Broker) -> None:
        """Stop beating and forget the worker."""
        self._stop.set()
        self._thread.join(timeout=self._period_s * 2)
        self.give_up_slot(broker)
        broker.retire(self._stage, self.consumer)

    def _run(self) -> None:
        patiently(self._steady_beat, self._stop, self._logger, longest_pause_s=self._period_s)

    def _steady_beat(self) -> float:
        try:
            return self._beat()
        except (*Unreachable, CommandRefused):
            raise
        except Exception:  # the edge: a lease that ends unseen takes the prompts from a worker that lives
            self._logger.exception("a beat failed")
            return self._period_s

    def _beat(self) -> float:
        holds, entries = self._holds_slot, self._entries
        # Who holds no prompt has nothing to lose but its standing, and there may be hundreds of them: they leave out
        # every other beat. But one that has claimed meanwhile, which renewed its lease, must not wait for two.
        held = [*entries, *self._settling]
        self._rests = not (held or self._rests or time.monotonic() < self._new_until)
        if self._rests:
            return self._period_s
        renewal = self._broker.renew(self._stage, self.consumer, self.slot_key, held, holds=holds)
        self.note_plan(renewal.plan_version)
        if not renewal.alive and not self._stop:
            self._logger.warning("the lease had run out", extra={"consumer": self.consumer})
            self._broker.announce(self._stage, self.consumer, self._about)
        if holds and not renewal.holder:
            self.lose_slot()
        self._note_lost([entry for entry in entries if entry.place not in renewal.entries], entries)
        return self._period_s

    def _note_lost(self, lost: Sequence[Entry], entries: Sequence[Entry]) -> None:
        """Remember what was cancelled or went to another; a picture that the keeper overtook may still be stored."""
        if lost:
            awaited = self._broker.upgradable(self.consumer, [entry.job.id for entry in lost])
            if entries is self._entries:
                self._unwanted = frozenset(entry.place for entry in lost if entry.job.id not in awaited)
