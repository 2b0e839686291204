"""The keeper, stepped by hand: no deadline passes unnoticed and no light picture is thrown away."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from services.keeper import Keeper
from shared.broker import Broker
from shared.observer import Observer
from shared.schema import GROUP, SUSPECT
from tests.helpers import (
    a_plan,
    by_hand,
    ends,
    events,
    hire,
    outcomes,
    publish,
    put_plan,
    spoilt,
    totals,
)
from tests.keeping import LEASE_S, LIGHT_S, keeper_of

pytestmark = pytest.mark.live


@pytest.fixture
def keeper(broker: Broker) -> Iterator[Keeper]:
    made = keeper_of(broker)
    yield made
    made.leave()


@pytest.mark.parametrize("running", [False, True])
def test_an_escalated_prompt_ends_light_before_its_deadline_passes(
    broker: Broker, observer: Observer, running: bool
) -> None:
    margin_s = 5.0
    publish(broker, allowance_s=4.0)
    light, heavy = hire(broker), hire(broker, "heavy")
    light.escalate(light.one())
    if running:
        heavy.one()
    keeper_of(broker, margin_s).step()
    (outcome,) = outcomes(broker)
    assert (outcome.end, outcome.why, outcome.score) == ("light", "deadline", 0.25)
    assert outcome.finished < outcome.deadline
    assert observer.image("p", "light") == b"light"
    assert not heavy.take()


def test_what_has_time_left_is_left_alone(broker: Broker, keeper: Keeper) -> None:
    publish(broker, "p", allowance_s=20.0)
    publish(broker, "h", allowance_s=20.0, route="heavy")
    light = hire(broker)
    light.escalate(light.one())
    assert keeper.step() <= 0.2
    assert not ends(broker)


@pytest.mark.parametrize("fenced", [False, True])
def test_a_late_heavy_picture_of_the_overtaken_owner_is_an_upgrade_and_of_nobody_else(
    broker: Broker, observer: Observer, fenced: bool
) -> None:
    publish(broker, allowance_s=4.0)
    light, heavy = hire(broker), hire(broker, "heavy")
    light.escalate(light.one())
    entry = heavy.one()
    if fenced:
        heavy.die()
        broker.reclaim()
        hire(broker, "heavy").one()
    keeper_of(broker, 5.0).step()
    before = outcomes(broker)
    assert heavy.end(entry) == (0 if fenced else 2)
    assert heavy.end(entry) == 0, "an upgrade is announced once"
    assert outcomes(broker) == before
    assert (observer.image("p", "heavy") == b"heavy") is not fenced
    upgrades = [event for event in events(broker) if event[b"type"] == b"upgraded"]
    assert len(upgrades) == (not fenced)
    assert totals(broker).get("wasted_s", 0.0) == (0.0 if fenced else 0.5)
    assert totals(broker).get("upgraded", 0.0) == (not fenced)


@pytest.mark.parametrize("handed_back", [False, True])
def test_a_prompt_sent_straight_to_heavy_moves_to_light_at_the_last_moment(broker: Broker, handed_back: bool) -> None:
    keeper = keeper_of(broker, margin_s=20.0)  # wide, so that a stalled machine still hits the moment
    receipt = publish(broker, allowance_s=LIGHT_S + 15.0, route="heavy")
    light, heavy = hire(broker), hire(broker, "heavy")
    if handed_back:
        broker.hand_back("heavy", heavy.name, heavy.take(), suspect=True)
    keeper.step()
    assert not heavy.take()
    entry = light.one()
    assert (entry.job.id, entry.job.route) == ("p", "heavy")
    assert entry.job.deadline == pytest.approx(receipt.deadline, abs=2e-6)
    assert light.end(entry, why="moved") == 1
    assert ends(broker) == {"p": ("light", "moved")}


def test_while_the_plan_has_no_light_worker_nothing_moves_to_light(broker: Broker) -> None:
    keeper = keeper_of(broker, margin_s=20.0)
    publish(broker, allowance_s=LIGHT_S + 15.0, route="heavy")
    put_plan(broker, a_plan(light_workers=0, heavy_direct=1.0))
    keeper.step()
    assert not hire(broker).take()
    heavy = hire(broker, "heavy")
    entry = heavy.one()
    broker.hand_back("heavy", heavy.name, [entry])
    put_plan(broker, a_plan(version=2))
    keeper.step()
    assert [entry.job.id for entry in hire(broker).take()] == ["p"], "light is back"
    keeper.leave()


def test_a_prompt_that_heavy_draws_is_neither_moved_nor_dropped_before_its_deadline(
    broker: Broker,
) -> None:
    publish(broker, allowance_s=30.0, route="heavy")
    heavy = hire(broker, "heavy")
    entry = heavy.one()
    keeper_of(broker, margin_s=60.0).step()
    assert heavy.end(entry, why="heavy") == 1
    assert ends(broker) == {"p": ("heavy", "heavy")}


def test_a_prompt_of_a_worker_gone_silent_moves_to_light_at_the_last_moment_without_waiting_for_its_lease(
    broker: Broker,
) -> None:
    publish(broker, allowance_s=30.0, route="heavy")
    heavy, light = hire(broker, "heavy"), hire(broker)
    entry = heavy.one()
    heavy.beat(entry)
    # Such a worker would have renewed its lease of a minute after 15 s.
    keeper = keeper_of(broker, margin_s=60.0, lease_s=60.0)
    broker.client.pexpire(broker.keys.worker(heavy.name), 55_000)
    keeper.step()
    assert not light.take(), "it may be drawing"
    broker.client.pexpire(broker.keys.worker(heavy.name), 30_000)
    keeper.step()
    moved = light.one()
    assert heavy.end(entry, why="heavy") == 0, "whoever was silent settles nothing more"
    assert light.end(moved, why="moved") == 1
    assert ends(broker) == {"p": ("light", "moved")}
    assert not heavy.take()


@pytest.mark.parametrize("route", ["cascade", "heavy"])
@pytest.mark.parametrize("running", [False, True])
def test_without_a_picture_a_prompt_is_dropped_at_its_deadline_and_not_before(
    broker: Broker, keeper: Keeper, route: str, running: bool
) -> None:
    publish(broker, allowance_s=1.2, route=route)
    hand = hire(broker, "heavy" if route == "heavy" else "light")
    entry = hand.one() if running else None
    keeper.step()
    assert not ends(broker)
    time.sleep(1.3)
    keeper.step()
    assert ends(broker) == {"p": ("dropped", "deadline")}
    if entry:
        assert hand.end(entry) == 2
        assert totals(broker)["wasted_s"] == 0.5
    assert not hand.take()


def test_a_prompt_written_by_hand_for_heavy_stays_one_prompt_when_it_moves(broker: Broker) -> None:
    by_hand(broker, {"prompt": "a dog"}, "heavy")
    heavy, light = hire(broker, "heavy"), hire(broker)
    entry = broker.adopt("heavy", heavy.one(), 30.0)
    broker.hand_back("heavy", heavy.name, [entry])
    assert broker.move_to_light(entry.job.id, 1, entry.entry_id)
    moved = light.one()
    assert (moved.job.id, moved.job.deadline, moved.job.route) == (entry.job.id, entry.job.deadline, "heavy")
    light.end(moved)
    assert list(ends(broker)) == [entry.job.id]
    assert totals(broker)["offered"] == 1


def test_an_adopted_prompt_that_is_overtaken_keeps_its_own_times(broker: Broker) -> None:
    by_hand(broker, {"id": "mine", "prompt": "a dog", "end": "heavy", "finished": "never", "why": "because"})
    light = hire(broker)
    entry = broker.adopt("light", light.one(), 30.0)
    assert broker.overtake("mine", "light", 1, entry.entry_id, "dropped", "deadline")
    (outcome,) = outcomes(broker)
    assert (outcome.id, outcome.end, outcome.why) == ("mine", "dropped", "deadline")
    assert outcome.deadline - outcome.published == pytest.approx(30.0)


def test_of_two_keepers_one_acts_and_the_other_takes_over(broker: Broker) -> None:
    first, second = keeper_of(broker, 5.0), keeper_of(broker, 5.0)
    first.step()
    publish(broker, "a", allowance_s=4.0)
    light = hire(broker)
    light.escalate(light.one())
    second.step()
    assert not ends(broker), "only the leader acts"
    time.sleep(LEASE_S + 0.1)
    second.step()
    assert ends(broker) == {"a": ("light", "deadline")}
    publish(broker, "b", allowance_s=4.0)
    light.escalate(light.one())
    first.step()
    assert "b" not in ends(broker)
    second.leave()
    time.sleep(LEASE_S / 4)
    first.step()
    assert "b" in ends(broker)
    first.leave()


def test_the_keeper_takes_back_what_the_dead_held(broker: Broker, keeper: Keeper) -> None:
    put_plan(broker, a_plan())
    publish(broker)
    dead, alive = hire(broker), hire(broker)
    dead.one()
    dead.die()
    keeper.step()
    assert [entry.job.id for entry in alive.take()] == ["p"]
    assert totals(broker)["reclaimed"] == 1


def test_one_prompts_trouble_does_not_cost_the_others_their_deadline(broker: Broker) -> None:
    keeper = keeper_of(broker, lease_s=60.0)
    keeper.step()  # it leads, and does not look at the dead for a while
    publish(broker, "a", allowance_s=0.0, priority=2)
    publish(broker, "b", allowance_s=0.0)
    with spoilt(broker, broker.keys.streams["light"][2]):
        keeper.step()
    assert ends(broker) == {"b": ("dropped", "deadline")}
    keeper.step()
    assert set(ends(broker)) == {"a", "b"}
    keeper.leave()


@pytest.mark.parametrize("planted", ["light", "heavy", "record", "plan"])
def test_a_key_of_another_type_stops_neither_recovery_nor_deadlines(broker: Broker, planted: str) -> None:
    """What somebody plants in one place costs the prompts of no other place."""
    keys = broker.keys
    publish(broker, "held")
    publish(broker, "due", allowance_s=0.0)
    if planted == "record":
        publish(broker, "spoilt", allowance_s=0.0)
    put_plan(broker, a_plan())  # now: by it, the door would refuse them
    dead = hire(broker)
    dead.take(4)
    dead.die()
    keeper = keeper_of(broker)
    places = {"light": keys.streams["light"][0], "heavy": keys.streams["heavy"][2], "plan": keys.plan}
    with spoilt(broker, places.get(planted, keys.prompt("spoilt"))):
        keeper.step()
        assert ends(broker) == {"due": ("dropped", "deadline")}
        assert broker.client.xpending_range(keys.streams["light"][1], GROUP, "-", "+", 9, SUSPECT)
    keeper.leave()
    keeper_of(broker).step()
    assert [entry.job.id for entry in hire(broker).take()] == ["held"]
