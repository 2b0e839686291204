"""Recorded scores of light pictures: where those of a cascade lie, and what they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from shared.tables import number_rows, rows

FETCHED: Final = Path(__file__).resolve().parent.parent / "traces" / "published"
PUBLISHED_SCORES: Final = "p_fake_"


def recorded_scores(cascade: str, tables: Path) -> tuple[float, ...]:
    """Scores of light pictures by prompt index; empty where none were recorded."""
    path = scores_file(cascade, tables)
    if path is None:
        return ()
    if path.name.startswith(PUBLISHED_SCORES):
        # The mean of four columns of P(fake), turned into P(real).
        return tuple(1.0 - sum(row) / len(row) for row in number_rows(path))
    return tuple(row.number("score") for row in rows(path))


def scores_file(cascade: str, tables: Path) -> Path | None:
    """Where the recorded scores of a cascade lie; None where there are none.

    The published file where the folder that CASCADE_DATA names, or what `traces.fetch` got, has it; else the
    made stand-in `quality/<cascade>_scores.csv`, or the `scores.csv` measured beside a cascade's own weights.
    """
    folders = [Path(folder) / "diffserve" for folder in (os.environ.get("CASCADE_DATA", ""), FETCHED) if folder]
    places = [folder / f"{PUBLISHED_SCORES}{cascade}.csv" for folder in folders]
    places += [tables / "quality" / f"{cascade}_scores.csv", tables / cascade / "scores.csv"]
    return next((path for path in places if path.is_file()), None)
