"""What the published systems reached on the published traces: figures that this code did not measure.

They come from `results/published_systems.csv`: late and dropped prompts over published ones by the clients' time
stamps, and the quality at the heavy share of the whole run; the lowest and the highest of the runs there were.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TABLE: Final = Path(__file__).parent / "results" / "published_systems.csv"


@dataclass(frozen=True, slots=True)
class Published:
    """A published system on a trace and fleet: shares of the prompts, qualities of the whole run, low to high."""

    system: str
    violation: tuple[float, float]
    whole: tuple[float, float]
    source: str


def published(cascade: str, trace: str, gpus: int, table: Path = TABLE) -> list[Published]:
    """What is known of this cascade, trace (by its published name) and fleet; empty where nothing is."""
    with table.open(newline="", encoding="utf-8") as lines:
        return [
            Published(row["system"], _ends(row, "violation"), _ends(row, "fid"), row["source"])
            for row in csv.DictReader(lines)
            if (row["cascade"], row["trace"], int(row["gpus"])) == (cascade, trace, gpus)
        ]


def _ends(row: dict[str, str], name: str) -> tuple[float, float]:
    return float(row[f"{name}_low"]), float(row[f"{name}_high"])
