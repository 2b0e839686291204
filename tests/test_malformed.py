"""Whatever is written straight into the streams ends `failed`, why `malformed`, and no worker dies of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from models.backend import Abandoned, Picture, never
from services.lease import Lease
from services.worker import Worker
from shared.broker import Broker
from shared.catalog import load_cascade
from shared.config import Settings
from shared.embedded import EmbeddedRedis
from shared.messages import Job
from shared.observer import Observer
from shared.schema import CLASSES, Stage
from shared.wire import DIGITS, ID_LIMIT, LATEST, PROMPT_LIMIT
from tests.helpers import a_plan, assert_conserved, by_hand, ends, hire, holders, logger, publish, put_plan, totals

EXAMPLES, AT_ONCE = 100, 100
ENTRIES = EXAMPLES * AT_ONCE
Fields = dict[bytes, bytes]
CONTROLS = [chr(code) for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n\r"]


def no_number(text: bytes) -> bool:
    try:
        return not 0 <= float(text) <= LATEST
    except ValueError:
        return True


def no_integer(text: bytes) -> bool:
    try:
        int(text)
    except ValueError:
        return True
    return len(text) > DIGITS


def unreadable(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return True
    return False


def packed(values: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    return values.map(msgpack.packb)


SHORT = st.binary(max_size=8)
TORN = st.binary(min_size=1, max_size=40).map(lambda data: b"\xc1" + data)  # a byte that msgpack never uses
LIES = st.sampled_from(
    [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"]
)
DEEP = st.integers(1_100, 9_000).map(lambda depth: b"\x91" * depth)
EXTENDED = st.sampled_from([b"\xd4\x05a", b"\xc7\x01\x05a", b"\xd6\xff\0\0\0\0"])
NO_VISITS = packed(
    st.integers(-(2**63), 2**64 - 1)
    | st.lists(st.integers(0, 9), min_size=1)
    | st.just([["middle", "w", 1.0, 2.0, 1]])
    | st.just([["light", "w", 1.0, 2.0, 0]])
    | st.just([["light", "w", "soon", 2.0, 1]])
    | st.just([["light", 7, 1.0, 2.0, 1]])
    | st.just([["light", "w", 1.0]])
    | st.just([["light", "w", float("nan"), 2.0, 1]])
    | st.just([["light", "w", 1.0, 2.0, 1, "high"]])
    | st.just([["light", "w", 1.0, 2.0, 1]] * 65)
)
NO_PARAMETERS = packed(
    st.integers(0, 9)
    | st.just({1: 2})
    | st.just({"steps": 151})
    | st.just({"steps": "many"})
    | st.just({"width": 2**40})
    | st.just({"height": 100})
    | st.just({"guidance": float("nan")})
    | st.just({"x" * 65: 1})
    | st.just({str(number): number for number in range(65)})
    | st.just({"x": "y" * 20_000})
)
SPOILT: dict[bytes, st.SearchStrategy[bytes]] = {
    b"prompt": st.text(" \t\n", max_size=5).map(str.encode)
    | st.binary(min_size=1, max_size=20).filter(unreadable)
    | st.integers(PROMPT_LIMIT + 1, PROMPT_LIMIT + 2_000).map(lambda length: b"x" * length)
    | st.sampled_from(CONTROLS).map(lambda control: f"a {control} cat".encode()),
    b"id": st.sampled_from([*CONTROLS, "\n", "\t"]).map(lambda control: f"p{control}".encode())
    | st.binary(min_size=1, max_size=20).filter(unreadable)
    | st.integers(ID_LIMIT + 1, 5_000).map(lambda length: b"x" * length),
    b"version": st.sampled_from([b"", b"0.9", b"2000.0", b"-2.0", b"\xff", b"one"]),
    b"seed": st.binary(max_size=40).filter(no_integer) | st.just(b"9" * 5_000),
    b"priority": st.sampled_from([b"", b"-1", b"3", b"1.5", b"urgent", b"9" * 5_000]),
    b"published": st.binary(max_size=20).filter(no_number) | st.sampled_from([b"nan", b"inf", b"-1", b"1e300"]),
    b"deadline": st.binary(max_size=20).filter(no_number) | st.sampled_from([b"nan", b"-inf", b"-5", b"1e12"]),
    b"route": st.binary(max_size=20).filter(lambda text: text not in (b"cascade", b"light", b"heavy")),
    b"visits": (TORN | LIES | DEEP | EXTENDED | NO_VISITS),
    b"parameters": (TORN | LIES | DEEP | EXTENDED | NO_PARAMETERS),
    b"mood": st.just(b"x" * 70_000),
}
TAKEN = b"good-0"  # the id of another prompt, open at first and then settled


@st.composite
def malformed(draw: st.DrawFn) -> Fields:
    """A prompt with one field spoilt or without its text, and fields nobody knows."""
    fields: Fields = {b"prompt": b"a cat", b"version": b"1.0"}
    fields |= draw(st.dictionaries(st.sampled_from([b"end", b"why", b"\xff", b"x" * 300]), SHORT, max_size=2))
    name = draw(st.sampled_from([*sorted(SPOILT), b""]))
    if name != b"id" and draw(st.integers(0, 9)) == 0:
        fields[b"id"] = TAKEN
    if not name:
        del fields[b"prompt"]
        return fields or {b"x": b"y"}
    return fields | {name: draw(SPOILT[name])}


class Easel:
    """A model that draws whatever comes."""

    stage: Stage = "light"

    def warm_up(self, batches: Sequence[int]) -> None:
        """Nothing to warm."""

    def draw(self, jobs: Sequence[Job], _abandoned: Abandoned = never) -> list[Picture]:
        return [Picture(b"webp", 0.9) for _ in jobs]


@pytest.mark.parametrize("state", ["open", "settled"])
def test_a_malformed_entry_with_the_id_of_another_prompt_leaves_a_letter_and_that_prompt_alone(
    broker: Broker, state: str
) -> None:
    publish(broker, "good")
    light = hire(broker)
    entry = light.one()
    if state == "settled":
        light.end(entry)
    record, counted = broker.client.hgetall(broker.keys.prompt("good")), totals(broker)
    by_hand(broker, {"id": "good", "seed": "x", "mood": "blue"})
    (broken,) = light.claim().broken
    broker.fail("light", light.name, broken, 9.0)
    (letter,) = (fields for _, fields in Observer(broker).rows(broker.keys.dead, "0", 9))
    assert (letter[b"end"], letter[b"why"], letter[b"seed"]) == (b"failed", b"malformed", b"x")
    assert letter[b"reason"]
    assert (broker.client.hgetall(broker.keys.prompt("good")), totals(broker)) == (record, counted)
    if state == "open":
        assert light.end(entry) == 1
    assert ends(broker) == {"good": ("light", "confident")}
    assert not holders(broker)


@pytest.mark.timeout(1200)  # half a minute of processor time, and the machine may be crowded
def test_ten_thousand_malformed_entries_end_failed_and_good_prompts_among_them_are_served(
    oldest_server: EmbeddedRedis,
) -> None:
    broker = Broker(Settings(redis_url=oldest_server.url, deployment="spoilt", node="test"))
    broker.check()
    put_plan(broker, a_plan(light_batch=64, light_service_s=1e-6, assignment={"test:0": "light"}))
    lease = Lease(broker.settings, "light", "test-0-light-1", "played", logger)
    lease.start()
    worker = Worker(broker.settings, "light", load_cascade("tiny"), Easel(), lease, logger)
    good = taken = 0

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(entries=st.lists(malformed(), min_size=AT_ONCE, max_size=AT_ONCE), priority=st.sampled_from(CLASSES))
    def feed(entries: list[Fields], priority: int) -> None:
        nonlocal good, taken
        taken += sum(fields.get(b"id") == TAKEN for fields in entries)
        pipe = broker.client.pipeline(transaction=False)
        for fields in entries:
            pipe.xadd(broker.keys.streams["light"][priority], fields)  # type: ignore[arg-type]
        pipe.execute()
        publish(broker, f"good-{good}", priority=priority, allowance_s=1000.0)
        good += 1
        while Observer(broker).backlog()["light"].waiting:
            worker.step()

    feed()
    worker.leave()
    found = ends(broker)
    spoilt = good * AT_ONCE - taken
    assert Counter(found.values()) == {("failed", "malformed"): spoilt, ("light", "confident"): good}
    assert taken > ENTRIES / 50
    assert good * AT_ONCE >= ENTRIES
    assert not holders(broker)
    assert_conserved(broker)
    broker.client.flushdb()
    broker.close()
