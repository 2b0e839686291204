"""The values that travel: Visit, Job, Outcome, Plan, View, and their wire form.

A message is frozen and carries its own history: each stage appends a `Visit`, so what reaches `done`
holds the whole path and nothing is joined afterwards. Stream entries are flat fields, readable in
redis-cli; `parameters` and `visits` are packed with msgpack. Times are seconds of the server's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, cast

import msgpack

from shared.errors import MalformedEntry
from shared.schema import NORMAL, Stage
from shared.wire import (
    UNPACK_ERRORS,
    VERSION,
    check_count,
    check_version,
    finite,
    integer_or,
    read_parameters,
    read_prompt,
    read_route,
    read_seconds,
)

Route = Literal["cascade", "light", "heavy"]
End = Literal["light", "heavy", "dropped", "failed", "cancelled"]
ENDS: Final[tuple[End, ...]] = ("light", "heavy", "dropped", "failed", "cancelled")
Fields = Mapping[bytes, bytes]
Wire = dict[str, str | bytes]


@dataclass(frozen=True, slots=True)
class Visit:
    """One passage of a prompt through a stage."""

    stage: Stage
    worker: str
    started: float
    finished: float
    batch: int
    score: float | None = None

    @property
    def gpu_s(self) -> float:
        """The prompt's share of the seconds its batch took."""
        return (self.finished - self.started) / self.batch


@dataclass(frozen=True, slots=True)
class Job:
    """An open prompt as a worker sees it. `extra` holds fields this version does not know."""

    id: str
    prompt: str
    published: float
    deadline: float
    seed: int = 0
    route: Route = "cascade"
    priority: int = NORMAL
    parameters: Mapping[str, Any] = field(default_factory=dict)
    visits: tuple[Visit, ...] = ()
    extra: Mapping[bytes, bytes] = field(default_factory=dict)

    def wire(self, *, stamped: bool = True) -> Wire:
        """The fields of this job's stream entry; unstamped, the door adds `published` and `deadline`."""
        packed: Wire = {"version": VERSION, "id": self.id, "prompt": self.prompt}
        if stamped:
            packed |= {"published": f"{self.published:.6f}", "deadline": f"{self.deadline:.6f}"}
        packed |= {
            "seed": str(self.seed),
            "route": self.route,
            "priority": str(self.priority),
            "visits": pack_visits(self.visits),
        }
        if self.parameters:
            packed["parameters"] = msgpack.packb(dict(self.parameters))
        for name, value in self.extra.items():
            packed[name.decode(errors="replace")] = value
        return packed

    @classmethod
    def from_wire(cls, raw: Fields) -> Job:
        """Read an entry; raises MalformedEntry with the entry's fields and the reason.

        An entry written by hand may lack `id`, `published` and `deadline`: they come back as "" and 0.
        """
        try:
            check_count(raw)
            check_version(raw.get(b"version", b"1"))
            return cls(
                id=raw.get(b"id", b"").decode(),
                prompt=read_prompt(raw[b"prompt"]),
                published=read_seconds(raw.get(b"published", b"0")),
                deadline=read_seconds(raw.get(b"deadline", b"0")),
                seed=int(raw.get(b"seed", b"0")),
                route=cast(Route, read_route(raw.get(b"route", b"cascade"))),
                priority=int(raw.get(b"priority", b"1")),
                parameters=read_parameters(raw.get(b"parameters")),
                visits=unpack_visits(raw.get(b"visits")),
                extra={name: value for name, value in raw.items() if name not in _KNOWN},
            )
        except KeyError as missing:
            raise MalformedEntry(f"no field {missing.args[0].decode()}", raw) from None
        except UNPACK_ERRORS as wrong:
            raise MalformedEntry(str(wrong) or type(wrong).__name__, raw) from None

    def visited(self, visit: Visit) -> Job:
        """This job with one more visit in its history."""
        return Job(
            self.id,
            self.prompt,
            self.published,
            self.deadline,
            self.seed,
            self.route,
            self.priority,
            self.parameters,
            (*self.visits, visit),
            self.extra,
        )

    @property
    def light_visit(self) -> Visit | None:
        """The visit that drew the light picture, if there is one."""
        return next((visit for visit in self.visits if visit.stage == "light"), None)


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a claimed job sits: the class of its stream and the entry's id."""

    priority: int
    entry_id: str
    job: Job


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a prompt ended: exactly one per prompt."""

    id: str
    prompt: str
    end: End
    why: str
    published: float
    deadline: float
    finished: float
    visits: tuple[Visit, ...] = ()
    route: str = "cascade"
    priority: int = NORMAL
    seed: int = 0

    @classmethod
    def from_wire(cls, raw: Fields) -> Outcome:
        """Read an entry of `done`."""
        return cls(
            id=raw[b"id"].decode(errors="replace"),
            prompt=raw.get(b"prompt", b"").decode(errors="replace"),
            end=cast(End, raw[b"end"].decode()),
            why=raw[b"why"].decode(errors="replace"),
            published=float(raw.get(b"published", b"0")),
            deadline=float(raw.get(b"deadline", b"0")),
            finished=float(raw[b"finished"]),
            visits=_visits_or_none(raw.get(b"visits")),
            route=raw.get(b"route", b"cascade").decode(errors="replace"),
            priority=integer_or(raw.get(b"priority"), NORMAL),
            seed=integer_or(raw.get(b"seed"), 0),
        )

    @property
    def answered(self) -> bool:
        """Whether a picture was given."""
        return self.end in ("light", "heavy")

    @property
    def on_time(self) -> bool:
        """Whether a picture was given by the deadline."""
        return self.answered and self.finished <= self.deadline

    @property
    def latency_s(self) -> float:
        """Seconds from publish to settlement."""
        return self.finished - self.published

    @property
    def score(self) -> float | None:
        """The score of the light picture."""
        return next((visit.score for visit in self.visits if visit.stage == "light"), None)

    @property
    def gpu_s(self) -> float:
        """Seconds of a slot that this prompt took, over all its visits."""
        return sum(visit.gpu_s for visit in self.visits)


@dataclass(frozen=True, slots=True)
class Slot:
    """A GPU, or a share of one, and the stages whose processes can run on it."""

    node: str
    number: int
    gpu: str
    stages: tuple[Stage, ...] = ("light", "heavy")

    @property
    def name(self) -> str:
        """The slot's name in a plan, such as `node-a:0`."""
        return f"{self.node}:{self.number}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the planner decides. Workers, agents and the door obey it and know no policy.

    `threshold`: scores below it escalate; of those equal to it the share `tie_share` does.
    `light_service_s`, `heavy_service_s`: seconds per batch of the planned size.
    `light_hold_s`, `heavy_hold_s`: how long an idle worker waits for a batch to fill.
    `heavy_direct`: share of prompts that skips light; `lot`: escalate by lot, not by score.
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
    heavy_direct: float = 0.0
    lot: bool = False
    demand: float = 0.0
    solver: str = ""
    solve_ms: float = 0.0
    why: str = ""
    made: float = 0.0
    assignment: Mapping[str, Stage] = field(default_factory=dict)

    def workers(self, stage: Stage) -> int:
        """Planned workers of the stage."""
        return self.light_workers if stage == "light" else self.heavy_workers

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

    def wire(self) -> Wire:
        """Flat fields; the assignment becomes one field `slot:<name>` per slot."""
        packed: Wire = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name != "assignment":
                packed[item.name] = str(int(value)) if isinstance(value, bool) else str(value)
        packed |= {f"slot:{name}": stage for name, stage in sorted(self.assignment.items())}
        return packed

    @classmethod
    def from_wire(cls, raw: Fields) -> Plan:
        """Read the hash; fields of a newer version are passed over."""
        kinds: dict[str, Callable[[str], Any]] = {
            "int": int,
            "float": float,
            "str": str,
            "bool": lambda text: text == "1",
        }
        text = {name.decode(): value.decode() for name, value in raw.items()}
        known: dict[str, Any] = {
            item.name: kinds[cast(str, item.type)](text[item.name])
            for item in fields(cls)
            if item.name in text and item.type in kinds
        }
        assignment = {name[5:]: cast(Stage, stage) for name, stage in text.items() if name.startswith("slot:")}
        return cls(**known, assignment=assignment)


