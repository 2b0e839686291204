"""What every service's process shares: a stop signal, a patient loop, one line for what a user can mend."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from logging import Logger
from types import FrameType
from typing import Final

from shared.beat import SILENT, Beat
from shared.connection import CommandRefused, Unreachable
from shared.errors import CascadeError, ServerAway

USER_ERROR: Final = 2
SHORTEST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 1.0
_SET_DEATH_SIGNAL: Final = 1  # PR_SET_PDEATHSIG of Linux


class Stop:
    """Set by SIGTERM or SIGINT; loops ask it and sleep on it."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def listen(self) -> Stop:
        """Catch the signals; only in the main thread."""
        signal.signal(signal.SIGTERM, self._caught)
        signal.signal(signal.SIGINT, self._caught)
        # While the main thread is inside a model, Python calls no handler: a thread hears the signal by itself.
        heard, told = os.pipe()
        os.set_blocking(told, False)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        threading.Thread(target=self._hear, args=(heard,), name="signals", daemon=True).start()
        return self

    def set(self) -> None:
        """Ask the loops to end."""
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def sleep(self, seconds: float) -> None:
        """Sleep, unless asked to stop."""
        if seconds > 0:
            self._event.wait(seconds)

    def _hear(self, heard: int) -> None:
        if os.read(heard, 1):
            self._event.set()

    def _caught(self, _signal: int, _frame: FrameType | None) -> None:
        self._event.set()


def patiently(
    step: Callable[[], float],
    stop: Stop,
    logger: Logger,
    longest_pause_s: float = LONGEST_PAUSE_S,
    sleep: Callable[[float], None] | None = None,
    beat: Beat = SILENT,
) -> None:
    """Call `step` again and again, sleeping the seconds it returns; wait with jitter while Redis is away.

    A command that Redis refuses (out of memory, a key of another type) is said and tried again likewise.
    `sleep`: another way to pass these seconds than to wait for `stop`. `beat`: touched by every turn.
    """
    patience = _Patience(stop, logger, longest_pause_s, beat)
    sleep = sleep or stop.sleep
    while not stop:
        try:
            sleep(step())
            patience.renew()
        except (*Unreachable, CommandRefused) as wrong:
            patience.wait(wrong)


def until_done(act: Callable[[], object], stop: Stop, logger: Logger, beat: Beat = SILENT) -> bool:
    """Call `act` until it goes through, with the same patience; False where `stop` was set first.

    A server that is away at the start is waited for likewise; raises ServerUnfit where waiting mends nothing.
    """
    patience = _Patience(stop, logger, LONGEST_PAUSE_S, beat)
    while not stop:
        try:
            act()
            return True
        except (ServerAway, *Unreachable, CommandRefused) as wrong:
            patience.wait(wrong)
    return False


class _Patience:
    """Longer and longer pauses, with jitter: a server that comes back must not meet all its clients at once."""

    def __init__(self, stop: Stop, logger: Logger, longest_s: float, beat: Beat) -> None:
        self._stop = stop
        self._logger = logger
        self._longest_s = longest_s
        self._beat = beat
        self._pause_s = SHORTEST_PAUSE_S

    def renew(self) -> None:
        """Begin with a short pause again."""
        self._pause_s = SHORTEST_PAUSE_S
        self._beat.turned()

    def wait(self, wrong: Exception) -> None:
        """Say what went wrong, and pause."""
        event = "redis refused a command" if isinstance(wrong, CommandRefused) else "redis is away"
        self._logger.warning(event, extra={"reason": str(wrong), "pause_s": round(self._pause_s, 2)})
        self._beat.stumbled(f"{event}: {wrong}")
        self._stop.sleep(self._pause_s * random.uniform(0.5, 1.5))
        self._pause_s = min(self._longest_s, self._pause_s * 2)


def parting(leave: Callable[[], object], logger: Logger) -> None:
    """Take leave, unless Redis is away: then the leases run out by themselves."""
    try:
        leave()
    except (*Unreachable, CommandRefused) as wrong:
        logger.warning("left without a word: redis is away", extra={"reason": str(wrong)})


def die_with_parent() -> None:
    """In a child, before it runs: end when the parent dies, even by SIGKILL, so that nothing is left running."""
    ctypes.CDLL(None, use_errno=True).prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)


def guarded(main: Callable[[], int]) -> None:
    """Run a command; what the user can mend, Redis among it, becomes one line and exit code 2."""
    try:
        sys.exit(main())
    except (CascadeError, *Unreachable, CommandRefused) as wrong:
        sys.stderr.write(f"{wrong}\n")
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        sys.exit(130)
