"""Generates a trace: `python -m traces.generate --shape azure --low 4 --high 32 --seconds 350 --out made.csv`.

Arrivals are Poisson with a rate that follows the shape, between --low and --high prompts per second; the same seed
gives the same trace. `azure` follows the published curve where it is at hand (CASCADE_DATA, or `traces.fetch`),
otherwise its outline.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from traces.read import TraceError, data_folders, read_rows
from traces.shapes import OUTLINE, SHAPES, Span, arrivals
from traces.write import as_csv, write

PUBLISHED_CURVE: Final = Path("diffserve/traces/azure_shape_hourly.csv")
MOST: Final = 1e8  # prompts; more are a slip of the hand, and would fill the memory


def generate(shape: str, span: Span, data: Sequence[Path] = ()) -> tuple[list[float], str]:
    """Arrival times in seconds, ascending, and one line that says how to make them again.

    `data`: folders of published data. Raises TraceError for an unknown shape, a wrong span or a wrong curve.
    """
    check(shape, span)
    numbers = {"low": span.low, "high": span.high, "seconds": span.seconds}
    words = " ".join(f"--{name} {value:.15g}" for name, value in numbers.items())
    about = f"python -m traces.generate --shape {shape} {words} --seed {span.seed}"
    if shape == "azure":
        curve, source = hourly_curve(data)
        span = replace(span, curve=curve)
        about += f" (curve: {source})"
    return arrivals(SHAPES[shape](span), span), about


def check(shape: str, span: Span) -> None:
    """Raise TraceError if no trace can be made of these."""
    if shape not in SHAPES:
        raise TraceError(f"shape: unknown {shape!r}; there are {', '.join(SHAPES)}")
    if not 0 <= span.low <= span.high < math.inf or span.high == 0:
        raise TraceError(f"low, high: need 0 <= low <= high, high > 0, got {span.low:g} and {span.high:g}")
    if not 0 < span.seconds < math.inf:
        raise TraceError(f"seconds: must be positive and finite, got {span.seconds:g}")
    if span.high * span.seconds > MOST:
        raise TraceError(f"high, seconds: up to {span.high * span.seconds:.3g} prompts, at most {MOST:g} are made")


def hourly_curve(data: Sequence[Path]) -> tuple[tuple[float, ...], str]:
    """Invocations at equal distances, and where they come from: the published file if a folder has it."""
    path = next((folder / PUBLISHED_CURVE for folder in data if (folder / PUBLISHED_CURVE).is_file()), None)
    if path is None:
        return OUTLINE, "outline of the published one"
    rows = list(read_rows(path))
    if len(rows) < 3 or "invocations" not in rows[0].values:
        raise TraceError(f"{path}:1: invocations: no such column, or fewer than two rows")
    place = rows[0].values.index("invocations")
    return tuple(row.number(place, "invocations") for row in rows[1:]), f"published, {path.name}"


def parser() -> argparse.ArgumentParser:
    """The command's words."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--shape", choices=SHAPES, required=True)
    made.add_argument("--low", type=float, default=4.0, help="least prompts per second")
    made.add_argument("--high", type=float, default=32.0, help="most prompts per second")
    made.add_argument("--seconds", type=float, default=350.0, help="duration")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", type=Path, help="file to write; default: standard output")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    given = parser().parse_args(arguments)
    try:
        times, about = generate(given.shape, Span(given.low, given.high, given.seconds, given.seed), data_folders())
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
