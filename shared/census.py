"""Which slots can draw what, from what their workers and agents say; and which of them draw another cascade.

A planner's token says for which cascade it plans. Models are told apart by name: a cascade with weights of chance has
the names of the true one, and who says nothing of a model, as older agents do, is taken at its word.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self, cast

from shared.config import Resident
from shared.plans import Slot
from shared.schema import STAGES, Stage
from shared.wire import integer_or

SLOT_LIMIT: Final = 10**6  # numbers past it are no slot's
GIVEN_UP: Final = ("BACKOFF", "FATAL", "UNKNOWN")  # states of a program that supervisor does not bring up
SHOWN: Final = 3  # nodes that a line names
# How a worker says where its model stays while the slot's other one draws; from the quickest turn to the slowest.
STAYS: Final[Mapping[str, Resident]] = {"1": True, "host": "host", "0": False}

About = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Planned:
    """The cascade that a planner plans for. `models`: stage -> name."""

    cascade: str
    models: Mapping[Stage, str]

    def token(self, random: str) -> str:
        """The token of the planner that leads; `random` tells it from all others."""
        return json.dumps({"token": random, "cascade": self.cascade, **self.models})

    @classmethod
    def of_token(cls, token: bytes | None) -> Self | None:
        """What the token says; None where nobody leads, or an older planner that does not say it."""
        try:
            told = json.loads(token or b"")
            return cls(str(told["cascade"]), {stage: str(told[stage]) for stage in STAGES})
        except (ValueError, TypeError, KeyError):
            return None

    def __str__(self) -> str:
        return f"{self.cascade} ({', '.join(self.models.values())})"


@dataclass(frozen=True, slots=True)
class Census:
    """The slots that can draw. `strangers`: slots or nodes that do not count -> the models of which they speak."""

    slots: tuple[Slot, ...]
    strangers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def census(
    workers: Iterable[About],
    nodes: Mapping[str, About],
    planned: Collection[tuple[str, int]],
    models: Mapping[Stage, str] | None = None,
) -> Census:
    """Every slot that can draw, with the stages whose workers are ready on it; `planned`: slots in the plan in force.

    Where an agent swaps the models of a slot, it can draw either, whichever is loaded now or being loaded:
    a slot that left the view while it changes would be planned away, and the fleet would never come to rest.
    """
    known = [worker for worker in workers if knows_its_place(worker)]
    able: dict[tuple[str, int, str], set[Stage]] = {}
    stays: dict[str, list[Resident]] = {}
    for worker in known:
        if worker.get("ready") == "1":
            place = (worker["node"], int(worker["slot"]), worker.get("gpu", ""))
            able.setdefault(place, set()).add(cast(Stage, worker["stage"]))
            if (told := STAYS.get(worker.get("resident", ""))) is not None:
                stays.setdefault(_slot(worker), []).append(told)
    swapping = {name: about for name, about in nodes.items() if about.get("resident") == "0"}
    for node, number in set(planned) - {place[:2] for place in able}:
        if node in swapping and _can_change(swapping[node], number):
            able[node, number, swapping[node].get("gpu", "")] = set()
    strange = strangers(known, nodes, models or {})
    slots = (
        Slot(
            node,
            number,
            gpu,
            tuple(stage for stage in STAGES if stage in stages or node in swapping),
            False if node in swapping else _slowest(stays.get(f"{node}:{number}", ())),
        )
        for (node, number, gpu), stages in sorted(able.items())
    )
    return Census(tuple(slot for slot in slots if not {slot.name, slot.node} & strange.keys()), strange)


def strangers(
    workers: Iterable[About], nodes: Mapping[str, About], models: Mapping[Stage, str]
) -> dict[str, tuple[str, ...]]:
    """Slots and nodes whose workers or agents speak of other models than these, with what they speak of."""
    found: dict[str, set[str]] = {}
    for worker in workers:
        stage, model = worker.get("stage", ""), worker.get("model", "")
        if knows_its_place(worker) and model and model != models.get(cast(Stage, stage), model):
            found.setdefault(_slot(worker), set()).add(model)
    for name, about in nodes.items():
        for stage, ours in models.items():
            if (model := about.get(f"model:{stage}", ours)) != ours:
                found.setdefault(name, set()).add(model)
    return {name: tuple(sorted(told)) for name, told in sorted(found.items())}


def in_words(strange: Mapping[str, Sequence[str]], planned: Planned) -> str:
    """In one line who draws another cascade than is planned, and what to do."""
    nodes = list(dict.fromkeys(name.partition(":")[0] for name in strange))
    more = f" and {len(nodes) - SHOWN} more" if len(nodes) > SHOWN else ""
    told = ", ".join(dict.fromkeys(model for each in strange.values() for model in each))
    return (
        f"{', '.join(nodes[:SHOWN])}{more}: started with another cascade's {told}, and given no work: the planner's is "
        f"{planned}; give head and nodes the same CASCADE"
    )


def knows_its_place(about: About) -> bool:
    """Whether what stands under a worker's key says where it draws; anybody may have written it."""
    return bool(about.get("node")) and about.get("stage") in STAGES and is_slot(about.get("slot", ""))


def is_slot(number: str) -> bool:
    """Whether it is a slot's number."""
    return 0 <= integer_or(number.encode(), -1) <= SLOT_LIMIT


def _slot(worker: About) -> str:
    return f"{worker['node']}:{int(worker['slot'])}"


def _slowest(stays: Sequence[Resident]) -> Resident | None:
    return max(stays, key=list(STAYS.values()).index, default=None)


def _can_change(about: About, number: int) -> bool:
    """Whether supervisor still brings up programs of the slot: it gives up on one that cannot start."""
    states = [about.get(f"worker-{number}-{stage}", "FATAL") for stage in STAGES]
    return not all(state in GIVEN_UP for state in states)
