"""A sign of life that a service's loop leaves in a file, for health checks that cost nothing and ask nobody.

Every turn touches `<folder>/<service>`, also one that waits for Redis; what went wrong stands in the file until nothing
has for a while. So its age says whether the loop turns, and its text whether Redis serves it. Nothing here imports a
library: a check that runs every few seconds must start at once.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Final

EVERY_S: Final = 1.0  # a loop that turns fifty times a second need not write as often
# A loop that fails looks well between two failures: it pauses, and not every turn asks Redis.
CLEAR_S: Final = 10.0
FRESH_S: Final = 15.0  # a turn may wait for several answers of a Redis that is silent, and a planner solves
NOTHING: Final = float("-inf")


class Beat:
    """One service's sign of life; none where no folder is given."""

    def __init__(self, folder: Path | None, service: str) -> None:
        self._file = folder / service if folder is not None else None
        self._written = self._stumbled = NOTHING
        self._said = ""

    def turned(self) -> None:
        """A turn went through."""
        now_s = time.monotonic()
        if now_s - self._written >= EVERY_S:
            self._write(self._said if now_s - self._stumbled < CLEAR_S else "", now_s)

    def stumbled(self, reason: str) -> None:
        """A turn failed, and the loop goes on."""
        now_s = self._stumbled = time.monotonic()
        self._write(reason, now_s)

    def _write(self, text: str, now_s: float) -> None:
        self._written, self._said = now_s, text
        if self._file is None:
            return
        draft = self._file.with_name(f".{self._file.name}")
        with suppress(OSError):  # an old file says it: a full disk must not end the service
            draft.write_text(text)
            draft.replace(self._file)  # a check that looks meanwhile must not find it empty


SILENT: Final = Beat(None, "")


def stale(folder: Path, service: str) -> str:
    """Why the service's loop does not seem to turn; empty where it does."""
    try:
        age_s = time.time() - (folder / service).stat().st_mtime
    except OSError:
        return f"{service}: no sign of life in {folder}; it has not begun, or CASCADE_BEATS names another folder for it"
    return f"{service}: its loop has not turned for {age_s:.0f} s" if age_s > FRESH_S else ""


def ailing(folder: Path, service: str) -> str:
    """Why the service does not serve: its loop stands still, or Redis does not serve it; empty where all is well."""
    if said := stale(folder, service):
        return said
    try:
        reason = " ".join((folder / service).read_text(errors="replace").split())
    except OSError as wrong:
        return f"{service}: {wrong}"
    return f"{service}: {reason}" if reason else ""
