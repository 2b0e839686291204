"""Reads traces and prompts; whatever is wrong with a file is one line that names file, line and field.

Two forms of a trace are known:

    arrival_ms,prompt_index    published (DiffServe): no header, unsorted, milliseconds and a row of the prompts' file
    arrival_s[,prompt]         plain: with this header, seconds and, if given, the prompt itself

Lines that start with # are comments in both.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Final

LONGEST_S: Final = 1e7  # four months: whoever follows a trace second by second has to come to its end
DATA: Final = "CASCADE_DATA"
# What `traces.fetch` got, in the layout of the folder that CASCADE_DATA names.
PUBLISHED_FOLDER: Final = Path(__file__).resolve().parent / "published"


class TraceError(ValueError):
    """A trace, a file of prompts or a shape is wrong; names the file, the line and the field."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One prompt offered `at_s` seconds after the start.

    `index`: which prompt, a row of a file of prompts or the place in a plain trace. `prompt`: its text, if the
    trace holds it.
    """

    at_s: float
    index: int
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a file that knows its place."""

    path: Path
    line: int
    values: tuple[str, ...]

    def wrong(self, field: str, reason: str) -> TraceError:
        """The error to raise over one of its fields."""
        return TraceError(f"{self.path}:{self.line}: {field}: {reason}")

    def text(self, place: int, field: str) -> str:
        """The field at that place; raises TraceError if it is missing or empty."""
        if place >= len(self.values) or not self.values[place].strip():
            raise self.wrong(field, "missing")
        return self.values[place].strip()

    def number(self, place: int, field: str) -> float:
        """A finite number, at least 0; raises TraceError."""
        text = self.text(place, field)
        try:
            number = float(text.replace("_", "no digit"))  # Python would read 1_000 as a thousand
        except ValueError:
            raise self.wrong(field, f"not a number: {text[:40]!r}") from None
        if not math.isfinite(number) or number < 0:
            raise self.wrong(field, f"must be finite and not negative, got {text[:40]}")
        return number

    def at_most(self, fields: Sequence[str]) -> None:
        """Raise TraceError if the line holds more than these fields."""
        if len(self.values) > len(fields):
            surplus = self.values[len(fields)]
            raise self.wrong(",".join(fields), f"one field too many: {surplus[:40]!r} (quote a text that has commas)")


def read_trace(path: Path) -> list[Arrival]:
    """The arrivals of a trace in either form, ascending in time; raises TraceError."""
    rows = list(read_rows(path))
    if not rows:
        raise TraceError(f"{path}: no arrivals")
    header = tuple(value.strip() for value in rows[0].values)
    form, body = (_FORMS[header], rows[1:]) if header in _FORMS else (_published, rows)
    if not body:
        raise TraceError(f"{path}: no arrivals")
    found = sorted((form(place, row) for place, row in enumerate(body)), key=lambda arrival: arrival.at_s)
    if found[-1].at_s > LONGEST_S:
        raise TraceError(f"{path}: an arrival after {found[-1].at_s:g} s; a trace lasts {LONGEST_S:,.0f} s at most")
    return found


def _published(place: int, row: Row) -> Arrival:  # noqa: ARG001
    row.at_most(PUBLISHED)
    index = row.number(1, "prompt_index")
    if index != int(index):
        raise row.wrong("prompt_index", f"not a whole number: {row.values[1]}")
    return Arrival(row.number(0, "arrival_ms") / 1000, int(index))


def _timed(place: int, row: Row) -> Arrival:
    row.at_most(TIMED)
    return Arrival(row.number(0, "arrival_s"), place)


def _prompted(place: int, row: Row) -> Arrival:
    row.at_most(PROMPTED)
    return Arrival(row.number(0, "arrival_s"), place, row.text(1, "prompt"))


