"""What the tests of the core share: a worker played by hand, and what Redis shows afterwards."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from shared.broker import Broker
from shared.exchange import Claim, Hop, Publication, Receipt, Renewal
from shared.messages import ENDS, End, Entry, Job, Outcome, Visit
from shared.observer import Observer
from shared.plans import Plan, View
from shared.schema import GROUP, STAGES, Stage

ALLOWANCE_S = 30.0
Place = tuple[Stage, int, str]  # stage, class and id of an entry; its id alone may be another's too
QUICK: Sequence[float] = tuple(0.001 * size for size in range(1, 65))
logger = logging.getLogger("test")


def job(prompt_id: str = "p", prompt: str = "a cat", **fields: Any) -> Job:
    return Job(prompt_id, prompt, 0.0, 0.0, **fields)


def publish(broker: Broker, *ids: str, allowance_s: float = ALLOWANCE_S, lag_s: float = 0.0, **fields: Any) -> Receipt:
    """Offer prompts in one call; the first receipt."""
    return broker.publish([Publication(job(each, **fields), allowance_s, lag_s) for each in ids or ("p",)])[0]


def a_plan(version: int = 1, **changes: Any) -> Plan:
    return replace(Plan("pinned", 0.5, 1, 1, 4, 4, 0.01, 0.02, version=version), **changes)


def an_outcome(
    number: int, end: str = "light", why: str = "confident", finished: float = 10.0, **given: Any
) -> Outcome:
    """One of a batch of two, drawn in the half second before its end."""
    visits = (Visit("light", "n-0-light-x", finished - 0.5, finished, 2, 0.75),)
    return Outcome(
        id=f"p{number}",
        prompt="a cat",
        end=end,  # type: ignore[arg-type]
        why=why,
        published=finished - 1.0 - number / 10,
        deadline=finished + 1.0,
        finished=finished,
        **{"visits": visits, **given},
    )


def put_plan(broker: Broker, plan: Plan) -> None:
    assert broker.hold(broker.keys.leader("control"), "control")
    assert broker.put_plan(plan, View(0.0, (), ()), "control")


@dataclass
class Hand:
    """A worker played by hand: it has a lease and holds a slot of its own."""

    broker: Broker
    stage: Stage
    name: str
    slot_key: str

    def claim(self, batch: int = 1, hold_s: float = 0.0, service_s: Sequence[float] = QUICK) -> Claim:
        return self.broker.claim(
            self.stage,
            self.name,
            self.slot_key,
            batch=batch,
            hold_s=hold_s,
            allowance_s=ALLOWANCE_S,
            service_s=service_s,
        )

    def take(self, batch: int = 1) -> list[Entry]:
        return list(self.claim(batch).entries)

    def place(self, entry: Entry) -> Place:
        return self.stage, *entry.place

    def one(self) -> Entry:
        (entry,) = self.take()
        return entry

    def drawn(self, entry: Entry, score: float | None = None) -> Entry:
        now = self.broker.now()
        return replace(entry, job=entry.job.visited(Visit(self.stage, self.name, now - 0.5, now, 1, score)))

    def escalate(self, entry: Entry, score: float = 0.25) -> int:
        return self.broker.commit(self.stage, self.name, [Hop(self.drawn(entry, score), None, "escalate", b"light")])[0]

    def end(self, entry: Entry, end: End | None = None, why: str = "confident") -> int:
        score = 0.75 if self.stage == "light" else None
        hop = Hop(self.drawn(entry, score), end or self.stage, why, self.stage.encode(), 0.5)
        return self.broker.commit(self.stage, self.name, [hop])[0]

    def beat(self, *entries: Entry) -> Renewal:
        return self.broker.renew(self.stage, self.name, self.slot_key, entries)

    def die(self) -> None:
        """What Redis does when the lease runs out."""
        self.broker.client.delete(self.broker.keys.worker(self.name), self.slot_key)


def hire(broker: Broker, stage: Stage = "light", slot_key: str = "") -> Hand:
    name = f"{stage}-{uuid.uuid4().hex[:8]}"
    hand = Hand(broker, stage, name, slot_key or broker.keys.slot("test", uuid.uuid4().int % 10**9))
    broker.announce(stage, name, {"node": "test", "slot": "0", "gpu": "cpu", "stage": stage, "ready": "1"})
    broker.hold(hand.slot_key, name)
    return hand


def outcomes(broker: Broker) -> list[Outcome]:
    found, after = Observer(broker).outcomes()
    rest = found
    while rest:
        rest, after = Observer(broker).outcomes(after)
        found += rest
    return found


def ends(broker: Broker) -> dict[str, tuple[str, str]]:
    """Prompt id -> (end, why); a prompt that ended twice is an error."""
    found = outcomes(broker)
    assert len({each.id for each in found}) == len(found), "a prompt ended twice"
    return {each.id: (each.end, each.why) for each in found}


def totals(broker: Broker) -> dict[str, float]:
    return Observer(broker).totals()


def events(broker: Broker) -> list[dict[bytes, bytes]]:
    return [fields for _, fields in Observer(broker).rows(broker.keys.events, "0", 1000)]


def holders(broker: Broker) -> dict[Place, str]:
    """Stage, class and id of an entry -> the consumer it is pending for, over all streams."""
    found: dict[Place, str] = {}
    for stage in STAGES:
        for priority, stream in enumerate(broker.keys.streams[stage]):
            rows: Any = broker.client.xpending_range(stream, GROUP, "-", "+", 1000)
            found |= {(stage, priority, row["message_id"].decode()): row["consumer"].decode() for row in rows}
    return found


def count_alike(broker: Broker) -> None:
    """From now on every stream gives the same ids, as several may within a millisecond; their time is far ahead."""
    for stream in chain(*broker.keys.streams.values()):
        ahead = broker.client.xadd(stream, {"gone": "1"}, id="9999999999999-1")
        broker.client.xdel(stream, ahead)


def by_hand_alike(broker: Broker, entry: Entry, stage: Stage, priority: int) -> None:
    """Write an entry by hand with an entry's id and that prompt's, in another stream."""
    job = entry.job
    fields = {"id": job.id, "prompt": "another", "published": f"{job.published}", "deadline": f"{job.deadline}"}
    broker.client.xadd(broker.keys.streams[stage][priority], fields, id=entry.entry_id)  # type: ignore[arg-type]


def by_hand(broker: Broker, fields: dict[Any, Any], stage: Stage = "light", priority: int = 1) -> str:
    """Write an entry as somebody with redis-cli would."""
    entry_id: Any = broker.client.xadd(broker.keys.streams[stage][priority], fields)
    return str(entry_id.decode())


@contextmanager
def spoilt(broker: Broker, key: str) -> Iterator[None]:
    """For a while another type sits at the key; what was there comes back unchanged."""
    client = broker.client
    had = bool(client.exists(key))
    if had:
        client.rename(key, key + ":aside")
    client.set(key, "of another type") if client.type(key) != b"string" else None
    try:
        yield
    finally:
        client.delete(key)
        if had:
            client.rename(key + ":aside", key)


def assert_conserved(broker: Broker) -> None:
    """offered = refused + ends + open, and one outcome per prompt that ended."""
    counted = totals(broker)
    ended = sum(counted.get(end, 0) for end in ENDS)
    still_open = broker.client.zcard(broker.keys.due)
    assert counted.get("offered", 0) == counted.get("refused", 0) + ended + still_open
    assert len(ends(broker)) == ended
