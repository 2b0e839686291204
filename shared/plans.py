"""What the planner sees and decides: Slot, View, Plan, and the plan's wire form.

A plan is data: workers, agents and the door obey it and know no policy. A live run and a simulated run
differ only in who builds the view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any, Final, cast

from shared.config import Resident
from shared.errors import PlanUnreadable
from shared.messages import Fields, Wire
from shared.schema import LATEST_VERSION, STAGES, Stage
from shared.wire import finite, integer_or, read_integer

# The plan's mappings and what their fields are called in Redis.
MAPPINGS: Final[Mapping[str, str]] = {"assignment": "slot", "light_on": "light_on", "heavy_on": "heavy_on"}


@dataclass(frozen=True, slots=True)
class Slot:
    """A GPU, or a share of one, and the stages whose processes can run on it.

    `resident`: where the model that does not draw stays there, as its workers say; None where they do not.
    """

    node: str
    number: int
    gpu: str
    stages: tuple[Stage, ...] = ("light", "heavy")
    resident: Resident | None = None

    @property
    def name(self) -> str:
        """The slot's name in a plan, such as `node-a:0`."""
        return f"{self.node}:{self.number}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the planner decides. Workers, agents and the door obey it and know no policy.

    `threshold`: scores below it escalate; of those equal to it the share `tie_share` does.
    `light_service_s`, `heavy_service_s`: seconds per batch of the planned size; on GPUs of several types the
    harmonic mean over the stage's workers, so that `throughput` is the sum of theirs.
    `light_on`, `heavy_on`: GPU type -> workers of the stage on its slots; empty: on any.
    `light_hold_s`, `heavy_hold_s`: how long an idle worker waits for a batch to fill.
    `heavy_share`: share of the prompts drawn light that escalates.
    `eager_threshold`, `eager_share`: the same two where the heavy stage has room (`cascade.decide`); at most what
    gives the best quality.
    `heavy_direct`: share of all prompts that skips light: those harder than `direct_above` (`cascade.hardness`),
    and of those just as hard the share `direct_tie_share`.
    `drift`: measured less predicted escalation of the plan before; `staffed`: since when the counts stand.
    `lot`: lots say who escalates and who skips light, not scores and hardness.
    `assignment`: slot name -> stage.
    """

    policy: str
    threshold: float
    light_workers: int
    heavy_workers: int
    light_batch: int
    heavy_batch: int
    light_service_s: float
    heavy_service_s: float
    version: int = 0
    tie_share: float = 0.0
    light_hold_s: float = 0.0
    heavy_hold_s: float = 0.0
    heavy_share: float = 0.0
    eager_threshold: float = 0.0
    eager_share: float = 0.0
    heavy_direct: float = 0.0
    direct_above: float = 1.0
    direct_tie_share: float = 0.0
    lot: bool = False
    demand: float = 0.0
    solver: str = ""
    solve_ms: float = 0.0
    why: str = ""
    made: float = 0.0
    staffed: float = 0.0
    drift: float = 0.0
    assignment: Mapping[str, Stage] = field(default_factory=dict)
    light_on: Mapping[str, int] = field(default_factory=dict)
    heavy_on: Mapping[str, int] = field(default_factory=dict)

    @property
    def heavy_load(self) -> float:
        """Share of all prompts that the plan sends heavy, straight or after light."""
        return self.heavy_direct + (1 - self.heavy_direct) * self.heavy_share

    def workers(self, stage: Stage) -> int:
        """Planned workers of the stage."""
        return self.light_workers if stage == "light" else self.heavy_workers

    def on(self, stage: Stage) -> Mapping[str, int]:
        """GPU type -> workers of the stage on its slots; empty: on any."""
        return self.light_on if stage == "light" else self.heavy_on

    def batch(self, stage: Stage) -> int:
        """Planned batch size of the stage."""
        return self.light_batch if stage == "light" else self.heavy_batch

    def hold_s(self, stage: Stage) -> float:
        """Seconds an idle worker of the stage waits for its batch to fill."""
        return self.light_hold_s if stage == "light" else self.heavy_hold_s

    def service_s(self, stage: Stage) -> float:
        """Seconds per planned batch of the stage."""
        return self.light_service_s if stage == "light" else self.heavy_service_s

    def throughput(self, stage: Stage) -> float:
        """Prompts per second that the planned workers of the stage draw in full batches."""
        service_s = self.service_s(stage)
        return self.workers(stage) * self.batch(stage) / service_s if service_s > 0 else 0.0

    @property
    def staffing(self) -> tuple[int, ...]:
        """Workers and batches: what else differs between two plans is, to people, the threshold."""
        return tuple(number for stage in STAGES for number in (self.workers(stage), self.batch(stage)))

    def wire(self) -> Wire:
        """Flat fields; a mapping becomes one field `<prefix>:<key>` per entry, with the prefix in MAPPINGS."""
        packed: Wire = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in MAPPINGS:
                packed |= {f"{MAPPINGS[item.name]}:{key}": str(entry) for key, entry in sorted(value.items())}
            else:
                packed[item.name] = str(int(value)) if isinstance(value, bool) else str(value)
        return packed

    @classmethod
    def from_wire(cls, raw: Fields) -> Plan:
        """Read the hash; fields of a newer version are passed over.

        Raises PlanUnreadable, naming the field, where one is missing or holds what no planner writes.
        """
        text = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in raw.items()}
        known: dict[str, Any] = {}
        try:
            for item in fields(cls):
                if item.name in MAPPINGS:
                    entry_of = _stage if item.name == "assignment" else _count
                    entries = _under(MAPPINGS[item.name], text)
                    known[item.name] = {key: _read(entry_of, f"{item.name} of {key}", entry) for key, entry in entries}
                elif item.name in text:
                    known[item.name] = _read(_KINDS[cast(str, item.type)], item.name, text[item.name])
            return cls(**known)
        except (ValueError, TypeError) as wrong:
            version = integer_or(raw.get(b"version"), 0)
            raise PlanUnreadable(f"the plan: {wrong}"[:200], version if version <= LATEST_VERSION else 0) from None


def restaffed(plans: Sequence[Plan]) -> list[bool]:
    """Of each plan, whether its workers or batches differ from the plan before it; of the first, that they do."""
    return [True, *(before.staffing != after.staffing for before, after in pairwise(plans))][: len(plans)]


def _read(kind: Callable[[str], Any], name: str, text: str) -> Any:
    try:
        return kind(text)
    except ValueError as wrong:
        raise ValueError(f"{name}: {wrong}") from None


def _count(text: str) -> int:
    number = read_integer(text.encode())
    if not 0 <= number <= LATEST_VERSION:
        raise ValueError(f"{number} is no count")
    return number


def _stage(text: str) -> Stage:
    for stage in STAGES:
        if text == stage:
            return stage
    raise ValueError(f"no stage is called {text!r}")


_KINDS: Final[Mapping[str, Callable[[str], Any]]] = {
    "int": _count,
    "float": lambda text: finite(float(text)),
    "str": str,
    "bool": lambda text: text == "1",
}


def _under(prefix: str, text: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The entries of a mapping among a hash's fields."""
    return ((name[len(prefix) + 1 :], entry) for name, entry in text.items() if name.startswith(f"{prefix}:"))


@dataclass(frozen=True, slots=True)
class View:
    """What a policy sees.

    `offered`: prompts offered in each of the last seconds, oldest first, refused ones included.
    `scores`: live scores of light pictures, oldest first. `waiting`, `running`: prompts per stage.
    `pace`: measured over profiled seconds per stage (1 = as profiled). `hardness`: of the newest prompts.
    `ceilings`: stage -> GPU type -> most prompts of a batch that fit its memory, where a larger one did not.
    """

    now: float
    offered: tuple[int, ...]
    slots: tuple[Slot, ...]
    scores: tuple[float, ...] = ()
    waiting: Mapping[Stage, int] = field(default_factory=dict)
    running: Mapping[Stage, int] = field(default_factory=dict)
    pace: Mapping[Stage, float] = field(default_factory=dict)
    plan: Plan | None = None
    hardness: tuple[float, ...] = ()
    ceilings: Mapping[Stage, Mapping[str, int]] = field(default_factory=dict)
