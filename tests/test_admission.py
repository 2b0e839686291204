"""Admission: who is refused and why, who goes first, who makes room, and what a cancel does."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from shared.broker import Broker
from shared.cascade import class_order, door_wait_s, stands_before
from shared.config import Settings
from shared.connection import CommandRefused
from shared.embedded import EmbeddedRedis
from shared.exchange import Publication
from shared.messages import Route
from shared.observer import Observer
from shared.plans import Plan
from shared.schema import BATCH, CLASSES, LOWER_EVERY, MEMORY_LOOK_MS, NORMAL, STAGES, URGENT
from tests.helpers import a_plan, ends, events, hire, job, outcomes, publish, put_plan, spoilt, totals


def slow(**changes: Any) -> Plan:
    """One light worker that draws one prompt a second, and no heavy one."""
    given: dict[str, Any] = {"light_batch": 1, "light_service_s": 1.0, "heavy_workers": 0}
    return a_plan(**(given | changes))


def test_a_refusal_says_why_and_when_to_come_again(broker: Broker) -> None:
    put_plan(broker, slow())
    receipts = broker.publish([Publication(job(str(i)), 2.5) for i in range(3)])
    assert [(each.status, each.why) for each in receipts] == [("published", "")] * 2 + [("refused", "deadline")]
    assert receipts[-1].retry_after_s == pytest.approx(0.5)
    assert totals(broker) == {"plans": 1, "offered": 3, "published": 2, "refused": 1, "refused:deadline": 1}


def test_a_deadline_that_no_empty_queue_could_meet_is_refused_without_a_time_to_come_again(broker: Broker) -> None:
    put_plan(broker, slow(heavy_workers=1, heavy_batch=1, heavy_service_s=2.0))
    receipt = publish(broker, "p", allowance_s=0.9)
    assert (receipt.status, receipt.why, receipt.retry_after_s) == ("refused", "allowance", 0.0)
    put_plan(broker, slow(version=2, light_service_s=3.0, heavy_workers=1, heavy_batch=1, heavy_service_s=2.0))
    assert publish(broker, "q", allowance_s=2.5).why == "allowance"
    assert publish(broker, "heavy", allowance_s=2.5, route="heavy").status == "published", "heavy alone makes it"
    assert totals(broker)["refused:allowance"] == 2


def test_only_the_same_and_higher_classes_stand_before_a_prompt(broker: Broker) -> None:
    put_plan(broker, slow())
    publish(broker, *"abc", priority=BATCH, allowance_s=100.0)
    assert publish(broker, "normal", priority=NORMAL, allowance_s=1.5).status == "published"
    assert publish(broker, "late", priority=BATCH, allowance_s=4.5).status == "refused"
    hire(broker).take(1)  # whatever a worker has in its hands stands before everybody
    assert publish(broker, "hasty", priority=URGENT, allowance_s=1.5).status == "refused"
    assert publish(broker, "urgent", priority=URGENT, allowance_s=2.5).status == "published"


def test_a_prompt_for_heavy_is_refused_only_where_neither_way_is_possible(broker: Broker) -> None:
    put_plan(broker, slow(heavy_workers=1, heavy_batch=1, heavy_service_s=2.0))
    publish(broker, *"abcd", allowance_s=100.0)
    assert publish(broker, "cascade", allowance_s=3.0).status == "refused"
    assert publish(broker, "heavy", allowance_s=3.0, route="heavy").status == "published"
    receipt = publish(broker, "heavy-2", allowance_s=3.0, route="heavy")
    assert receipt.status == "refused"
    assert receipt.retry_after_s == pytest.approx(1.0), "heavy is free in 4 s, light in 5"
    put_plan(broker, slow(version=2, heavy_workers=0))
    assert publish(broker, "heavy-3", allowance_s=3.0, route="heavy").retry_after_s == pytest.approx(2.0)


@settings(max_examples=40, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=3, max_size=3),
    priority=st.sampled_from(CLASSES),
    route=st.sampled_from(["cascade", "heavy"]),
)
def test_the_publish_script_and_the_rule_agree(
    oldest_server: EmbeddedRedis, rows: list[tuple[int, int]], priority: int, route: Route
) -> None:
    broker = Broker(Settings(redis_url=oldest_server.url, deployment="door"))
    broker.client.flushdb()
    broker.check()
    light, heavy = hire(broker), hire(broker, "heavy")
    waiting, running = ([row[i] for row in rows] for i in (0, 1))
    for name, numbers in (("runs", running), ("waits", waiting)):
        for number, count in enumerate(numbers):
            for stage in STAGES:
                prompts = [job(f"{name}-{stage}-{number}-{i}", route=stage, priority=number) for i in range(count)]
                broker.publish([Publication(each, 1e3) for each in prompts])
        if name == "runs":
            light.take(9), heavy.take(9)
    plan = slow(light_service_s=0.7, heavy_workers=2, heavy_batch=2, heavy_service_s=1.9)
    put_plan(broker, plan)
    ahead = stands_before(waiting, running, priority)
    expected = door_wait_s(route, {"light": ahead, "heavy": ahead}, plan)
    alone_s = plan.heavy_service_s  # with less, coming again would be in vain
    receipt = publish(broker, "p", priority=priority, route=route, allowance_s=alone_s)
    broker.close()
    assert receipt.status == ("refused" if expected > alone_s else "published")
    assert receipt.retry_after_s == pytest.approx(max(0.0, expected - alone_s), abs=1e-5)


def pass_by() -> None:
    """Wait until the door asks for the memory again."""
    time.sleep(4 * MEMORY_LOOK_MS / 1000)


def test_at_four_fifths_of_the_memory_the_door_refuses_and_what_is_inside_is_finished(broker: Broker) -> None:
    publish(broker, "inside", "known")
    light = hire(broker)
    entry, other = light.take(2)
    used = int(broker.client.info("memory")["used_memory"])
    try:
        broker.client.config_set("maxmemory", used * 10 // 9)
        pass_by()
        receipt = publish(broker, "p")
        assert (receipt.status, receipt.why) == ("refused", "memory")
        assert receipt.retry_after_s > 0
        assert publish(broker, "known").status == "known"
        broker.client.config_set("maxmemory", used // 2)  # past the limit: writes are refused
        pass_by()
        assert publish(broker, "q").why == "memory"
        fresh = hire(broker, slot_key=broker.keys.slot("test", 1))
        fresh.die()
        assert not fresh.beat().alive
        broker.announce("light", fresh.name, {"node": "test", "stage": "light", "ready": "1"})
        assert broker.hold(fresh.slot_key, fresh.name)
        assert [light.beat(entry).alive, light.end(entry), light.escalate(other)] == [True, 1, 1]
        heavy = hire(broker, "heavy")
        assert heavy.end(heavy.one()) == 1
        put_plan(broker, a_plan(version=9))
        broker.announce_node("test", {"name": "test"})
    finally:
        broker.client.config_set("maxmemory", 0)
    pass_by()
    assert publish(broker, "p").status == "published"
    assert light.end(light.one()) == 1
    assert totals(broker)["refused:memory"] == 2


def crowded(broker: Broker) -> None:
    """Four prompts of the normal class, which can all just be made."""
    put_plan(broker, slow(light_service_s=10.0))
    publish(broker, *"abcd", allowance_s=45.0)


def test_who_is_pushed_past_its_deadline_by_a_higher_class_makes_room(broker: Broker) -> None:
    crowded(broker)
    publish(broker, "batch", priority=BATCH, allowance_s=1000.0)
    assert publish(broker, "urgent", priority=URGENT, allowance_s=45.0).status == "published"
    assert ends(broker) == {"d": ("dropped", "displaced")}, "the youngest; whoever has time left stays"
    assert [each.prompt for each in outcomes(broker)] == ["a cat"]
    assert totals(broker)["dropped:displaced"] == 1


def test_of_several_the_lowest_class_makes_room_and_each_newcomer_displaces_one(broker: Broker) -> None:
    crowded(broker)
    publish(broker, *"xyz", priority=BATCH, allowance_s=75.0)
    receipts = broker.publish([Publication(job(str(i), priority=URGENT), 45.0) for i in range(2)])
    assert [each.status for each in receipts] == ["published"] * 2
    assert ends(broker) == dict.fromkeys("zy", ("dropped", "displaced"))


def test_nobody_is_displaced_out_of_a_workers_hands_or_by_its_own_class(broker: Broker) -> None:
    crowded(broker)
    light = hire(broker)
    held = light.take(4)
    publish(broker, "urgent", priority=URGENT, allowance_s=100.0)
    publish(broker, "normal", allowance_s=100.0)
    assert not ends(broker)
    assert [light.end(entry) for entry in held] == [1] * 4


def test_one_that_a_worker_took_meanwhile_is_not_displaced(broker: Broker) -> None:
    publish(broker)
    light = hire(broker)
    entry = light.one()
    assert not broker.overtake("p", "light", 1, entry.entry_id, "dropped", "displaced", waiting_only=True)
    assert light.end(entry) == 1
    assert ends(broker) == {"p": ("light", "confident")}


def test_a_prompt_handed_back_waits_and_may_be_displaced(broker: Broker) -> None:
    crowded(broker)
    light = hire(broker)
    light.take(4)
    broker.hand_back_all("light", light.name)
    publish(broker, "urgent", priority=URGENT, allowance_s=45.0)
    assert list(ends(broker)) == ["d"]


def test_every_eighth_mixed_batch_starts_from_below_the_lowest_and_the_middle_in_turn() -> None:
    firsts = [class_order(turn)[0] for turn in range(4 * LOWER_EVERY)]
    expected = [URGENT] * (LOWER_EVERY - 1)
    assert firsts == [*expected, BATCH, *expected, NORMAL] * 2
    assert all(sorted(class_order(turn)) == list(CLASSES) for turn in range(20))


def test_a_crowd_of_urgent_prompts_starves_nobody(broker: Broker) -> None:
    publish(broker, *(f"u{number}" for number in range(30)), priority=URGENT)
    publish(broker, "n", priority=NORMAL)
    publish(broker, "b", priority=BATCH)
    light = hire(broker)
    served = [light.one().job.id for _ in range(2 * LOWER_EVERY)]
    assert (served[LOWER_EVERY - 1], served[2 * LOWER_EVERY - 1]) == ("b", "n")
    assert [each[0] for each in served].count("u") == 2 * LOWER_EVERY - 2
    assert totals(broker)["mixed:light"] == 2 * LOWER_EVERY


@pytest.mark.parametrize("where", ["waiting", "handed back", "running", "escalated", "heavy running"])
def test_a_cancelled_prompt_ends_at_once_wherever_it_is_and_its_result_is_void(broker: Broker, where: str) -> None:
    publish(broker, "p", "other")
    light, heavy = hire(broker), hire(broker, "heavy")
    hand, held = light, light.take(2) if where != "waiting" else []
    if where == "handed back":
        broker.hand_back_all("light", light.name)
    if "heavy" in where or where == "escalated":
        light.escalate(held[0])
        hand, held = heavy, heavy.take() if where == "heavy running" else []
    done = broker.cancel("p")
    assert (done.done, done.state) == (True, "cancelled")
    assert ends(broker) == {"p": ("cancelled", "asked")}
    assert events(broker)[-1][b"end"] == b"cancelled"
    if "running" in where:
        assert hand.beat(*held).entries == {entry.place for entry in held if entry.job.id != "p"}
        assert hand.end(held[0]) == 0
        assert not broker.client.exists(broker.keys.image("p", hand.stage))
    assert (broker.cancel("p").done, broker.cancel("p").state) == (False, "cancelled")
    assert "p" not in {prompt.id for prompt in Observer(broker).open_prompts(1e12)}
    assert totals(broker)["cancelled"] == 1


def test_a_cancel_says_what_stood_already(broker: Broker) -> None:
    assert (broker.cancel("nobody").done, broker.cancel("nobody").state) == (False, "unknown")
    publish(broker)
    light = hire(broker)
    light.end(light.one())
    assert (broker.cancel("p").done, broker.cancel("p").state) == (False, "light")
    assert ends(broker) == {"p": ("light", "confident")}


@pytest.mark.parametrize("name", ["due", "done", "dead", "events", "totals"])
def test_an_error_inside_a_cancel_leaves_the_prompt_where_it_was(broker: Broker, name: str) -> None:
    publish(broker)
    with spoilt(broker, str(getattr(broker.keys, name))), pytest.raises(CommandRefused, match="WRONGTYPE"):
        broker.cancel("p")
    assert not ends(broker)
    assert broker.cancel("p").done
