"""What is known of one prompt, wherever it is: its record, and its entry or its outcome, read together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast

from shared.connection import Connection, NotAllowed
from shared.messages import REQUEST, USER, End, Visit, readable_visits
from shared.schema import NORMAL, QUEUE_SHOWN, STAGES, Stage
from shared.wire import integer_or

State = Literal["open", "light", "heavy", "dropped", "failed", "cancelled"]
Fields = Mapping[bytes, bytes]
OPEN: Final = "open"
LOOKS: Final = 3  # a prompt that moves on between its record and its entry is found by the next
QUEUE_AGE_S: Final = 0.25  # a place in the queue is an estimate anyway; asking costs the server up to a millisecond


@dataclass(frozen=True, slots=True)
class Look:
    """A prompt as it stands; times are seconds of the server's clock, 0 where they are not known yet.

    `stage`: where it is or was last. `has_light`: its light picture was made and it went on to heavy.
    `waiting`: prompts that are drawn before it, None where it is in a worker's hands, settled, or was not asked
    for, as `placed` tells; at most shared.schema.QUEUE_SHOWN, which says "or more". `upgraded`: a heavy picture came
    after the end. `request`: the fingerprint of the request that it came of, where that had an Idempotency-Key;
    `user`: on whose behalf it was asked for. Like the prompt they are empty where its outcome is not kept any more.
    """

    id: str
    state: State
    stage: Stage
    priority: int = NORMAL
    prompt: str = ""
    why: str = ""
    reason: str = ""
    published: float = 0.0
    deadline: float = 0.0
    finished: float = 0.0
    visits: tuple[Visit, ...] = ()
    attempts: int = 0
    has_light: bool = False
    upgraded: bool = False
    waiting: int | None = None
    placed: bool = False
    request: str = ""
    user: str = ""

    @property
    def end(self) -> End | None:
        """How it ended, None while it is open."""
        return None if self.state == OPEN else self.state

    @property
    def score(self) -> float | None:
        """The score of the light picture."""
        return next((visit.score for visit in self.visits if visit.stage == "light"), None)


@dataclass(frozen=True, slots=True)
class _Queue:
    """Who waited in a stream at a time: `read` on this process' clock, `at` on the server's; `last` has an entry."""

    read: float
    at: float
    last: Sequence[bytes]
    places: Mapping[bytes, int]

    def place(self, entry: bytes) -> int | None:
        """How many stand before an entry, None for one in a worker's hands; one that came since stands last."""
        if entry in self.places:
            return self.places[entry]
        came_since = _order(entry)[0] >= int(self.at * 1000)  # an id tells no less than a millisecond
        behind = len(self.places) >= QUEUE_SHOWN and _order(entry) > _order(self.last[0])
        return len(self.places) if came_since or behind else None


def _order(entry: bytes) -> tuple[int, int]:
    """An entry's id as what it counts: milliseconds, and a number within one."""
    milliseconds, _, number = entry.partition(b"-")
    return int(milliseconds), int(number or 0)


class Lookup:
    """Reads records over a connection; any number of threads may share one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._keys = connection.keys
        self._client: Any = connection.client
        self._queues: dict[str, _Queue] = {}

    def look(self, prompt_id: str, *, place: bool = False) -> Look | None:
        """The prompt as it stands; None for one that nobody knows, or whose record has run out.

        `place`: with its place in the queue, as it was QUEUE_AGE_S ago at most.
        """
        record, message = self._read(prompt_id)
        if not record:
            return None
        found = _look(prompt_id, record, message)
        if not place or found.state != OPEN:
            return found
        with suppress(NotAllowed):  # a reader may run no script, and this takes one
            return replace(found, waiting=self._ahead(found, record.get(b"entry", b"0-0")), placed=True)
        return found

    def _ahead(self, look: Look, entry: bytes) -> int | None:
        """How many are drawn before an entry: those of its class that came before it, and all of higher ones."""
        streams = self._keys.streams[look.stage]
        place = self._queue(streams[look.priority]).place(entry)
        if place is None:
            return None
        return min(QUEUE_SHOWN, place + sum(len(self._queue(each).places) for each in streams[: look.priority]))

    def _queue(self, stream: str) -> _Queue:
        """Who waits in a stream; asked for now and then, however many want to know."""
        known = self._queues.get(stream)
        if known is None or time.monotonic() - known.read > QUEUE_AGE_S:
            now, *entries = cast(list[bytes], self._connection.run("queue", [stream], [QUEUE_SHOWN]))
            places = {entry: number for number, entry in enumerate(entries)}
            known = _Queue(time.monotonic(), float(now), entries[-1:], places)
            self._queues[stream] = known
        return known

    def _read(self, prompt_id: str) -> tuple[Fields, Fields]:
        """Its record, empty where there is none, and what `_message` finds by it."""
        record: Fields = {}
        for _ in range(LOOKS):
            record = cast(Fields, self._client.hgetall(self._keys.prompt(prompt_id)))
            if b"state" not in record:
                return {}, {}
            if message := self._message(record):
                return record, message
        return record, {}

    def _message(self, record: Fields) -> Fields:
        """The fields of its outcome, or of its entry while it is open; none where it has just moved on."""
        if outcome := record.get(b"outcome"):
            place, entry = self._keys.done, outcome
        else:
            place, entry = self._keys.streams[_stage(record)][_priority(record)], record.get(b"entry", b"0-0")
        rows = self._client.xrange(place, entry, entry)
        return cast(Fields, rows[0][1]) if rows else {}


def _look(prompt_id: str, record: Fields, message: Fields) -> Look:
    def text(raw: Fields, name: bytes) -> str:
        return raw.get(name, b"").decode(errors="replace")

    return Look(
        id=prompt_id,
        state=cast(State, text(record, b"state")),
        stage=_stage(record),
        priority=_priority(record),
        prompt=text(message, b"prompt"),
        why=text(record, b"why"),
        reason=text(message, b"reason"),
        published=float(record.get(b"published", b"0")),
        deadline=float(record.get(b"deadline", b"0")),
        finished=float(record.get(b"finished", b"0")),
        visits=readable_visits(message.get(b"visits")),
        attempts=integer_or(record.get(b"attempts"), 0),
        has_light=record.get(b"light") == b"1",
        upgraded=record.get(b"upgraded") == b"1",
        request=text(message, REQUEST),
        user=text(message, USER),
    )


def _stage(record: Fields) -> Stage:
    return STAGES[record.get(b"stage") == b"heavy"]


def _priority(record: Fields) -> int:
    return integer_or(record.get(b"class"), NORMAL)
