"""Rows of a CSV table that know their place, so that a wrong one is named by file, line and field."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.errors import SettingsError
from shared.files import write_text


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table with a header; every reading method raises SettingsError where the field is wrong."""

    path: Path
    line: int
    values: Mapping[str, str | None]

    def wrong(self, reason: str) -> SettingsError:
        """The error that names this row."""
        return SettingsError(f"{self.path}:{self.line}: {reason}")

    def get(self, name: str) -> str | None:
        """The field's text, if there is one."""
        return self.values.get(name)

    def text(self, name: str) -> str:
        """The field's text, which must not be empty."""
        value = self.values.get(name)
        if not value:
            raise self.wrong(f"no {name}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """The field as a finite number; the default, if given, where it is empty."""
        value = self.values.get(name)
        if not value and default is not None:
            return default
        number = _number(self.text(name))
        if not math.isfinite(number):
            raise self.wrong(f"{name} is no number: {value!r}")
        return number

    def count(self, name: str) -> int:
        """The field as a whole number of at least 1."""
        number = self.number(name)
        if number < 1 or number != int(number):
            raise self.wrong(f"{name} must be a whole number of at least 1, not {self.get(name)}")
        return int(number)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def rows(path: Path) -> Iterator[Row]:
    """The rows below the header; raises SettingsError where the file is no table."""
    try:
        with path.open(newline="") as lines:
            reader = csv.DictReader(lines)
            for values in reader:
                yield Row(path, reader.line_num, values)
    except OSError as wrong:
        raise SettingsError(f"{path}: {wrong.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as wrong:
        raise SettingsError(f"{path}: no table: {wrong}") from None


def number_rows(path: Path) -> Iterator[list[float]]:
    """Rows of nothing but finite numbers, apart by commas or blanks; the first line may be a header."""
    for line, text in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        numbers = [_number(value) for value in text.replace(",", " ").split()]
        if numbers and all(map(math.isfinite, numbers)):
            yield numbers
        elif line > 1:
            raise SettingsError(f"{path}:{line}: not numbers: {text[:60]!r}")


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV under a temporary name and rename; raises OSError that names the file."""
    text = io.StringIO(newline="")
    # All text is quoted: the csv module leaves a bare carriage return unquoted and then reads it as a line's end.
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())
