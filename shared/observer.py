"""What can be read out of Redis without changing it: totals, queues, fleet, outcomes, events.

For the planner's view, the keeper, recorders and people's tools.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, cast

from shared.census import Census, Planned, census, is_slot, knows_its_place
from shared.connection import BLOCK_S, CommandRefused, Connection
from shared.errors import PlanUnreadable
from shared.exchange import OpenPrompt
from shared.messages import Outcome
from shared.orders import Deed
from shared.pictures import open_pictures
from shared.plans import Plan, Slot
from shared.schema import CLASSES, GROUP, NORMAL, STAGES, Keys, Stage, node_of, reserved
from shared.standing import read_ceiling
from shared.wire import finite


@dataclass(frozen=True, slots=True)
class Backlog:
    """Prompts of a stage that wait and that are in hand."""

    waiting: int
    running: int


Fields = dict[bytes, bytes]
StreamRow = tuple[bytes, Fields]


class Observer:
    """Reads over a connection; `connection` may be any Broker."""

    def __init__(self, connection: Connection) -> None:
        self.keys: Keys = connection.keys
        self._client: Any = connection.client
        self._blocking: Any = connection.blocking
        self._pictures = open_pictures(connection)

    def totals(self) -> dict[str, float]:
        """The counters, from `{d}:totals`; one that is no number is passed over."""
        raw = cast(Fields, self._client.hgetall(self.keys.totals))
        counted = {name.decode(errors="replace"): _number(value) for name, value in raw.items()}
        return {name: number for name, number in counted.items() if number is not None}

    def backlog(self) -> dict[Stage, Backlog]:
        """Waiting = XLEN - pending + handed back; `lag` is absent on Redis 6.2 and turns nil on 7."""
        pipe = self._client.pipeline(transaction=False)
        for stage in STAGES:
            for stream in self.keys.streams[stage]:
                pipe.xlen(stream)
                pipe.xpending(stream, GROUP)
        replies = iter(pipe.execute(raise_on_error=False))
        found: dict[Stage, Backlog] = {}
        for stage in STAGES:
            waiting = running = 0
            for _ in self.keys.streams[stage]:
                length, pending = next(replies), next(replies)
                if isinstance(length, CommandRefused):  # no stream: what sits there is nobody's prompt
                    continue
                count, back = (0, 0) if isinstance(pending, CommandRefused) else _pending(pending)
                waiting += length - count + back
                running += count - back
            found[stage] = Backlog(waiting, running)
        return found

    def workers(self) -> list[dict[str, str]]:
        """What every live worker says of itself; its name is in the group, its key is its lease."""
        return self.about(self.worker_names())

    def about(self, names: Iterable[str]) -> list[dict[str, str]]:
        """What those of these workers that live say of themselves."""
        return self._hashes(self.keys.worker(name) for name in names)

    def worker_names(self, node: str = "") -> list[str]:
        """The workers that a group knows, those that died not long ago among them; `node`: those of one node only."""
        names: list[str] = []
        for stage in STAGES:
            try:
                rows = self._client.xinfo_consumers(self.keys.streams[stage][NORMAL], GROUP)
            except CommandRefused:  # the group is gone; whoever claims next makes it again
                continue
            names += [row["name"].decode(errors="replace") for row in rows]
        return [name for name in names if not reserved(name) and (not node or node_of(name) == node)]

    def ceilings(self, models: Mapping[Stage, str], gpus: Iterable[str]) -> dict[Stage, dict[str, int]]:
        """The most prompts of a batch by stage and GPU type, where a larger one did not fit the memory."""
        places = [(stage, gpu) for stage in models for gpu in sorted(gpus)]
        keys = [self.keys.ceiling(models[stage], gpu) for stage, gpu in places]
        found: dict[Stage, dict[str, int]] = {}
        for (stage, gpu), text in zip(places, self._client.mget(keys) if keys else (), strict=True):
            if (ceiling := read_ceiling(text)) is not None:
                found.setdefault(stage, {})[gpu] = ceiling
        return found

    def in_hands(self, node: str) -> tuple[int, int]:
        """How many prompts the node's workers hold, and on how many of its slots a worker may still take some."""
        pipe = self._client.pipeline(transaction=False)
        for stage in STAGES:
            for stream in self.keys.streams[stage]:
                pipe.xinfo_consumers(stream, GROUP)
        replies = [rows for rows in pipe.execute(raise_on_error=False) if not isinstance(rows, CommandRefused)]
        held = sum(row["pending"] for rows in replies for row in rows if node_of(row["name"].decode()) == node)
        slots = {int(worker["slot"]) for worker in self.about(self.worker_names(node)) if knows_its_place(worker)}
        tokens = self._client.mget([self.keys.slot(node, slot) for slot in sorted(slots)]) if slots else ()
        return held, sum(token is not None for token in tokens)

    def leads(self, service: str) -> bool:
        """Whether a process acts as the service."""
        return bool(self._client.exists(self.keys.leader(service)))

    def deeds(self, count: int) -> list[Deed]:
        """The newest orders of people, oldest first."""
        return [Deed.from_wire(entry_id, fields) for entry_id, fields in self.latest(self.keys.audit, count)]

    def nodes(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """What the agents of these nodes say, by the node's name."""
        found = self._hashes(self.keys.node(name) for name in names)
        return {about["name"]: about for about in found if "name" in about}

    def slots(self) -> tuple[Slot, ...]:
        """Every slot that can draw, with the stages whose workers are ready on it, whatever its cascade."""
        return self.census().slots

    def census(self, models: Mapping[Stage, str] | None = None) -> Census:
        """The slots that can draw; `models`: those who draw with others do not count."""
        planned, workers = self._planned(), self.workers()
        names = {worker["node"] for worker in workers if knows_its_place(worker)} | {node for node, _ in planned}
        return census(workers, self.nodes(names), planned, models)

    def planned_for(self) -> Planned | None:
        """The cascade of the planner that leads; None where none does or it does not say."""
        return Planned.of_token(cast("bytes | None", self._client.get(self.keys.leader("control"))))

    def _planned(self) -> set[tuple[str, int]]:
        """Node and number of each slot that the plan in force gives a stage."""
        names = (name.decode(errors="replace") for name in self._client.hkeys(self.keys.plan))
        slots = (name.removeprefix("slot:").rpartition(":") for name in names if name.startswith("slot:"))
        return {(node, int(number)) for node, _, number in slots if node and is_slot(number)}

    def open_prompts(self, before: float, limit: int = 1000) -> list[OpenPrompt]:
        """Open prompts due before a time, the most urgent first; one whose record cannot be read is passed over."""
        found: list[OpenPrompt] = []
        looked = limit
        for start in count(0, limit):
            if len(found) >= limit or looked < limit:
                break
            due = self._client.zrangebyscore(self.keys.due, "-inf", before, start=start, num=limit, withscores=True)
            found += self._readable(due)
            looked = len(due)
        return found

    def _readable(self, due: Sequence[tuple[bytes, float]]) -> list[OpenPrompt]:
        pipe = self._client.pipeline(transaction=False)
        for prompt_id, _ in due:
            pipe.hmget(self.keys.prompt(prompt_id.decode(errors="replace")), ["stage", "class", "entry", "light"])
        replies = pipe.execute(raise_on_error=False)
        found = (_open_prompt(*pair, record) for pair, record in zip(due, replies, strict=True))
        return [prompt for prompt in found if prompt is not None]

    def next_due(self) -> float | None:
        """The earliest deadline of all open prompts."""
        first = self._client.zrange(self.keys.due, 0, 0, withscores=True)
        return float(first[0][1]) if first else None

    def outcomes(self, after: str = "0", count: int = 1000) -> tuple[list[Outcome], str]:
        """Outcomes after a stream id, oldest first, and the id to go on from; an unreadable one is passed over."""
        rows = self.rows(self.keys.done, after, count)
        return list(_outcomes(rows)), rows[-1][0].decode() if rows else after

    def plans(self, after: str = "0", count: int = 1000) -> tuple[list[Plan], str]:
        """Plans after a stream id, oldest first, and the id to go on from; an unreadable one is passed over."""
        rows = self.rows(self.keys.plans, after, count)
        return list(_plans(rows)), rows[-1][0].decode() if rows else after

    def latest(self, key: str, count: int, after: str = "", before: str = "") -> Sequence[StreamRow]:
        """The newest rows of a stream, oldest first; those after and before an id, where one is given."""
        first, last = f"({after}" if after else "-", f"({before}" if before else "+"
        newest = self._client.xrevrange(key, max=last, min=first, count=count)
        return list(reversed(cast(list[StreamRow], newest)))

    def rows(self, key: str, after: str, count: int) -> Sequence[StreamRow]:
        """Rows of a stream after an id, oldest first."""
        return cast(list[StreamRow], self._client.xrange(key, min=f"({after}", count=count))

    def newest(self, key: str) -> str:
        """The id of a stream's newest entry, "0" where it has none."""
        newest = self._client.xrevrange(key, count=1)
        return cast(bytes, newest[0][0]).decode() if newest else "0"

    def follow(self, key: str, after: str, count: int, timeout_s: float) -> Sequence[StreamRow]:
        """Rows of a stream after an id, oldest first; waits up to `timeout_s`, at most BLOCK_S, for the first."""
        block_ms = max(1, int(min(timeout_s, BLOCK_S) * 1000))
        found = self._blocking.xread({key: after}, count=count, block=block_ms)
        return cast(list[StreamRow], found[0][1]) if found else []

    def sizes(self) -> tuple[int, int]:
        """How many prompts are open, and how many dead letters there are."""
        pipe = self._client.pipeline(transaction=False)
        pipe.zcard(self.keys.due)
        pipe.xlen(self.keys.dead)
        open_prompts, dead = pipe.execute()
        return open_prompts, dead

    def picture_bytes(self) -> int | None:
        """Bytes of the pictures kept, by their accounts; None where nobody counts them."""
        return self._pictures.size()

    def image(self, prompt_id: str, stage: Stage) -> bytes | None:
        """An encoded picture, if it still lives."""
        return self.images([(prompt_id, stage)])[0]

    def images(self, wanted: Iterable[tuple[str, Stage]]) -> list[bytes | None]:
        """Several pictures in one round trip."""
        return self._pictures.get(wanted)

    def _hashes(self, keys: Iterable[str]) -> list[dict[str, str]]:
        pipe = self._client.pipeline(transaction=False)
        for key in keys:
            pipe.hgetall(key)
        found: list[Any] = pipe.execute(raise_on_error=False)
        kept: list[Mapping[bytes, bytes]] = [raw for raw in found if raw and not isinstance(raw, CommandRefused)]
        return [
            {name.decode(errors="replace"): value.decode(errors="replace") for name, value in raw.items()}
            for raw in kept
        ]


def _outcomes(rows: Iterable[StreamRow]) -> Iterator[Outcome]:
    for _, fields in rows:
        with suppress(KeyError, ValueError):
            yield Outcome.from_wire(fields)


def _plans(rows: Iterable[StreamRow]) -> Iterator[Plan]:
    for _, fields in rows:
        with suppress(PlanUnreadable):
            yield Plan.from_wire(fields)


def _number(text: bytes) -> float | None:
    try:
        return finite(float(text))
    except ValueError:
        return None


def _open_prompt(prompt_id: bytes, deadline: float, record: Sequence[bytes | None] | Exception) -> OpenPrompt | None:
    """None where the record is none, or says what no script writes."""
    if isinstance(record, Exception):
        return None
    stage, priority, entry, light = (field.decode(errors="replace") if field else "" for field in record)
    stage, priority = stage or "light", priority or str(NORMAL)
    if stage not in STAGES or priority not in map(str, CLASSES):
        return None
    known = prompt_id.decode(errors="replace")
    return OpenPrompt(known, deadline, stage, int(priority), entry or "0-0", has_light=light == "1")


def _pending(summary: Any) -> tuple[int, int]:
    back = sum(row["pending"] for row in summary["consumers"] if reserved(row["name"].decode()))
    return summary["pending"], back
