"""Tables of figures in analysis/results, of which a part can be measured again alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.table import Table

from shared.files import write_text


def narrow(headings: Iterable[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table for a terminal of 80 characters; what its first column says stands on the left, all else on the right."""
    made = Table(box=None, padding=(0, 1, 0, 0))
    for place, heading in enumerate(headings):
        made.add_column(heading, justify="right" if place else "left", no_wrap=True)
    for each in rows:
        made.add_row(*each)
    return made


def write_csv(columns: Sequence[str], rows: Iterable[Sequence[object]], path: Path) -> None:
    """Write the rows; others that the file already holds stay, told apart by their first column.

    A file with other columns is written anew.
    """
    known = {each[0]: each for each in _read(columns, path)}
    known |= {str(each[0]): [str(cell) for cell in each] for each in rows}
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *known.values()])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text.getvalue())


def _read(columns: Sequence[str], path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        found = list(csv.reader(file))
    return found[1:] if found and found[0] == list(columns) else []
