"""Looks at a deployment again and again: each look brings what stands now and what has ended since the last.

Recorders, dashboards and exporters share it; it changes nothing in Redis.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from shared.broker import Broker
from shared.census import Planned
from shared.connection import CommandRefused, Unreachable
from shared.errors import PlanUnreadable
from shared.letters import Letter
from shared.messages import Outcome
from shared.observer import Backlog, Observer, StreamRow
from shared.plans import Plan
from shared.recording import Tick
from shared.schema import STAGES, Stage

LOOK_S: Final = 1.0  # between two looks; a planner makes no more than one plan a second
AT_ONCE: Final = 500  # rows of a stream in one answer: Redis serves nobody else meanwhile
LETTERS: Final = 20
START: Final = "0"
COUNTED: Final = ("offered", "light", "heavy", "dropped", "failed", "refused")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Mark:
    """A plan and when it came into force."""

    time_s: float
    plan: Plan


@dataclass(frozen=True, slots=True)
class Reading:
    """How a deployment stands at one moment.

    `totals`: the counters of `{d}:totals`. `workers`, `nodes`: what they say of themselves, nodes by name. `open`:
    prompts on their way. `dead`: dead letters. `picture_bytes`: of the pictures kept, None where nobody counts them.
    `planned_for`: the cascade of the planner that leads, where one does and says it.
    """

    time_s: float
    totals: Mapping[str, float]
    backlog: Mapping[Stage, Backlog]
    plan: Plan | None
    workers: Sequence[Mapping[str, str]]
    nodes: Mapping[str, Mapping[str, str]]
    open: int
    dead: int
    picture_bytes: int | None
    planned_for: Planned | None = None

    def draws(self, worker: Mapping[str, str]) -> bool:
        """Whether a worker is ready and the plan gives its slot to its stage."""
        return worker.get("ready") == "1" and self.is_wanted(worker)

    def is_wanted(self, worker: Mapping[str, str]) -> bool:
        """Whether the plan gives the worker's slot to its stage."""
        if self.plan is None:
            return False
        return self.plan.assignment.get(f"{worker.get('node')}:{worker.get('slot')}") == worker.get("stage")

    def ready(self, stage: Stage) -> int:
        """Workers that draw for the stage."""
        return sum(self.draws(worker) for worker in self.workers if worker.get("stage") == stage)

    def loading(self, stage: Stage) -> int:
        """Workers that the plan gives to the stage and that are not ready yet."""
        wanted = (worker for worker in self.workers if worker.get("stage") == stage and self.is_wanted(worker))
        return sum(worker.get("ready") != "1" for worker in wanted)

    def tick(self) -> Tick:
        """This reading as a row of a recording."""
        light, heavy = (self.backlog[stage] for stage in STAGES)
        return Tick(
            time_s=self.time_s,
            **{name: int(self.totals.get(name, 0)) for name in COUNTED},
            waiting_light=light.waiting,
            running_light=light.running,
            waiting_heavy=heavy.waiting,
            running_heavy=heavy.running,
            light_workers=self.ready("light"),
            heavy_workers=self.ready("heavy"),
            threshold=self.plan.threshold if self.plan else 0.0,
            demand=self.plan.demand if self.plan else 0.0,
        )


@dataclass(frozen=True, slots=True)
class News:
    """One look: how it stands, with the outcomes, plans and dead letters since the look before, oldest first.

    Of the letters the newest LETTERS only: they hold whole tracebacks.
    """

    reading: Reading
    outcomes: tuple[Outcome, ...]
    marks: tuple[Mark, ...]
    letters: tuple[Letter, ...]