PUBLISHED: Final = ("arrival_ms", "prompt_index")
TIMED: Final = ("arrival_s",)
PROMPTED: Final = ("arrival_s", "prompt")
_FORMS: Final[Mapping[tuple[str, ...], Callable[[int, Row], Arrival]]] = {
    PUBLISHED: _published,
    TIMED: _timed,
    PROMPTED: _prompted,
}


def read_rows(path: Path) -> Iterator[Row]:
    """The lines of a CSV file but for comments and empty ones; raises TraceError."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:  # spreadsheets write a mark before the header
            reader = csv.reader(lines, strict=True)
            for values in reader:
                if any(values) and not values[0].startswith("#"):
                    yield Row(path, reader.line_num, tuple(values))
    except OSError as wrong:
        raise TraceError(f"{path}: {wrong.strerror}") from None
    except UnicodeDecodeError as wrong:
        raise TraceError(f"{path}: not UTF-8 text at byte {wrong.start}") from None
    except csv.Error as wrong:
        raise TraceError(f"{path}:{reader.line_num}: {wrong}") from None


def scale(arrivals: Sequence[Arrival], rate: float = 1.0, time: float = 1.0, seed: int = 0) -> list[Arrival]:
    """A trace with `rate` times as many prompts, stretched to `time` times its duration.

    With rate alone, the shape over time stays and the prompts per second are multiplied: below 1 prompts are left
    out by lot; above 1 they are repeated, the copies at random places before the next arrival. With time alone, the
    prompts stay and come `time` times as far apart. Raises TraceError for a factor that is not positive and finite.
    """
    for name, factor in (("rate", rate), ("time", time)):
        if not math.isfinite(factor) or factor <= 0:
            raise TraceError(f"{name}: must be positive and finite, got {factor}")
    repeated = arrivals if rate == 1 else _repeated(arrivals, rate, Random(seed))
    return [replace(arrival, at_s=arrival.at_s * time) for arrival in repeated]


def cut(arrivals: Sequence[Arrival], seconds: float) -> list[Arrival]:
    """The arrivals of the first `seconds`; raises TraceError where none is left."""
    kept = [arrival for arrival in arrivals if arrival.at_s < seconds]
    if not kept:
        raise TraceError(f"seconds: no arrival in the first {seconds:g} s")
    return kept


def _repeated(arrivals: Sequence[Arrival], rate: float, random: Random) -> list[Arrival]:
    gaps = [after.at_s - before.at_s for before, after in pairwise(arrivals)]
    gaps.append(gaps[-1] if gaps else 0.0)
    made: list[Arrival] = []
    for arrival, gap in zip(arrivals, gaps, strict=True):
        count = int(rate) + (random.random() < rate - int(rate))
        delays = [0.0, *sorted(random.random() * gap for _ in range(count - 1))]
        made.extend(replace(arrival, at_s=arrival.at_s + delay) for delay in delays[:count])
    return made


def read_prompts(path: Path) -> list[str]:
    """One prompt per line; a blank line keeps its place as "", so that indices stay true. Raises TraceError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as wrong:
        raise TraceError(f"{path}: {wrong.strerror}") from None
    except UnicodeDecodeError as wrong:
        raise TraceError(f"{path}: not UTF-8 text at byte {wrong.start}") from None
    # Not splitlines: prompts hold other separators, such as U+2028, and would shift the indices.
    prompts = [line.strip() for line in text.removesuffix("\n").split("\n")]
    if not any(prompts):
        raise TraceError(f"{path}: no prompts")
    return prompts


def data_folders() -> list[Path]:
    """Where published data may lie: the folder that CASCADE_DATA names, then what was fetched.

    Raises TraceError if CASCADE_DATA names no folder.
    """
    named = os.environ.get(DATA, "")
    if named and not Path(named).is_dir():
        raise TraceError(f"{DATA}: {named} is no folder")
    return [folder for folder in (*([Path(named)] if named else []), PUBLISHED_FOLDER) if folder.is_dir()]
