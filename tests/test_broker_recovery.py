"""Dead, paused and meddled-with: nothing is lost, nothing is served twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shared.broker import Broker
from shared.errors import MalformedEntry
from shared.exchange import Broken, Publication
from shared.messages import Entry
from shared.observer import Observer
from shared.schema import GROUP, MEMORY_LOOK_MS, SUSPECT, Stage
from tests.helpers import (
    ALLOWANCE_S,
    Hand,
    by_hand_alike,
    count_alike,
    ends,
    hire,
    holders,
    job,
    outcomes,
    publish,
    totals,
)


def test_a_paused_worker_cannot_take_its_entry_back(broker: Broker) -> None:
    publish(broker)
    paused, other = hire(broker), hire(broker)
    entry = paused.one()
    assert paused.beat(entry).entries == {entry.place}
    paused.die()
    assert broker.reclaim() == 1
    renewal = paused.beat(entry)
    assert (renewal.alive, renewal.holder, renewal.entries) == (False, False, frozenset())
    (again,) = other.take()
    assert again.entry_id == entry.entry_id
    assert paused.beat(entry).entries == frozenset()
    assert not paused.claim().holder
    assert holders(broker) == {other.place(entry): other.name}
    assert [paused.end(entry), paused.escalate(entry), broker.hand_back("light", paused.name, [entry])] == [0, 0, 0]
    assert not ends(broker)
    assert other.end(again) == 1
    assert paused.end(entry) == 0
    assert ends(broker) == {"p": ("light", "confident")}
    assert "wasted_s" not in totals(broker)


def test_a_beat_returns_only_what_is_still_ours(broker: Broker) -> None:
    publish(broker, "a", "b", "c")
    light = hire(broker)
    first, second, third = light.take(3)
    light.end(first)
    broker.hand_back("light", light.name, [second])
    assert light.beat(first, second, third).entries == {third.place}


def test_a_beat_tells_entries_of_two_classes_apart_that_have_one_id(broker: Broker) -> None:
    count_alike(broker)
    broker.publish([Publication(job("a", priority=0), ALLOWANCE_S), Publication(job("b", priority=1), ALLOWANCE_S)])
    light = hire(broker)
    first, second = light.take(2)
    assert first.entry_id == second.entry_id
    assert holders(broker) == {light.place(first): light.name, light.place(second): light.name}
    assert broker.cancel("a").done
    assert light.beat(first, second).entries == {second.place}
    assert light.end(second) == 1


def test_reclaim_moves_only_what_the_dead_held_and_it_is_claimed_alone(broker: Broker) -> None:
    publish(broker, "a", "b", "c", "d")
    dead, alive = hire(broker), hire(broker)
    lost, kept = dead.take(2), alive.take(1)
    assert broker.reclaim() == 0
    dead.die()
    assert broker.reclaim() == 2
    assert broker.reclaim() == 0
    expected = {dead.place(entry): SUSPECT for entry in lost} | {alive.place(kept[0]): alive.name}
    assert holders(broker) == expected
    assert totals(broker)["reclaimed"] == 2
    assert [[entry.job.id for entry in alive.take(4)] for _ in range(3)] == [["a"], ["b"], ["d"]]


def test_a_consumer_with_pending_entries_is_never_deleted(broker: Broker) -> None:
    publish(broker, *map(str, range(1003)))
    dead = hire(broker)
    assert sum(len(dead.take(59)) for _ in range(17)) == 1003
    dead.die()
    assert broker.reclaim() == 1000
    names = {row["name"].decode() for row in broker.client.xinfo_consumers(broker.keys.streams["light"][1], GROUP)}
    assert dead.name in names
    assert broker.reclaim() == 3
    names = {row["name"].decode() for row in broker.client.xinfo_consumers(broker.keys.streams["light"][1], GROUP)}
    assert dead.name not in names
    assert set(holders(broker).values()) == {SUSPECT}


def test_a_worker_that_retires_is_forgotten_at_once(broker: Broker, observer: Observer) -> None:
    light = hire(broker)
    assert [worker["stage"] for worker in observer.workers()] == ["light"]
    broker.retire("light", light.name)
    assert observer.workers() == []
    rows = broker.client.xinfo_consumers(broker.keys.streams["light"][1], GROUP)
    assert light.name not in {row["name"].decode() for row in rows}


def test_a_destroyed_group_costs_no_prompt_and_serves_none_twice(broker: Broker) -> None:
    publish(broker, "held", "waiting")
    light, other = hire(broker), hire(broker)
    held = light.one()
    broker.client.xgroup_destroy(broker.keys.streams["light"][1], GROUP)
    assert light.end(held) == 0, "nobody owns it any more"
    entries = other.take(4)
    assert [entry.job.id for entry in entries] == ["held", "waiting"]
    assert broker.reclaim() == 0
    assert [light.end(held), *(other.end(entry) for entry in entries)] == [0, 1, 1]
    assert set(ends(broker)) == {"held", "waiting"}
    assert not light.take(4)


def test_the_keeper_makes_a_destroyed_group_again(broker: Broker) -> None:
    publish(broker)
    broker.client.xgroup_destroy(broker.keys.streams["heavy"][1], GROUP)
    broker.reclaim()
    assert broker.client.xinfo_groups(broker.keys.streams["heavy"][1])


@pytest.mark.parametrize("where", ["returned", "suspect", "in hand", "dead hand", "fresh"])
def test_an_entry_deleted_by_hand_wedges_nothing_and_its_prompt_is_answered(broker: Broker, where: str) -> None:
    publish(broker, "gone", allowance_s=0.2)
    light = hire(broker)
    if where == "fresh":
        ((gone, _),) = Observer(broker).rows(broker.keys.streams["light"][1], "0", 1)
        broker.client.xdel(broker.keys.streams["light"][1], gone)
    else:
        entry = light.one()
        if where in ("returned", "suspect"):
            broker.hand_back("light", light.name, [entry], suspect=where == "suspect")
        broker.client.xdel(broker.keys.streams["light"][1], entry.entry_id)
    if where == "dead hand":
        light.die()
        broker.reclaim()
        light = hire(broker)
    publish(broker, "good")
    served = light.take(2) or light.take(2)
    assert [each.job.id for each in served] == ["good"]
    if where in ("returned", "fresh"):
        assert served, "at the first look"
    light.end(served[0])
    (due,) = Observer(broker).open_prompts(broker.now() + 60)
    assert broker.overtake(due.id, due.stage, due.priority, due.entry_id, "dropped", "deadline")
    assert ends(broker) == {"good": ("light", "confident"), "gone": ("dropped", "deadline")}
    assert not light.take(4)
    assert not holders(broker)


def test_the_keeper_ends_nothing_that_moved_on_or_has_ended(broker: Broker) -> None:
    publish(broker, "moved", "ended")
    light = hire(broker)
    moved, ended = light.take(2)
    assert [light.escalate(moved), light.end(ended)] == [1, 1]
    assert not broker.overtake("moved", "light", 1, moved.entry_id, "light", "deadline")
    assert not broker.overtake("ended", "light", 1, ended.entry_id, "dropped", "deadline")
    assert ends(broker) == {"ended": ("light", "confident")}
    (due,) = Observer(broker).open_prompts(1e12)
    assert broker.overtake(due.id, due.stage, due.priority, due.entry_id, "light", "deadline")
    assert not broker.overtake(due.id, due.stage, due.priority, due.entry_id, "light", "deadline")
    assert ends(broker)["moved"] == ("light", "deadline")
    assert not broker.move_to_light(due.id, due.priority, due.entry_id)


def test_an_entry_is_known_by_its_stage_too_where_both_streams_give_the_same_id(broker: Broker) -> None:
    count_alike(broker)
    publish(broker, "moved")
    light = hire(broker)
    (entry,) = light.take(1)
    assert light.escalate(entry) == 1
    (due,) = Observer(broker).open_prompts(1e12)
    assert (due.stage, due.entry_id) == ("heavy", entry.entry_id), "alike"
    assert not broker.overtake("moved", "light", 1, entry.entry_id, "light", "deadline")
    assert broker.overtake("moved", "heavy", 1, entry.entry_id, "light", "deadline")
    assert ends(broker) == {"moved": ("light", "deadline")}


ELSEWHERE: list[tuple[Stage, int]] = [("light", 0), ("heavy", 1)]  # prompts are published into light's class 1


def taken_alike(broker: Broker, stage: Stage, priority: int) -> tuple[Hand, Entry]:
    """A worker with an entry by hand in its hands that has the id of another prompt's entry, and of that prompt."""
    publish(broker)
    publisher = hire(broker)
    entry = publisher.one()
    by_hand_alike(broker, entry, stage, priority)
    broker.hand_back("light", publisher.name, [entry])
    hand = hire(broker, stage)
    return hand, hand.one()