class Lookout:
    """Looks at one deployment, from the oldest outcome and plan on; `past` and `skip` begin elsewhere."""

    def __init__(self, broker: Broker) -> None:
        self.observer = Observer(broker)
        self._broker = broker
        self._after = {"done": START, "plans": START, "dead": ""}

    def look(self) -> News:
        """Fetch what is new."""
        outcomes, marks = tuple(self.outcomes()), tuple(self._follow("plans", _mark))
        return News(self.reading(), outcomes, marks, self._letters())

    def outcomes(self) -> list[Outcome]:
        """The outcomes since the last call or look, oldest first; what is there and is none is passed over."""
        return list(self._follow("done", _outcome))

    def past(self, outcomes: int, since: float) -> tuple[list[Outcome], list[Mark]]:
        """The newest outcomes, at most so many, and plans since a time, oldest first; looks go on from there."""
        return list(self._past("done", _outcome, outcomes, since)), list(self._past("plans", _mark, outcomes, since))

    def skip(self) -> None:
        """Pass over what has ended so far."""
        self.past(1, 0.0)

    def now(self) -> float:
        """The server's time."""
        return self._broker.now()

    def reading(self) -> Reading:
        """How the deployment stands now."""
        observer, plan = self.observer, self._broker.plan()
        workers = observer.workers()
        planned = {slot.rpartition(":")[0] for slot in (plan.assignment if plan else ())}
        open_prompts, dead = observer.sizes()
        return Reading(
            time_s=self._broker.now(),
            totals=observer.totals(),
            backlog=observer.backlog(),
            plan=plan,
            workers=workers,
            nodes=observer.nodes(sorted(planned | {worker["node"] for worker in workers if "node" in worker})),
            open=open_prompts,
            dead=dead,
            picture_bytes=observer.picture_bytes(),
            planned_for=observer.planned_for(),
        )

    def _letters(self) -> tuple[Letter, ...]:
        rows = self.observer.latest(self._broker.keys.dead, LETTERS, self._after["dead"])
        if rows:
            self._after["dead"] = rows[-1][0].decode()
        return tuple(Letter.from_wire(entry_id.decode(), fields) for entry_id, fields in rows)

    def _follow(self, stream: str, read: Callable[[StreamRow], Item]) -> Iterator[Item]:
        while True:
            rows = self.observer.rows(self._key(stream), self._after[stream], AT_ONCE)
            yield from _readable(rows, read)
            if rows:
                self._after[stream] = rows[-1][0].decode()
            if len(rows) < AT_ONCE:
                return

    def _past(self, stream: str, read: Callable[[StreamRow], Item], most: int, since: float) -> list[Item]:
        first, pages = f"{int(since * 1000)}-0", list[list[StreamRow]]()
        while most > 0:
            before = pages[-1][0][0].decode() if pages else ""
            page = list(self.observer.latest(self._key(stream), min(most, AT_ONCE), first, before))
            if not page:
                break
            pages.append(page)
            most -= len(page)
        self._after[stream] = pages[0][-1][0].decode() if pages else first
        return [item for page in reversed(pages) for item in _readable(page, read)]

    def _key(self, stream: str) -> str:
        return self._broker.keys.done if stream == "done" else self._broker.keys.plans


class Listener(Protocol):
    """Who is told of looks; it must not wait for anybody."""

    def note(self, news: News) -> None:
        """Redis answered."""

    def away(self, trouble: str) -> None:
        """Redis did not, and why."""


class Rounds:
    """Looks about once a second and tells the listeners. `begin`: called until it succeeds, before the first look."""

    def __init__(self, lookout: Lookout, listeners: Sequence[Listener], begin: Callable[[], None]) -> None:
        self._lookout = lookout
        self._listeners = listeners
        self._begin: Callable[[], None] | None = begin

    def step(self) -> float:
        """One look; returns the seconds until the next. Raises what Redis raises, once the listeners know."""
        began = time.monotonic()
        try:
            if self._begin is not None:
                self._begin()
                self._begin = None
            news = self._lookout.look()
        except (*Unreachable, CommandRefused) as wrong:
            for listener in self._listeners:
                listener.away(str(wrong))
            raise
        for listener in self._listeners:
            listener.note(news)
        return max(0.0, LOOK_S - (time.monotonic() - began))


def place_of(about: Mapping[str, str]) -> tuple[str, int]:
    """Node and number of the slot on which a worker says it is."""
    return about.get("node", ""), whole(about.get("slot"))


def place_named(slot: str) -> tuple[str, int]:
    """Node and number of a slot by its name in a plan."""
    node, _, number = slot.rpartition(":")
    return node, whole(number)


def whole(text: str | None) -> int:
    """A count as somebody wrote it; 0 where it is none."""
    return int(text) if text and text.isdecimal() else 0


def _readable(rows: Sequence[StreamRow], read: Callable[[StreamRow], Item]) -> Iterator[Item]:
    for row in rows:
        try:
            yield read(row)
        except (KeyError, ValueError, TypeError, PlanUnreadable):  # written by hand: it must not blind who looks
            continue


def _outcome(row: StreamRow) -> Outcome:
    return Outcome.from_wire(row[1])


def _mark(row: StreamRow) -> Mark:
    return Mark(int(row[0].split(b"-")[0]) / 1000, Plan.from_wire(row[1]))
