"""What the faults did to the promises: rows for people and for analysis/results/chaos.csv."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.table import Table

from deploy import tables
from shared.ledger import percentile

COLUMNS: Final = (
    "fault",
    "what",
    "runs",
    "seconds",
    "faults",
    "offered",
    "refused",
    "lost",
    "doubled",
    "late",
    "dropped",
    "failed",
    "violation",
    "recoveries",
    "recovery_p50_s",
    "recovery_p99_s",
    "holds",
    "broken",
    "command",
)
SHOWN: Final = {
    "fault": "fault",
    "runs": "runs",
    "faults": "faults",
    "offered": "offered",
    "refused": "refused",
    "lost": "lost",
    "doubled": "twice",
    "violation": "violation",
    "recovery_p50_s": "p50 s",
    "recovery_p99_s": "p99 s",
    "holds": "holds",
}


@dataclass(frozen=True, slots=True)
class Played:
    """What one run of one fault showed. `broken`: what must hold and did not."""

    name: str
    what: str
    seconds: float
    faults: int
    offered: int
    refused: int
    lost: int
    doubled: int
    late: int
    dropped: int
    failed: int
    violation: float
    recoveries_s: tuple[float, ...]
    broken: tuple[str, ...] = ()

    def recovery_s(self, percent: float) -> float:
        """A percentile of the recoveries; 0 where there was none."""
        return percentile(sorted(self.recoveries_s), percent)


def row(played: Sequence[Played], command: str) -> list[str]:
    """All runs of one fault as one row of the table: counts added up, percentiles over all recoveries."""
    first = played[0]
    recoveries = sorted(second for each in played for second in each.recoveries_s)
    offered = sum(each.offered for each in played)
    missed = sum(each.violation * each.offered for each in played)
    counts = [
        sum(getattr(each, name) for each in played)
        for name in ("faults", "offered", "refused", "lost", "doubled", "late", "dropped", "failed")
    ]
    broken = "; ".join(dict.fromkeys(words for each in played for words in each.broken))
    shown = [f"{percentile(recoveries, percent):.2f}" if recoveries else "" for percent in (50, 99)]
    return [
        first.name,
        first.what,
        str(len(played)),
        f"{sum(each.seconds for each in played):.0f}",
        *map(str, counts),
        f"{missed / offered if offered else 0:.4f}",
        str(len(recoveries)),
        *shown,
        "no" if broken else "yes",
        broken,
        command,
    ]


def as_table(rows: Iterable[Sequence[str]]) -> Table:
    """The rows for a terminal, in columns that fit 80 characters."""
    return tables.narrow(SHOWN.values(), ([each[COLUMNS.index(name)] for name in SHOWN] for each in rows))


def write_csv(rows: Iterable[Sequence[str]], path: Path) -> None:
    """Write the rows; those of other faults that the file already holds stay, so that a row can be run again alone."""
    tables.write_csv(COLUMNS, rows, path)
