"""Which process a name stood for, so that somebody on the same machine can tell that it has ended.

An identity names the boot of the machine, the space in which process ids are counted, the id, and when the
process started: an id that was given again, or one of another container, is never taken for it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_STARTED: Final = 19  # field 22 of /proc/<pid>/stat, counted after the name in parentheses


def identity() -> str:
    """This process; empty where the system does not tell, and then nobody will say that it has ended."""
    place, own = _place(), _stat(os.getpid())
    return f"{place} {os.getpid()} {own[_STARTED]}" if place and own else ""


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
    except OSError:
        pass  # it belongs to somebody else: then /proc may tell
    now = _stat(number)
    return bool(now) and (now[0] in "ZX" or now[_STARTED] != started)


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
