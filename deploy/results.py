"""A run's folder, live or simulated: tables, summary, report, and whether all is as it must be."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, Final

from rich.console import Console

from analysis.recording import save
from analysis.report import write_report, write_summary
from shared.catalog import Cascade
from shared.errors import SettingsError
from shared.pace import slower
from shared.recording import Recording
from shared.summary import table

FILES: Final = ("run.json", "summary.json", "report.html", "outcomes.csv", "plans.csv", "ticks.csv")
FOLDERS: Final = ("processes", "pictures")
TERMINATED: Final = 143


def new_folder(kind: str) -> Path:
    """logs/<kind>-<time>, made; the second start in a second takes the next one. Raises SettingsError."""
    while True:
        folder = Path("logs") / time.strftime(f"{kind}-%Y%m%d-%H%M%S")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            time.sleep(0.1)
        except OSError as wrong:
            raise SettingsError(f"{folder}: {wrong.strerror}") from None
        else:
            return folder


def cleared(folder: Path) -> Path:
    """The folder, made, without what an earlier run left in it: half of one run is no run. Raises SettingsError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        for name in FOLDERS:
            shutil.rmtree(folder / name, ignore_errors=True)
    except OSError as wrong:
        raise SettingsError(f"{folder}: {wrong.strerror}") from None
    return folder


def keep(recording: Recording, cascade: Cascade, folder: Path) -> dict[str, Any]:
    """Write tables, summary and report, and return the summary; raises SettingsError that names the file."""
    try:
        save(recording, folder)
        summary = write_summary(recording, cascade, folder)
        write_report(recording, cascade, folder)
    except OSError as wrong:
        raise SettingsError(f"{wrong.filename or folder}: {wrong.strerror}") from None
    return summary


def show(summary: dict[str, Any], folder: Path, console: Console) -> None:
    """Print the summary, and where the rest lies."""
    console.print(table(summary))
    if words := slower(summary):
        console.print(words, soft_wrap=True, highlight=False)
    console.print(f"tables and report: {folder / 'report.html'}", soft_wrap=True, highlight=False)


def exit_code(summary: dict[str, Any]) -> int:
    """0 when every prompt ended once and none by a fault, and no answer lacks the picture that was to be kept."""
    wrong = ("open", "failed", "answered_twice", "pictures_missing")
    return 1 if any(summary[name] for name in wrong) else 0


def end_on_sigterm() -> None:
    """Let SIGTERM end a run as Ctrl-C does: through the blocks that stop what they started."""
    signal.signal(signal.SIGTERM, _end)


def _end(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(TERMINATED)
