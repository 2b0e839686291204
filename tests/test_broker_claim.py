"""Claiming: only who holds its slot, in order, never more than the batch, and by the one rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from shared.broker import Broker
from shared.cascade import Waiting, batch_to_take, class_order
from shared.config import Settings
from shared.embedded import EmbeddedRedis
from shared.schema import CLASSES, GROUP, LETTER_LIMIT, LOOK_LIMIT, MESSAGE_LIMIT, RETURNED
from tests.helpers import a_plan, by_hand, ends, hire, holders, publish, put_plan


def test_only_the_holder_of_the_slot_gets_prompts(broker: Broker) -> None:
    publish(broker)
    first = hire(broker)
    second = hire(broker, slot_key=first.slot_key)
    assert not second.claim().holder
    assert not second.take()
    assert not holders(broker)
    assert first.claim().holder
    assert not broker.hold(first.slot_key, second.name)
    assert not broker.release(first.slot_key, second.name)


def test_two_workers_never_hold_one_slot_and_a_dead_ones_slot_is_free_again(broker: Broker) -> None:
    first = hire(broker)
    second = hire(broker, slot_key=first.slot_key)
    assert [first.beat().holder, second.beat().holder] == [True, False]
    first.die()
    assert broker.hold(first.slot_key, second.name)
    assert [first.beat().holder, second.beat().holder] == [False, True]
    assert not broker.hold(first.slot_key, first.name)


def test_classes_are_served_in_order_and_never_more_than_the_batch(broker: Broker) -> None:
    for prompt_id, priority in (("batch", 2), ("normal-1", 1), ("urgent", 0), ("normal-2", 1)):
        publish(broker, prompt_id, priority=priority)
    light = hire(broker)
    assert [(entry.job.id, entry.priority) for entry in light.take(3)] == [
        ("urgent", 0),
        ("normal-1", 1),
        ("normal-2", 1),
    ]
    assert [entry.job.id for entry in light.take(3)] == ["batch"]


def test_prompts_handed_back_keep_id_order_and_place(broker: Broker) -> None:
    publish(broker, "a", "b", "c", "d")
    light = hire(broker)
    taken = light.take(2)
    assert broker.hand_back("light", light.name, reversed(taken)) == 2
    again = hire(broker).take(4)
    assert [entry.job.id for entry in again] == ["a", "b", "c", "d"]
    assert [entry.entry_id for entry in again[:2]] == [entry.entry_id for entry in taken]
    assert broker.hand_back("light", light.name, taken) == 0, "they are another's now"


def test_suspect_prompts_are_claimed_alone(broker: Broker) -> None:
    publish(broker, "a", "b", "c")
    light = hire(broker)
    assert broker.hand_back("light", light.name, light.take(2), suspect=True) == 2
    batches = [[entry.job.id for entry in light.take(3)] for _ in range(3)]
    assert batches == [["a"], ["b"], ["c"]]


def test_an_idle_worker_hears_when_to_ask_again_and_touches_nothing(broker: Broker) -> None:
    publish(broker, "a")
    light = hire(broker)
    claim = light.claim(batch=4, hold_s=10.0)
    assert claim.holder
    assert not claim.entries
    assert 5.0 < claim.ask_again_s <= 10.0
    assert not holders(broker)
    publish(broker, "b", "c", "d")
    assert len(light.claim(batch=4, hold_s=10.0).entries) == 4


def test_hopeless_prompts_are_handed_out_beside_the_batch_and_do_not_fill_it(broker: Broker) -> None:
    publish(broker, "late", allowance_s=0.01)
    publish(broker, "a", "b")
    entries = hire(broker).claim(batch=2, service_s=(0.5, 0.6)).entries
    assert [entry.job.id for entry in entries] == ["late", "a", "b"]


def test_who_leaves_prompts_behind_wakes_the_next(broker: Broker) -> None:
    publish(broker, "a", "b", "c")
    light, wake = hire(broker), broker.keys.wake["light"]
    broker.client.delete(wake)
    light.take(2)
    assert broker.client.llen(wake) == 1
    light.take(2)
    broker.client.delete(wake)
    light.take(2)
    assert not broker.client.exists(wake), "an empty queue wakes nobody"


def test_who_claims_a_prompt_proves_that_it_lives(broker: Broker) -> None:
    light = hire(broker)
    key = broker.keys.worker(light.name)
    for suspect in (False, True):
        broker.client.pexpire(key, 600_000)
        assert not light.take()
        assert broker.client.pttl(key) > 300_000, "who got nothing has its beats"
        publish(broker, f"p-{suspect}")
        (entry,) = light.take()
        assert 0 < broker.client.pttl(key) <= broker.settings.lease_s * 1000
        broker.hand_back("light", light.name, [entry], suspect=True)
        if suspect:
            continue
        broker.client.pexpire(key, 600_000)
        light.end(light.one())
        assert 0 < broker.client.pttl(key) <= broker.settings.lease_s * 1000, "one drawn alone counts too"


def test_of_an_entry_too_large_to_be_a_prompt_a_worker_sees_a_part(broker: Broker) -> None:
    large = b"x" * LOOK_LIMIT
    fields = {b"id": b"large", b"prompt": large, b"mood": large}
    by_hand(broker, fields)
    by_hand(broker, {str(name): "x" * 3_000 for name in range(100)})
    publish(broker, "good")
    light, wake = hire(broker), broker.keys.wake["light"]
    broker.client.delete(wake)
    first = light.claim(batch=4)
    assert (len(first.entries), len(first.broken)) == (0, 1), "the server looks at no more of such a size at once"
    assert broker.client.llen(wake) == 1, "but another may"
    second = light.claim(batch=4)
    assert ([entry.job.id for entry in second.entries], len(second.broken)) == (["good"], 1)
    broken, size = [*first.broken, *second.broken], sum(map(len, (*fields, *fields.values())))
    assert all(sum(map(len, (*each.error.fields, *each.error.fields.values()))) <= LETTER_LIMIT for each in broken)
    assert broken[0].error.reason == f"the message has {size} bytes, {MESSAGE_LIMIT} are allowed"
    for each in broken:
        broker.fail("light", light.name, each, 9.0)
    light.end(second.entries[0])
    assert sorted(ends(broker).values()) == [("failed", "malformed")] * 2 + [("light", "confident")]
    assert ends(broker)["large"] == ("failed", "malformed"), "its own id was among what was seen"


def test_wake_tokens_stay_few(broker: Broker) -> None:
    for number in range(70):
        publish(broker, str(number))
    assert broker.client.llen(broker.keys.wake["light"]) == 64


def test_a_claim_tells_the_plans_version_and_how_many_wait_for_the_next_stage(broker: Broker) -> None:
    put_plan(broker, a_plan(version=7))
    for number in range(4):
        publish(broker, f"h{number}", route="heavy")
    light, heavy = hire(broker), hire(broker, "heavy")
    claim = light.claim()
    assert (claim.plan_version, claim.next_waiting) == (7, 4)
    assert claim.now == pytest.approx(broker.now(), abs=2.0)
    entries = heavy.take(3)
    assert light.claim().next_waiting == 1, "three are being drawn"
    broker.hand_back("heavy", heavy.name, entries[:1])
    broker.hand_back("heavy", heavy.name, entries[1:2], suspect=True)
    assert light.claim().next_waiting == 3, "what was handed back waits"


@dataclass(frozen=True)
class Queue:
    """Per class: (age, slack from now) of each waiting prompt, oldest first, and how many were handed back."""

    items: Sequence[Sequence[tuple[float, float]]]
    returned: Sequence[int]
    turn: int
    batch: int
    hold_s: float
    service_s: Sequence[float]


# Nothing lies within 50 ms of the time a test takes to look, so that the clock's going on changes nothing.
AGES = st.integers(1, 40).map(lambda tenths: tenths / 4 + 0.1)
SLACKS = st.integers(-4, 24).map(lambda quarters: quarters / 4 + 0.12)


@st.composite
def queues(draw: st.DrawFn) -> Queue:
    rows = [sorted(draw(st.lists(st.tuples(AGES, SLACKS), max_size=5)), reverse=True) for _ in CLASSES]
    returned = [draw(st.integers(0, len(row))) for row in rows]
    batch = draw(st.integers(1, 5))
    first, more = draw(st.sampled_from([0.25, 0.5, 1.0])), draw(st.sampled_from([0.25, 0.5]))
    turn = draw(st.sampled_from([0, 6, 7, 8, 15, 23]))
    return Queue(
        rows, returned, turn, batch, draw(st.sampled_from([0.0, 1.0, 5.0])), [first + more * n for n in range(batch)]
    )


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(queue=queues())
def test_the_claim_script_and_the_rule_agree(server: EmbeddedRedis, queue: Queue) -> None:
    broker = Broker(Settings(redis_url=server.url, deployment="rule"))
    broker.client.flushdb()
    broker.check()
    broker.client.hset(broker.keys.totals, "mixed:light", queue.turn)
    now = broker.now()
    rows: list[list[Waiting]] = [[] for _ in CLASSES]
    streams = broker.keys.streams["light"]
    for into, stream, row, returned in zip(rows, streams, queue.items, queue.returned, strict=True):
        for number, (age_s, slack_s) in enumerate(row):
            since_ms, deadline = int((now - age_s) * 1000), f"{now + slack_s:.6f}"
            broker.client.xadd(stream, {"prompt": "a cat", "deadline": deadline}, id=f"{since_ms}-{number}")
            into.append(Waiting(since_ms / 1000, float(deadline)))
        if returned:
            broker.client.xreadgroup(GROUP, RETURNED, {stream: ">"}, count=returned)
    claim = hire(broker).claim(queue.batch, queue.hold_s, queue.service_s)
    mixed = sum(map(bool, rows)) > 1
    waiting = [item for priority in class_order(queue.turn if mixed else 0) for item in rows[priority]]
    expected = batch_to_take(waiting, claim.now, queue.batch, queue.hold_s, queue.service_s)
    counted = int(broker.client.hget(broker.keys.totals, "mixed:light") or 0)
    broker.close()
    assert counted == queue.turn + (mixed and expected.count > 0)
    if waiting:
        assert len(claim.entries) == expected.count
        assert claim.ask_again_s == pytest.approx(expected.ask_again_s, abs=1e-5)
        taken = sorted(entry.job.deadline for entry in claim.entries)
        assert taken == sorted(item.deadline for item in waiting[: expected.count]), "the head of the queue"
    else:
        assert not claim.entries
