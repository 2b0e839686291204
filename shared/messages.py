"""The values that travel: Visit, Job, Outcome, and their wire form (plans: `plans.py`).

A message is frozen and carries its own history: each stage appends a `Visit`, so what reaches `done`
holds the whole path and nothing is joined afterwards. Stream entries are flat fields, readable in
redis-cli; `parameters` and `visits` are packed with msgpack. Times are seconds of the server's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

import msgpack

from shared.errors import MalformedEntry
from shared.schema import NORMAL, VERSION, Stage
from shared.wire import (
    ITEM_LIMIT,
    UNPACK_ERRORS,
    check_size,
    check_version,
    finite,
    integer_or,
    read_id,
    read_integer,
    read_parameters,
    read_priority,
    read_prompt,
    read_route,
    read_seconds,
    unpack,
)

Route = Literal["cascade", "light", "heavy"]
End = Literal["light", "heavy", "dropped", "failed", "cancelled"]
ENDS: Final[tuple[End, ...]] = ("light", "heavy", "dropped", "failed", "cancelled")
UNSAFE: Final = "unsafe"  # why a prompt failed whose words or picture nobody shall see
# Fields of a prompt's entry that travel with it and that no worker needs.
TRACEPARENT: Final = b"traceparent"  # for who follows it across systems (W3C)
REQUEST: Final = b"request"  # the fingerprint of the request that its id was derived for
USER: Final = b"user"  # on whose behalf it was asked for
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
        """The fields of this job's stream entry; unstamped, the door adds `published` and `deadline`.

        A field at its default is left out: each one costs the server at every hop.
        """
        packed: Wire = {"version": VERSION, "id": self.id, "prompt": self.prompt}
        if stamped:
            packed |= {"published": f"{self.published:.6f}", "deadline": f"{self.deadline:.6f}"}
        if self.seed:
            packed["seed"] = str(self.seed)
        if self.route != "cascade":
            packed["route"] = self.route
        if self.priority != NORMAL:
            packed["priority"] = str(self.priority)
        if self.visits:
            packed["visits"] = pack_visits(self.visits)
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
            check_size(raw)
            check_version(raw)
            return cls(
                id=read_id(raw.get(b"id", b"")),
                prompt=read_prompt(raw[b"prompt"]),
                published=read_seconds(raw.get(b"published", b"0")),
                deadline=read_seconds(raw.get(b"deadline", b"0")),
                seed=read_integer(raw.get(b"seed", b"0")),
                route=cast(Route, read_route(raw.get(b"route", b"cascade"))),
                priority=read_priority(raw.get(b"priority", b"1")),
                parameters=read_parameters(raw.get(b"parameters")),
                visits=unpack_visits(raw.get(b"visits")),
                extra={} if raw.keys() <= _KNOWN else {name: raw[name] for name in raw.keys() - _KNOWN},
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

    @property
    def place(self) -> tuple[int, str]:
        """What tells it from the stage's other entries: in one millisecond two classes may give the same id."""
        return self.priority, self.entry_id


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
    traceparent: str = ""

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
            visits=readable_visits(raw.get(b"visits")),
            route=raw.get(b"route", b"cascade").decode(errors="replace"),
            priority=integer_or(raw.get(b"priority"), NORMAL),
            seed=integer_or(raw.get(b"seed"), 0),
            traceparent=raw.get(TRACEPARENT, b"").decode(errors="replace"),
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


_KNOWN: Final = frozenset(b"version id prompt published deadline seed route priority parameters visits".split())


def pack_visits(visits: tuple[Visit, ...]) -> bytes:
    """Visits as a msgpack list of lists in the order of Visit's fields."""
    rows = [(v.stage, v.worker, v.started, v.finished, v.batch, v.score) for v in visits]
    return cast(bytes, msgpack.packb(rows))


def unpack_visits(packed: bytes | None) -> tuple[Visit, ...]:
    """The inverse of `pack_visits`; raises ValueError or TypeError where a row is no visit."""
    if not packed:
        return ()
    rows = unpack(packed)
    if not isinstance(rows, list) or len(rows) > ITEM_LIMIT or not all(isinstance(row, list) for row in rows):
        raise ValueError("visits are no list of lists")
    visits = tuple(Visit(*row[:6]) for row in rows)
    for visit in visits:
        sound = isinstance(visit.worker, str) and isinstance(visit.batch, int) and visit.batch >= 1
        if not sound or visit.stage not in ("light", "heavy"):
            raise ValueError(f"no visit: {visit!r}"[:200])
        finite(visit.started), finite(visit.finished), finite(visit.score or 0.0)
    return visits


def readable_visits(packed: bytes | None) -> tuple[Visit, ...]:
    """Visits as `unpack_visits` reads them; none where they are malformed."""
    # The outcome of a malformed entry carries the entry's own bytes.
    try:
        return unpack_visits(packed)
    except UNPACK_ERRORS:
        return ()
