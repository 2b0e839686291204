"""Which process a name stood for, so that somebody on the same machine can tell that it has ended.

An identity names the boot of the machine, the space in which process ids are counted, the id, and when the
process started: an id that was given again, or one of another container, is never taken for it.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_STARTED: Final = 19  # field 22 of /proc/<pid>/stat, counted after the name in parentheses
_LOOK_S: Final = 0.1  # between two looks at processes of whose end the system cannot tell by itself


def identity() -> str:
    """This process; empty where the system does not tell, and then nobody will say that it has ended."""
    place, own = _place(), _stat(os.getpid())
    return f"{place} {os.getpid()} {own[_STARTED]}" if place and own else ""


def machine() -> str:
    """This machine since it was started, the same in all its containers; empty where the system does not tell."""
    return _place().partition(" ")[0]


def ended(known: str) -> bool:
    """Whether the process of that identity has surely ended; False wherever this process can't know."""
    try:
        boot, space, pid, started = known.split()
        number = int(pid)
    except ValueError:
        return False
    if f"{boot} {space}" != _place():
        return False
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except OverflowError:  # no process has such a number
        return False
    except OSError:
        pass  # it belongs to somebody else: then /proc may tell
    now = _stat(number)
    return bool(now) and (now[0] in "ZX" or now[_STARTED] != started)


class Deaths:
    """Hears from the system that processes end, without asking for each again and again."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._handles: dict[str, int] = {}
        self._unheard: set[str] = set()  # of whose end the system does not tell by itself: they are asked for

    def watch(self, known: str) -> None:
        """Listen for the end of the process of that identity; one of another machine is never heard of."""
        try:
            handle = os.pidfd_open(int(known.split()[2]))
        except (OSError, ValueError, OverflowError, AttributeError, IndexError):
            self._unheard.add(known)
            return
        # Asked now that the handle stands: the id may have been given to another process before.
        if ended(known) or not known.startswith(f"{_place()} "):
            os.close(handle)
            self._unheard.add(known)
            return
        self._handles[known] = handle
        self._poll.register(handle, select.POLLIN)

    def forget(self, known: str) -> None:
        """Listen no longer."""
        self._unheard.discard(known)
        if (handle := self._handles.pop(known, None)) is not None:
            self._poll.unregister(handle)
            os.close(handle)

    def over(self) -> set[str]:
        """Those that have ended and were not forgotten."""
        signalled = {handle for handle, _ in self._poll.poll(0)}
        heard = {known for known, handle in self._handles.items() if handle in signalled}
        return heard | {known for known in self._unheard if ended(known)}

    def wait(self, timeout_s: float) -> None:
        """Sleep for so long, or until one of them has ended; shortly where the system does not tell by itself."""
        self._poll.poll(max(0.0, min(timeout_s, _LOOK_S) if self._unheard else timeout_s) * 1000)


@cache
def _place() -> str:
    """The machine's boot and the space of process ids; empty where the system does not tell."""
    with suppress(OSError):
        return f"{(_PROC / 'sys/kernel/random/boot_id').read_text().strip()} {os.readlink(_PROC / 'self/ns/pid')}"
    return ""


def _stat(pid: int) -> list[str]:
    """The fields of a process' state from the third on; none where it can't be read."""
    with suppress(OSError):
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return []
