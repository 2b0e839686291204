"""Generates a trace: `python -m traces.generate --shape hill --low 4 --high 32 --seconds 350 --out hill.csv`.

Arrivals are Poisson with a rate that follows the shape, between --low and --high prompts per second; the same seed
gives the same trace. With CASCADE_DATA set, `azure` follows the published curve, otherwise one made up like it.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from traces.read import TraceError, data_folder, read_rows
from traces.shapes import SHAPES, Span, arrivals, daily_curve

PUBLISHED_CURVE: Final = Path("diffserve/traces/azure_shape_hourly.csv")


def generate(shape: str, span: Span, data: Path | None = None) -> tuple[list[float], str]:
    """Arrival times in seconds, ascending, and one line that says how they came about.

    `data`: the folder of published data. Raises TraceError for an unknown shape, a wrong span or a wrong curve.
    """
    check(shape, span)
    about = f"shape {shape}, {span.low:g} to {span.high:g} prompts/s, {span.seconds:g} s, seed {span.seed}"
    if shape == "azure":
        curve, source = hourly_curve(data, span.seed)
        span = replace(span, curve=tuple(curve))
        about += f", curve {source}"
    return arrivals(SHAPES[shape](span), span), about


def check(shape: str, span: Span) -> None:
    """Raise TraceError if no trace can be made of these."""
    if shape not in SHAPES:
        raise TraceError(f"shape: unknown {shape!r}; there are {', '.join(SHAPES)}")
    if not 0 <= span.low <= span.high < math.inf or span.high == 0:
        raise TraceError(f"low, high: need 0 <= low <= high, high > 0, got {span.low:g} and {span.high:g}")
    if not 0 < span.seconds < math.inf:
        raise TraceError(f"seconds: must be positive and finite, got {span.seconds:g}")


def hourly_curve(data: Path | None, seed: int) -> tuple[list[float], str]:
    """Hourly invocations, and where they come from: the published file if the folder has it."""
    path = (data or Path()) / PUBLISHED_CURVE
    if data is None or not path.is_file():
        return daily_curve(seed), "made up (no published curve: CASCADE_DATA)"
    rows = list(read_rows(path))
    if len(rows) < 3 or "invocations" not in rows[0].values:
        raise TraceError(f"{path}:1: invocations: no such column, or fewer than two rows")
    place = rows[0].values.index("invocations")
    return [row.number(place, "invocations") for row in rows[1:]], f"published ({path.name})"


def as_csv(times: Sequence[float], about: str) -> str:
    """The plain form that `traces.read` reads, to a microsecond."""
    return "".join([f"# {about}\narrival_s\n", *(f"{at_s:.6f}\n" for at_s in times)])


def write(text: str, path: Path) -> None:
    """Write the file whole or not at all; raises OSError."""
    if path.exists() and not path.is_file():  # a pipe or a device is written to, never replaced
        path.write_text(text)
        return
    path = path.resolve()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--low", type=float, default=4.0, help="least prompts per second")
    parser.add_argument("--high", type=float, default=32.0, help="most prompts per second")
    parser.add_argument("--seconds", type=float, default=350.0, help="duration")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file to write; default: standard output")
    given = parser.parse_args(arguments)
    try:
        times, about = generate(given.shape, Span(given.low, given.high, given.seconds, given.seed), data_folder())
        if given.out is None:
            sys.stdout.write(as_csv(times, about))
            sys.stdout.flush()
        else:
            write(as_csv(times, about), given.out)
    except TraceError as wrong:
        sys.stderr.write(f"{wrong}\n")
        return 2
    except OSError as wrong:
        sys.stderr.write(f"cannot write {given.out or 'standard output'}: {wrong.strerror}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