@dataclass(frozen=True, slots=True)
class View:
    """What a policy sees.

    `offered`: prompts offered in each of the last seconds, oldest first, refused ones included.
    `scores`: live scores of light pictures, oldest first. `waiting`, `running`: prompts per stage.
    `pace`: measured over profiled seconds per stage (1 = as profiled).
    """

    now: float
    offered: tuple[int, ...]
    slots: tuple[Slot, ...]
    scores: tuple[float, ...] = ()
    waiting: Mapping[Stage, int] = field(default_factory=dict)
    running: Mapping[Stage, int] = field(default_factory=dict)
    pace: Mapping[Stage, float] = field(default_factory=dict)
    plan: Plan | None = None


_KNOWN: Final = frozenset(b"version id prompt published deadline seed route priority parameters visits".split())


def pack_visits(visits: tuple[Visit, ...]) -> bytes:
    """Visits as a msgpack list of lists in the order of Visit's fields."""
    rows = [(v.stage, v.worker, v.started, v.finished, v.batch, v.score) for v in visits]
    return cast(bytes, msgpack.packb(rows))


def unpack_visits(packed: bytes | None) -> tuple[Visit, ...]:
    """The inverse of `pack_visits`; raises ValueError or TypeError where a row is no visit."""
    if not packed:
        return ()
    rows = msgpack.unpackb(packed)
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise ValueError("visits are no list of lists")
    visits = tuple(Visit(*row[:6]) for row in rows)
    for visit in visits:
        if visit.stage not in ("light", "heavy") or not isinstance(visit.batch, int) or visit.batch < 1:
            raise ValueError(f"no visit: {visit!r}"[:200])
        finite(visit.started), finite(visit.finished), finite(visit.score or 0.0)
    return visits


def _visits_or_none(packed: bytes | None) -> tuple[Visit, ...]:
    # The outcome of a malformed entry carries the entry's own bytes.
    try:
        return unpack_visits(packed)
    except UNPACK_ERRORS:
        return ()
