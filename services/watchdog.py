"""Ends a worker's process when its batch hangs, or would outlast the grace time of a worker told to stop.

Drawing can't be interrupted from within: a kernel that never returns ends with its process only. Before that,
over a connection of its own, the watchdog hands back what the worker holds, or settles the prompt that hung alone.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from logging import Logger
from typing import Final

from services.lease import Lease
from shared.broker import Broker
from shared.config import Settings
from shared.connection import CommandRefused, Unreachable
from shared.exchange import Hop
from shared.messages import Entry
from shared.process import Stop
from shared.schema import Stage

HANG_FACTOR: Final = 5.0  # times the profiled 95th percentile
LOOK_S: Final = 0.1
# A hang that holds the interpreter's lock stops this thread too; then a timer outside of Python ends the process.
LAST_RESORT_S: Final = 10.0
PARTING_S: Final = 1.0  # of the grace time, for handing back
HUNG, DRAINED = 70, 0  # exit codes
STANDARD_ERROR: Final = 2


@dataclass(slots=True)
class _Batch:
    """What is being drawn: `expected_s` as measured, `limit_s` from where on it hangs; `spent_s` so far."""

    entries: Sequence[Entry]
    expected_s: float
    limit_s: float
    spent_s: float = 0.0
    looked: float = 0.0


class Watchdog:
    """Watches one batch at a time; between batches it sleeps."""

    def __init__(
        self,
        settings: Settings,
        stage: Stage,
        lease: Lease,
        stop: Stop,
        logger: Logger,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._settings = settings
        self._stage = stage
        self._lease = lease
        self._stop = stop
        self._stopped: float | None = None
        self._logger = logger
        self._end = end
        self._drawing = threading.get_ident()
        self._batch: _Batch | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    @contextmanager
    def over(self, entries: Sequence[Entry], expected_s: float, slow_s: float) -> Iterator[None]:
        """Watch a batch while it is drawn. `slow_s`: its profiled 95th percentile.

        Once the watchdog has decided to end the process, the block is not left any more.
        """
        limit_s = max(self._settings.hang_s, HANG_FACTOR * slow_s)
        faulthandler.dump_traceback_later(2 * limit_s + LAST_RESORT_S, exit=True, file=STANDARD_ERROR)
        with self._changed:
            self._drawing = threading.get_ident()
            self._batch = _Batch(entries, expected_s, limit_s, looked=time.monotonic())
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._batch = None
            faulthandler.cancel_dump_traceback_later()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._batch is not None)
                assert self._batch is not None
                self._look(self._batch)
            time.sleep(LOOK_S)

    def _look(self, batch: _Batch) -> None:
        now = time.monotonic()
        # Time in which the whole process was stopped is not time in which it hung.
        batch.spent_s += min(now - batch.looked, 10 * LOOK_S)
        batch.looked = now
        if batch.spent_s > batch.limit_s:
            self._part(HUNG, lambda broker: self._settle_hang(broker, batch))
        elif self._stop:
            self._stopped = self._stopped or now
            end = self._stopped + self._settings.grace_s - PARTING_S
            if now >= end or now + batch.expected_s - batch.spent_s > end:
                self._logger.info("the batch would outlast the grace time: handed back")
                self._part(DRAINED, lambda _: None)

    def _settle_hang(self, broker: Broker, batch: _Batch) -> None:
        where = self._where()
        ids = [entry.job.id for entry in batch.entries]
        reason = f"drawing hung for {batch.spent_s:.0f} s"
        self._logger.error("a batch hangs", extra={"prompts": ids, "spent_s": batch.spent_s, "traceback": where})
        if len(batch.entries) != 1:  # none: the model hung without a prompt
            broker.hand_back(self._stage, self._lease.consumer, batch.entries, suspect=True)
            return
        hop = Hop.spoilt(batch.entries[0], "hang", reason, where)
        broker.commit(self._stage, self._lease.consumer, [hop])

    def _where(self) -> str:
        """The last lines of where the drawing thread stands."""
        frame = sys._current_frames().get(self._drawing)
        return "".join(traceback.format_stack(frame)[-4:]) if frame else ""

    def _part(self, code: int, settle: Callable[[Broker], None]) -> None:
        """Give back all that this process holds, and end it."""
        try:
            broker = Broker(self._settings)
            settle(broker)
            broker.hand_back_all(self._stage, self._lease.consumer)
            broker.bury(self._stage, self._lease.consumer, self._lease.slot_key)
        except (*Unreachable, CommandRefused) as wrong:  # the agent, or the lease's end, will do it
            self._logger.warning("redis is away", extra={"reason": str(wrong)})
        finally:
            self._end(code)
