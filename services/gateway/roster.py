"""The fleet as the dashboard shows it: node by node, slot by slot, who draws there and what went wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from services.gateway.snapshot import SlotRow, WorkerRow
from shared.census import GIVEN_UP
from shared.schema import Stage


@dataclass(frozen=True, slots=True)
class SlotCard:
    """A slot as it is shown. `state`: draws, loading, rests, wrong or away."""

    number: int
    planned: str
    state: str
    workers: tuple[WorkerRow, ...]
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodeCard:
    """A node and its slots."""

    name: str
    about: str
    slots: tuple[SlotCard, ...] = field(default=())


def nodes(rows: Iterable[SlotRow]) -> Iterator[NodeCard]:
    """The fleet by node."""
    for name, group in groupby(rows, key=lambda row: row.node):
        slots = list(group)
        found = tuple(map(_slot, slots))
        gpus = ", ".join(sorted({row.gpu for row in slots if row.gpu}))
        drawing = sum(slot.state == "draws" for slot in found)
        yield NodeCard(name, f"{gpus}{': ' if gpus else ''}{drawing} of {len(found)} slots draw", found)


def _slot(row: SlotRow) -> SlotCard:
    stopped = [f"{stage}: {state}" for stage, state in row.programs.items() if state in GIVEN_UP]
    errors = (*(f"{worker.stage}: {worker.error}" for worker in row.workers if worker.error), *stopped)
    here = {worker.stage: worker for worker in row.workers}
    return SlotCard(row.number, row.planned or "", _state(row.planned, here, bool(errors)), row.workers, errors)


def _state(planned: Stage | None, here: Mapping[Stage, WorkerRow], wrong: bool) -> str:
    if planned is None:
        return "rests"
    worker = here.get(planned)
    if worker is not None and worker.draws:
        return "draws"
    if wrong:
        return "wrong"
    return "loading" if worker is not None else "away"
