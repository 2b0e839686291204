"""Deaths: a prompt is charged only with those it was alone in, and three of them end it."""

from __future__ import annotations

import time

import pytest

from services.keeper import Keeper
from shared.broker import Broker
from shared.config import Settings
from shared.connection import Unreachable
from shared.embedded import EmbeddedRedis
from shared.letters import find_letter, letters
from shared.observer import Observer
from shared.schema import DEATHS, GROUP, SUSPECT
from tests.helpers import Hand, by_hand, ends, hire, holders, logger, publish, totals
from tests.test_broker_recovery import memory_limit


def attempts(broker: Broker, prompt_id: str) -> int:
    return int(broker.client.hget(broker.keys.prompt(prompt_id), "attempts") or 0)


def dies(hand: Hand) -> None:
    hand.die()
    hand.broker.reclaim()


def test_a_death_in_company_charges_nobody_and_one_alone_its_prompt(broker: Broker) -> None:
    publish(broker, "a", "b")
    dead = hire(broker)
    assert len(dead.take(2)) == 2
    dies(dead)
    assert [attempts(broker, each) for each in "ab"] == [0, 0]
    dead = hire(broker)
    assert [entry.job.id for entry in dead.take(2)] == ["a"], "after a death each is drawn alone"
    dies(dead)
    assert [attempts(broker, each) for each in "ab"] == [1, 0]


def test_company_counts_over_all_classes(broker: Broker) -> None:
    publish(broker, "urgent", priority=0)
    publish(broker, "batch", priority=2)
    dead = hire(broker)
    assert len(dead.take(2)) == 2
    dies(dead)
    assert [attempts(broker, each) for each in ("urgent", "batch")] == [0, 0]


def test_the_third_death_alone_ends_a_prompt_as_poison_with_its_record(broker: Broker, observer: Observer) -> None:
    receipt = publish(broker, "bad", seed=7)
    for death in range(DEATHS):
        assert not ends(broker), f"after {death} deaths it is tried again"
        dead = hire(broker)
        dead.one()
        dies(dead)
    assert ends(broker) == {"bad": ("failed", "poison")}
    assert (totals(broker)["failed"], totals(broker)["failed:poison"], totals(broker)["reclaimed"]) == (1, 1, 3)
    letter = find_letter(observer, "bad")
    assert (letter.attempts, letter.worker, letter.why) == (DEATHS, dead.name, "poison")
    assert "3 workers died" in letter.reason
    assert letter.fields[b"seed"] == b"7"
    assert letter.fields[b"deadline"] == f"{receipt.deadline:.6f}".encode()
    assert not holders(broker)
    assert not hire(broker).take()


def test_a_prompt_that_kills_heavy_workers_keeps_its_light_picture(broker: Broker, observer: Observer) -> None:
    publish(broker, "bad")
    light = hire(broker)
    light.escalate(light.one())
    for _ in range(DEATHS):
        dead = hire(broker, "heavy")
        dead.one()
        dies(dead)
    assert ends(broker) == {"bad": ("light", "heavy_failed")}
    letter = find_letter(observer, "bad")
    assert (letter.why, [visit.stage for visit in letter.visits]) == ("heavy_failed", ["light"])


def test_a_worker_that_answers_before_it_dies_charges_nobody(broker: Broker) -> None:
    publish(broker, "good")
    light = hire(broker)
    light.end(light.one())
    dies(light)
    assert ends(broker) == {"good": ("light", "confident")}
    assert not letters(Observer(broker))


def test_a_prompt_the_keeper_ended_is_not_charged_when_its_worker_dies(broker: Broker) -> None:
    publish(broker, "p", allowance_s=0.05)
    light = hire(broker)
    entry = light.one()
    time.sleep(0.05)
    assert broker.overtake("p", "light", 1, entry.entry_id, "dropped", "deadline")
    dies(light)
    assert (ends(broker), attempts(broker, "p")) == ({"p": ("dropped", "deadline")}, 0)


def test_an_entry_by_hand_is_charged_too(broker: Broker) -> None:
    by_hand(broker, {"prompt": "a dog"})
    for _ in range(DEATHS):
        dead = hire(broker)
        broker.adopt("light", dead.one(), 30.0)
        dies(dead)
    ((end, why),) = ends(broker).values()
    assert (end, why) == ("failed", "poison")