@pytest.mark.parametrize(("stage", "priority"), ELSEWHERE)
def test_what_has_the_id_of_a_prompts_entry_in_another_stream_settles_nothing(
    broker: Broker, stage: Stage, priority: int
) -> None:
    hand, alike = taken_alike(broker, stage, priority)
    assert not broker.overtake("p", stage, priority, alike.entry_id, "dropped", "deadline")
    assert stage == "light" or not broker.move_to_light("p", priority, alike.entry_id, holder=hand.name)
    assert hand.end(alike) == 0
    assert not ends(broker)
    light = hire(broker)
    assert light.escalate(light.one()) == 1
    heavy = hire(broker, "heavy")
    assert heavy.end(heavy.one()) == 1
    assert [(each.end, each.prompt) for each in outcomes(broker)] == [("heavy", "a cat")]
    assert not holders(broker)


@pytest.mark.parametrize(("stage", "priority"), ELSEWHERE)
def test_who_dies_of_it_charges_that_prompt_with_no_death(broker: Broker, stage: Stage, priority: int) -> None:
    hand, _ = taken_alike(broker, stage, priority)
    hand.die()
    assert broker.reclaim() == 1
    assert not broker.client.hexists(broker.keys.prompt("p"), "attempts")
    broker.client.delete(broker.keys.streams[stage][priority])


