"""The parts of a simulated deployment: a clock that jumps from event to event, prompts, queues and workers."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any, Final

from shared.messages import Route, Visit
from shared.schema import Stage

Act = Callable[..., None]


class Clock:
    """Seconds that pass only between events."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Act, tuple[Any, ...]]] = []
        self._numbers = count()

    def at(self, time_s: float, act: Act, *arguments: Any) -> None:
        """Have something happen at a time, or now if that has passed; equal times in the order of asking."""
        heapq.heappush(self._events, (max(time_s, self.now), next(self._numbers), act, arguments))

    def run(self, going: Callable[[], bool]) -> None:
        """Let time pass while it is `going` and something is still to come."""
        while self._events and going():
            self.now, _, act, arguments = heapq.heappop(self._events)
            act(*arguments)


@dataclass(slots=True, eq=False)
class Prompt:
    """An open prompt: what Redis holds of it in its entry, its record and its stream's pending list."""

    id: str
    number: int
    index: int
    text: str
    published: float
    deadline: float
    route: Route
    since: float
    stage: Stage
    visits: tuple[Visit, ...] = ()
    open: bool = True
    suspect: bool = False
    holder: Worker | None = None

    @property
    def has_light(self) -> bool:
        """Whether a light picture is there."""
        return bool(self.visits)


@dataclass(slots=True, eq=False)
class Worker:
    """The one process that may draw on a slot. `stage` is None while it turns to another or has nothing to do."""

    slot: str
    node: str
    number: int
    gpu: str
    stage: Stage | None = None
    turning: Stage | None = None
    batch: list[Prompt] = field(default_factory=list)
    started: float = 0.0
    alive: bool = True
    incarnation: int = 0

    def name(self, stage: Stage) -> str:
        """A name such as `sim-3-light-0`, as live workers have: node, slot, stage, incarnation."""
        return f"{self.node}-{self.number}-{stage}-{self.incarnation}"


class Queue:
    """The stream of a stage: those who wait, in order, and how many are in hand.

    Whoever leaves from the middle (answered by the keeper, moved to light) stays in the row until the head
    reaches it: `open`, `stage` and `holder` tell.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage: Final = stage
        self.waiting = 0
        self.running = 0
        self.next_look = float("inf")
        self.idle: dict[Worker, None] = {}
        self._row: deque[Prompt] = deque()
        self._suspects: deque[Prompt] = deque()

    @property
    def backlog(self) -> int:
        """Prompts waiting and in hand."""
        return self.waiting + self.running

    def put(self, prompt: Prompt) -> None:
        """At the end of the row."""
        self._row.append(prompt)
        self.waiting += 1

    def put_back(self, prompts: list[Prompt]) -> None:
        """To their old places, to be drawn alone: what a death left behind."""
        for prompt in prompts:
            prompt.suspect, prompt.holder = True, None
            self._suspects.append(prompt)
        self.waiting += len(prompts)
        self.running -= len(prompts)

    def suspect(self) -> Prompt | None:
        """The first of those that are to be drawn alone."""
        while self._suspects and not self._waits(self._suspects[0]):
            self._suspects.popleft()
        return self._suspects[0] if self._suspects else None

    def head(self, limit: int) -> list[Prompt]:
        """The first of the others in order, at most `limit`."""
        while self._row and not self._in_row(self._row[0]):
            self._row.popleft()
        return list(islice((prompt for prompt in self._row if self._in_row(prompt)), limit))

    def take(self, prompts: list[Prompt], worker: Worker) -> None:
        """Give prompts to a worker."""
        for prompt in prompts:
            prompt.holder = worker
        self.waiting -= len(prompts)
        self.running += len(prompts)

    def leave(self, prompt: Prompt) -> None:
        """A prompt is answered or goes elsewhere."""
        if prompt.holder is None:
            self.waiting -= 1
        else:
            self.running -= 1

    def _in_row(self, prompt: Prompt) -> bool:
        return self._waits(prompt) and not prompt.suspect

    def _waits(self, prompt: Prompt) -> bool:
        return prompt.open and prompt.holder is None and prompt.stage == self.stage
