"""The table of a model's profile, `profiles/<model>.csv`, and the draft of one that is being measured.

Rows go into the draft as they are measured, so that a run that is ended loses at most one; the table itself is
replaced when the run is through, so that the planner never reads half of one.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.timing import Measured
from shared.errors import SettingsError
from shared.files import write_text
from shared.measured import BEGINNING
from shared.tables import rows

COLUMNS: Final = ("model", "gpu", "batch", "p50_s", "p95_s", "memory_gib", "ceiling", *BEGINNING, "source")
DRAFT: Final = ".unfinished"


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one model on one GPU type, among those of others. `source`: the command that measures them."""

    path: Path
    gpu: str
    source: str

    @property
    def draft(self) -> Path:
        """Where the rows of an unfinished run are."""
        return self.path.with_name(f"{self.path.name}-{self.gpu}{DRAFT}")

    def unfinished(self) -> list[Measured]:
        """What the same command had measured when it was ended; nothing where it was another one."""
        if not self.draft.exists():
            return []
        try:
            found = [row for row in rows(self.draft) if row.get("source") == self.source]
            return [
                Measured(row.count("batch"), row.number("p50_s"), row.number("p95_s"), row.number("memory_gib"))
                for row in found
            ]
        except SettingsError:  # a disk that was full, or another format: it is measured again
            return []

    def keep(self, measured: Sequence[Measured]) -> None:
        """Write the draft; raises OSError."""
        write_text(self.draft, _text(self._lines(measured, "")))

    def finish(self, measured: Sequence[Measured], ceiling: int, begin: Mapping[str, float]) -> None:
        """Put the rows in the place of this GPU type's, and let the draft go; raises OSError."""
        write_text(self.path, _text([*self._others(), *self._lines(measured, str(ceiling), begin)]))
        self.draft.unlink(missing_ok=True)

    def _lines(
        self, measured: Sequence[Measured], ceiling: str, begin: Mapping[str, float] | None = None
    ) -> list[tuple[str, ...]]:
        known = begin or {}
        alike = (ceiling, *(f"{known[name]:.3f}" if name in known else "" for name in BEGINNING), self.source)

        def line(row: Measured) -> tuple[str, ...]:
            figures = (f"{row.p50_s:.4f}", f"{row.p95_s:.4f}", f"{row.memory_gib:.2f}")
            return (self.path.stem, self.gpu, str(row.batch), *figures, *alike)

        return [line(row) for row in measured]

    def _others(self) -> list[tuple[str, ...]]:
        """The rows of other GPU types as they are."""
        if not self.path.exists():
            return []
        with self.path.open(newline="") as lines:
            known = [tuple(row.get(name) or "" for name in COLUMNS) for row in csv.DictReader(lines)]
        return [row for row in known if row[COLUMNS.index("gpu")] != self.gpu]


def _text(lines: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(lines)
    return text.getvalue()