@pytest.mark.parametrize(("stage", "priority"), ELSEWHERE)
def test_it_waits_for_no_newer_worker_for_nobody_would_end_it(broker: Broker, stage: Stage, priority: int) -> None:
    hand, alike = taken_alike(broker, stage, priority)
    broken = Broken(priority, alike.entry_id, MalformedEntry("newer", {b"id": b"p"}))
    assert not broker.keep_for(stage, hand.name, broken, 2, 9.0)
    broker.fail(stage, hand.name, broken, 9.0)
    assert not ends(broker)
    own = hire(broker)
    kept = Broken(1, own.one().entry_id, broken.error)
    assert broker.keep_for("light", own.name, kept, 2, 9.0), "the prompt's own entry does"


@pytest.mark.parametrize("class_", ["", "seven"])
def test_a_record_that_does_not_tell_its_place_is_settled_by_its_entry(broker: Broker, class_: str) -> None:
    publish(broker)
    record = broker.keys.prompt("p")
    broker.client.hdel(record, "stage", "class")
    if class_:
        broker.client.hset(record, mapping={"stage": "middle", "class": class_})
    light = hire(broker)
    assert light.end(light.one()) == 1
    assert ends(broker) == {"p": ("light", "confident")}


DOOR_LOOKS_S = MEMORY_LOOK_MS / 1000 + 0.05  # the door knows of a new limit by then


@contextmanager
def memory_limit(broker: Broker) -> Iterator[None]:
    broker.client.config_set("maxmemory-policy", "noeviction")
    broker.client.config_set("maxmemory", "1mb" if broker.client.info("memory")["used_memory"] > 2**20 else "100kb")
    time.sleep(DOOR_LOOKS_S)
    try:
        yield
    finally:
        broker.client.config_set("maxmemory", "0")
        time.sleep(DOOR_LOOKS_S)


def test_at_the_memory_limit_nothing_is_lost_and_no_lease_runs_out(broker: Broker) -> None:
    publish(broker, "a", "b", "c", "d", "e")
    publish(broker, "h", route="heavy")
    light, heavy = hire(broker), hire(broker, "heavy")
    ending, escalating, kept, overdue = light.take(4)
    leader = broker.keys.leader("keeper")
    assert broker.hold(leader, "me")
    waiting = Observer(broker).open_prompts(broker.now() + 60)[-1]
    with memory_limit(broker):
        assert publish(broker, "refused").status == "refused"
        renewal = light.beat(ending, escalating, kept)
        assert (renewal.alive, renewal.holder, len(renewal.entries)) == (True, True, 3)
        assert broker.hold(leader, "me")
        assert not broker.hold(leader, "other")
        assert light.end(ending) == 1
        assert light.escalate(escalating) == 1
        assert broker.hand_back("light", light.name, [kept]) == 1
        assert broker.overtake(overdue.job.id, "light", 1, overdue.entry_id, "dropped", "deadline")
        assert broker.move_to_light(waiting.id, waiting.priority, waiting.entry_id)
        assert [entry.job.id for entry in light.take(4)] == ["c", "e", "h"]
        light.die()
        assert broker.reclaim() == 3
        assert heavy.end(heavy.one()) == 1
    light = hire(broker)
    for prompt_id in ("c", "e", "h"):
        entry = light.one()
        assert entry.job.id == prompt_id
        assert light.end(entry) == 1
    assert set(ends(broker)) == {"a", "b", "c", "d", "e", "h"}
    assert publish(broker, "refused").status == "published"
