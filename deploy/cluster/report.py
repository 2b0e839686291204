"""What the scenarios showed: rows for people and for analysis/results/cluster.csv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.table import Table

from deploy import tables
from deploy.cluster.judging import Phase, Verdict
from deploy.cluster.scenarios import Scenario

COLUMNS: Final = (
    "scenario",
    "what",
    "nodes",
    "seconds",
    "restarts",
    "offered",
    "of_clients",
    "clients_asked_again",
    "refused",
    "lost",
    "doubled",
    "late",
    "dropped",
    "failed",
    "violation",
    "first_picture_begun_s",
    "first_picture_drawn_s",
    "plan_follows_s",
    "heavy_shares",
    "holds",
    "broken",
    "command",
)
SHOWN: Final = {
    "scenario": "scenario",
    "restarts": "restarts",
    "offered": "offered",
    "refused": "refused",
    "lost": "lost",
    "doubled": "twice",
    "violation": "violation",
    "plan_follows_s": "follows s",
    "holds": "holds",
}


def row(name: str, scenario: Scenario, verdict: Verdict, command: str) -> list[str]:
    """A scenario as a row of the table."""
    ledger = verdict.ledger
    follows = [phase.follows_s for phase in verdict.phases[1:]]
    worst = "never" if None in follows else f"{max((each for each in follows if each is not None), default=0.0):.2f}"
    counts = (
        ledger.offered,
        verdict.clients,
        verdict.clients_again,
        ledger.refused,
        len(verdict.lost),
        len(ledger.twice),
        ledger.late,
    )
    return [
        name,
        scenario.what,
        ", ".join(f"{node.name}: {node.slots} {node.gpu}" for node in scenario.nodes),
        f"{verdict.seconds:.0f}",
        str(verdict.restarts),
        *map(str, (*counts, ledger.ends["dropped"], ledger.ends["failed"])),
        f"{ledger.violation:.4f}",
        _seconds(verdict.begun_s),
        _seconds(verdict.drawn_s),
        worst if follows else "",
        " ".join("-" if phase.share is None else f"{phase.share:.2f}" for phase in verdict.phases),
        "no" if verdict.broken else "yes",
        "; ".join(verdict.broken),
        command,
    ]


def as_table(rows: Sequence[Sequence[str]]) -> Table:
    """The rows for a terminal, in columns that fit 80 characters."""
    return tables.narrow(SHOWN.values(), ([each[COLUMNS.index(name)] for name in SHOWN] for each in rows))


def phases_table(phases: Sequence[Phase]) -> Table:
    """Step by step: how soon the plan followed, and the heavy share from 5 s after it."""
    headings = ("step", "s", "plan follows s", "heavy workers", "heavy share", "planned")
    return tables.narrow(headings, map(_phase, phases))


def _phase(phase: Phase) -> list[str]:
    share = "-" if phase.share is None else f"{phase.share:.2f}"
    follows = "never" if phase.follows_s is None else f"{phase.follows_s:.2f}"
    return [phase.step.what, f"{phase.seconds:.0f}", follows, str(phase.heavy_workers), share, f"{phase.planned:.2f}"]


def write_csv(rows: Sequence[Sequence[str]], path: Path) -> None:
    """Write the rows; those of other scenarios that the file already holds stay."""
    tables.write_csv(COLUMNS, rows, path)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
