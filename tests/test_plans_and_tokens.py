"""Plans and tokens: one leader, one newest plan, one process per slot."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from services.lease import Lease
from shared.broker import Broker
from shared.config import Settings
from shared.connection import Unreachable
from shared.observer import Observer
from shared.plans import Slot, View
from shared.schema import Stage
from tests.helpers import a_plan, events, hire, logger, publish, put_plan, totals
from tests.processes import until

pytestmark = pytest.mark.live

VIEW = View(0.0, (1, 2), (Slot("test", 0, "cpu"), Slot("test", 1, "cpu")))


def test_only_the_leaders_newer_plan_stands(broker: Broker, observer: Observer) -> None:
    plan = a_plan(version=2, assignment={"test:0": "light", "test:1": "heavy"})
    leader = broker.keys.leader("control")
    assert not broker.put_plan(plan, VIEW, "me"), "nobody leads"
    assert broker.hold(leader, "me")
    assert not broker.hold(leader, "you")
    assert not broker.put_plan(plan, VIEW, "you")
    assert broker.plan() is None
    assert broker.put_plan(plan, VIEW, "me")
    for version in (1, 2):
        assert not broker.put_plan(replace(plan, version=version, threshold=0.9), VIEW, "me")
    assert broker.plan() == plan
    assert observer.plans()[0] == [plan]
    assert [event[b"version"] for event in events(broker)] == [b"2"]
    assert totals(broker) == {"plans": 1}


def test_a_paused_leaders_plan_is_refused(broker: Broker) -> None:
    leader = broker.keys.leader("control")
    broker.hold(leader, "paused")
    broker.client.delete(leader)  # what Redis does when the lease runs out
    broker.hold(leader, "next")
    assert broker.put_plan(a_plan(version=5), VIEW, "next")
    assert not broker.put_plan(a_plan(version=6), VIEW, "paused")
    assert not broker.release(leader, "paused")
    broker.release(leader, "next")
    broker.hold(leader, "paused")
    assert not broker.put_plan(a_plan(version=4), VIEW, "paused"), "it leads again, but its plan is older"
    plan = broker.plan()
    assert plan is not None
    assert plan.version == 5


def test_a_plan_leaves_nothing_of_the_one_before(broker: Broker) -> None:
    put_plan(broker, a_plan(version=1, assignment={"gone:0": "light"}))
    put_plan(broker, a_plan(version=2, assignment={"test:0": "heavy"}))
    plan = broker.plan()
    assert plan is not None
    assert dict(plan.assignment) == {"test:0": "heavy"}
    assert broker.client.ttl(broker.keys.plan) == -1, "the last plan stays in force while the planner is away"


def test_moved_slots_wake_every_worker_and_a_new_threshold_wakes_none(broker: Broker) -> None:
    broker.hold(broker.keys.leader("control"), "me")
    first = a_plan(version=1, assignment={"test:0": "light", "test:1": "heavy"})
    broker.put_plan(first, VIEW, "me")
    wakes = list(broker.keys.wake.values())
    assert [broker.client.llen(key) for key in wakes] == [2, 2]
    broker.client.delete(*wakes)
    broker.put_plan(replace(first, version=2, threshold=0.1), replace(VIEW, plan=first), "me")
    assert [broker.client.llen(key) for key in wakes] == [0, 0]


def test_a_token_runs_out_unless_it_is_renewed(broker: Broker) -> None:
    short = Broker(Settings(redis_url=broker.settings.redis_url, deployment=broker.settings.deployment, lease_s=1.5))
    key = broker.keys.slot("test", 7)
    assert short.hold(key, "a")
    for _ in range(4):
        time.sleep(0.5)  # two seconds in all, more than a lease
        assert short.hold(key, "a")
    assert not short.hold(key, "b")
    time.sleep(1.7)
    assert short.hold(key, "b")
    assert not short.hold(key, "a")
    assert not short.release(key, "a")
    assert short.release(key, "b")
    short.close()


def test_a_slot_shows_the_stages_whose_workers_are_ready(broker: Broker, observer: Observer) -> None:
    first, second = hire(broker), hire(broker, "heavy")
    assert observer.slots() == (Slot("test", 0, "cpu", ("light", "heavy")),)
    second.die()
    assert observer.slots() == (Slot("test", 0, "cpu", ("light",)),)
    broker.announce_node("test", {"name": "test", "resident": "0"})
    assert observer.slots() == (Slot("test", 0, "cpu", ("light", "heavy"), False),), "the agent can swap"
    broker.announce("light", first.name, {"node": "test", "slot": "0", "gpu": "cpu", "stage": "light", "ready": "0"})
    assert observer.slots() == ()


def test_a_slot_that_swaps_its_model_stays_in_the_view(broker: Broker, observer: Observer) -> None:
    broker.hold(broker.keys.leader("control"), "me")
    broker.put_plan(a_plan(version=1, assignment={"test:0": "light", "test:1": "heavy"}), VIEW, "me")
    hire(broker)
    about = {"name": "test", "resident": "0", "gpu": "cpu", "worker-1-light": "STOPPING", "worker-1-heavy": "STOPPED"}
    broker.announce_node("test", about)
    both: tuple[Stage, ...] = ("light", "heavy")
    assert observer.slots() == (Slot("test", 0, "cpu", both, False), Slot("test", 1, "cpu", both, False))
    broker.announce_node("test", about | {"worker-1-light": "FATAL", "worker-1-heavy": "BACKOFF"})
    assert observer.slots() == (Slot("test", 0, "cpu", both, False),), "neither model comes up there"
    broker.announce_node("test", about | {"resident": "1"})
    assert observer.slots() == (Slot("test", 0, "cpu", ("light",)),), "where both stay loaded, only the ready draw"


def test_a_token_that_ran_out_while_its_holder_draws_is_its_own_again(broker: Broker) -> None:
    publish(broker)
    hand = hire(broker)
    entry = hand.one()
    broker.client.delete(hand.slot_key)
    assert hand.beat(entry).holder, "nobody took it meanwhile"
    assert not broker.hold(hand.slot_key, "other")
    broker.client.delete(hand.slot_key)
    assert broker.hold(hand.slot_key, "other")
    assert not hand.beat(entry).holder, "somebody did"
    broker.client.delete(hand.slot_key)
    broker.renew("light", hand.name, hand.slot_key, [entry], holds=False)
    hand.end(entry)
    assert not hand.beat(entry).holder
    assert not broker.client.exists(hand.slot_key), "who draws nothing takes none"


def test_after_an_outage_the_holder_of_a_slot_comes_before_who_waits_for_it(broker: Broker) -> None:
    settings = broker.settings.model_copy(update={"lease_s": 2.0})
    lease = Lease(settings, "light", "test-0-light-waits", "played", logger)
    hold = broker.hold

    def away(_key: str, _token: str) -> bool:
        raise Unreachable[0]("no answer")

    def stalling(key: str, token: str) -> bool:
        time.sleep(0.6)
        return hold(key, token)

    troubles: list[Callable[[str, str], bool]] = [away, stalling]
    for trouble in troubles:
        broker.hold = trouble  # type: ignore[method-assign,assignment]
        with suppress(*Unreachable):
            assert not lease.take_slot(broker)
        broker.hold = hold  # type: ignore[method-assign]
        assert not lease.take_slot(broker), "its holder had no time to renew it"
        assert not broker.client.exists(lease.slot_key)
        until(lambda: lease.take_slot(broker), "in the end it is free")
        lease.give_up_slot(broker)