def test_an_entry_by_hand_with_id_and_times_is_known_to_the_keeper_and_charged_from_its_first_death_on(
    broker: Broker, observer: Observer
) -> None:
    now = broker.now()
    given = {"id": "mine", "prompt": "a dog", "published": f"{now:.6f}", "deadline": f"{now + 30:.6f}"}
    entry_id = by_hand(broker, given)
    for count in range(1, DEATHS):
        dead = hire(broker)
        dead.one()
        dies(dead)
        assert attempts(broker, "mine") == count
        ((prompt_id, entry),) = [(each.id, each.entry_id) for each in observer.open_prompts(now + 60)]
        assert (prompt_id, entry) == ("mine", entry_id)
    dead = hire(broker)
    dead.one()
    dies(dead)
    assert ends(broker) == {"mine": ("failed", "poison")}
    assert (totals(broker)["offered"], totals(broker)["published"]) == (1, 1)


# -- an agent that saw a process end


def test_the_dead_are_buried_without_waiting_for_the_lease_and_their_slot_is_free(broker: Broker) -> None:
    publish(broker, "a", "b")
    dead = hire(broker)
    dead.take(2)
    assert broker.reclaim() == 0, "its lease still runs"
    assert broker.bury("light", dead.name, dead.slot_key) == 2
    assert set(holders(broker).values()) == {SUSPECT}
    assert not broker.client.exists(broker.keys.worker(dead.name), dead.slot_key)
    rows = broker.client.xinfo_consumers(broker.keys.streams["light"][1], GROUP)
    assert dead.name not in {row["name"].decode() for row in rows}
    assert broker.bury("light", dead.name, dead.slot_key) == 0, "burying twice does nothing"
    other = hire(broker, slot_key=dead.slot_key)
    assert len(other.take(2)) == 1


def test_burying_an_incarnation_harms_no_other(broker: Broker) -> None:
    publish(broker, "a", "b")
    dead = hire(broker)
    dead.one()
    broker.client.delete(dead.slot_key)
    successor = hire(broker, slot_key=dead.slot_key)
    held = successor.one()
    assert broker.bury("light", dead.name, dead.slot_key) == 1
    beat = successor.beat(held)
    assert (beat.alive, beat.holder, beat.entries) == (True, True, frozenset({held.place}))
    assert successor.end(held) == 1


def test_at_the_memory_limit_a_poisonous_prompt_ends_and_a_ceiling_is_noted(broker: Broker) -> None:
    publish(broker, "bad")
    for _ in range(DEATHS - 1):
        dead = hire(broker)
        dead.one()
        dies(dead)
    last = hire(broker)
    last.one()
    with memory_limit(broker):
        assert broker.bury("light", last.name, last.slot_key) == 1
        assert broker.lower_ceiling("m", "g", 4) == 4
    assert ends(broker) == {"bad": ("failed", "poison")}


@pytest.mark.parametrize("returns", [True, False])
def test_after_an_outage_workers_have_a_moment_to_show_that_they_live(
    lasting_server: EmbeddedRedis, returns: bool
) -> None:
    broker = Broker(Settings(redis_url=lasting_server.url, deployment="outage", node="test", lease_s=2.0))
    broker.check()
    keeper = Keeper(broker.settings, {"light": 0.5, "heavy": 2.0}, logger)
    keeper.step()
    publish(broker)
    hand = hire(broker)
    entry = hand.one()
    lasting_server.stop()
    with pytest.raises(Unreachable):
        keeper.step()
    lasting_server.start()
    hand.die()  # the outage was longer than its lease
    keeper._next_reclaim = 0.0
    keeper.step()
    assert hand.name in holders(broker).values(), "it is not given up at once"
    if returns:
        broker.announce("light", hand.name, {"stage": "light"})
    keeper._spared_until = keeper._next_reclaim = 0.0
    keeper.step()
    assert hand.end(entry) == returns
    keeper.leave()
    broker.close()


def test_the_script_asks_again_whether_the_worker_lives(broker: Broker) -> None:
    publish(broker)
    alive = hire(broker)
    entry = alive.one()
    # Between the keeper's look and the script a worker may have beaten.
    assert broker._take_back("light", alive.name, "", sure=False) == 0
    assert alive.beat(entry).alive
    assert alive.end(entry) == 1


@pytest.mark.parametrize("how", ["reclaim", "bury"])
def test_one_who_was_given_up_can_neither_answer_nor_beat(broker: Broker, how: str) -> None:
    publish(broker)
    given_up, other = hire(broker), hire(broker)
    entry = given_up.one()
    if how == "bury":
        broker.bury("light", given_up.name, given_up.slot_key)
    else:
        dies(given_up)
    assert other.one().entry_id == entry.entry_id
    assert (given_up.beat(entry).alive, given_up.end(entry)) == (False, 0)
    assert other.end(entry) == 1
    assert ends(broker) == {"p": ("light", "confident")}
