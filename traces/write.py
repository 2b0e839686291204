"""Writes traces in the forms that `traces.read` reads; a file is there whole or not at all."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from traces.read import PROMPTED, PUBLISHED, TIMED, Arrival


def as_csv(times: Sequence[float], about: str) -> str:
    """The plain form, to a microsecond, with a first line that says how the times came about."""
    return "".join([f"# {about}\n{','.join(TIMED)}\n", *(f"{at_s:.6f}\n" for at_s in times)])


def arrivals_as_csv(arrivals: Sequence[Arrival], about: str) -> str:
    """Arrivals that keep their prompts: the text where each has one, else its row in a file of prompts."""
    text = io.StringIO(newline="")
    text.write(f"# {about}\n")
    rows = csv.writer(text, lineterminator="\n")
    if all(arrival.prompt is not None for arrival in arrivals):
        rows.writerow(PROMPTED)
        rows.writerows((f"{arrival.at_s:.6f}", arrival.prompt) for arrival in arrivals)
    else:
        rows.writerow(PUBLISHED)
        rows.writerows((f"{arrival.at_s * 1000:.3f}", arrival.index) for arrival in arrivals)
    return text.getvalue()


def write(content: str | bytes, path: Path) -> None:
    """Write the file whole or not at all; raises OSError."""
    held = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():  # a pipe or a device is written to, never replaced
        path.write_bytes(held)
        return
    path = path.resolve()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(held)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
