"""Settles a drawn batch in a thread of its own while the model draws the next: no GPU waits for WebP or for Redis.

    draw 1 ──> draw 2 ──> draw 3
          └─ encode, commit 1 ─┘      one batch at most is being settled

What is settled here stays in the lease's hands until it is done. A Redis that is away for a moment is waited for: the
pictures are drawn. What goes wrong for longer is raised in the worker's own thread, when it asks next; an encoder that
never comes back is the watchdog's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Final

from services.lease import Lease
from services.watchdog import Watchdog
from shared.connection import CommandRefused, Unreachable
from shared.exchange import Hop
from shared.messages import Entry

PATIENCE_S: Final = 5.0  # a Redis that restarts is back by then
PAUSE_S: Final = 0.1


class Unsettled(Exception):
    """A batch could not be encoded: `wrong`, in the hands still `entries`."""

    def __init__(self, entries: Sequence[Entry], wrong: Exception) -> None:
        super().__init__(str(wrong))
        self.entries = entries
        self.wrong = wrong


class Finishing:
    """The batch that is drawn and not yet settled, if there is one."""

    def __init__(self, lease: Lease, watchdog: Watchdog | None = None) -> None:
        self._lease = lease
        self._watchdog = watchdog
        self._pool = ThreadPoolExecutor(1, "finishing")
        self._entries: Sequence[Entry] = ()
        self._encoded: Future[list[Hop]] | None = None
        self._settled: Future[None] | None = None

    def begin(
        self, entries: Sequence[Entry], encode: Callable[[], list[Hop]], commit: Callable[[list[Hop]], None]
    ) -> None:
        """Settle these meanwhile; what is being settled must have been waited for."""
        self._lease.settle(entries)
        self._entries = entries
        encoded = self._encoded = self._pool.submit(encode)
        self._settled = self._pool.submit(self._settle, encoded, commit)

    def wait(self) -> None:
        """Until nothing is being settled; raises Unsettled, and Unreachable or CommandRefused of the commit."""
        encoded, settled, entries = self._encoded, self._settled, self._entries
        self._encoded, self._settled, self._entries = None, None, ()
        if encoded is None or settled is None:
            return
        # As long as a batch may take at least; the commit after it has its own patience.
        with self._watchdog.over(entries, 0.0, 0.0) if self._watchdog else nullcontext():
            wrong = encoded.exception()
        if isinstance(wrong, Exception):
            raise Unsettled(entries, wrong) from wrong
        settled.result()

    def _settle(self, encoded: Future[list[Hop]], commit: Callable[[list[Hop]], None]) -> None:
        try:
            if encoded.exception() is None:
                _patiently(lambda: commit(encoded.result()))
        finally:
            self._lease.settle(())


def _patiently(commit: Callable[[], None]) -> None:
    """Commit again while Redis does not take it, but not for ever: a script that went through finds nothing to do."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return commit()
        except (*Unreachable, CommandRefused):
            if time.monotonic() >= end:
                raise
        time.sleep(PAUSE_S)
