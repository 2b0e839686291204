"""Settles a drawn batch in a thread of its own while the model draws the next: no GPU waits for WebP or for Redis.

    draw 1 ──> draw 2 ──> draw 3
          └─ encode, commit 1 ─┘      one batch at most is being settled

What is settled here stays in the lease's hands until it is done. What goes wrong is raised in the worker's own thread,
when it asks next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from services.lease import Lease
from shared.messages import Entry


class Unsettled(Exception):
    """Settling failed for a reason that is the batch's own: `wrong`, in the hands still `entries`."""

    def __init__(self, entries: Sequence[Entry], wrong: Exception) -> None:
        super().__init__(str(wrong))
        self.entries = entries
        self.wrong = wrong


class Finishing:
    """The batch that is drawn and not yet settled, if there is one."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._pool = ThreadPoolExecutor(1, "finishing")
        self._under_way: Future[None] | None = None

    def begin(self, entries: Sequence[Entry], settle: Callable[[], None]) -> None:
        """Settle these meanwhile, once those before are; raises what `wait` raises."""
        self.wait()
        self._lease.settle(entries)
        self._under_way = self._pool.submit(self._run, settle)

    def wait(self) -> None:
        """Until nothing is being settled; raises Unsettled, Unreachable, CommandRefused, whatever `settle` raised."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def _run(self, settle: Callable[[], None]) -> None:
        try:
            settle()
        finally:
            self._lease.settle(())
