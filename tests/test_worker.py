"""The worker against a real Redis; only its model is played."""

from __future__ import annotations

import os
import signal
import time

import pytest

from models.backend import Picture
from services.lease import Lease
from shared.broker import Broker
from shared.config import Settings
from shared.connection import CommandRefused, Unreachable
from shared.embedded import EmbeddedRedis
from shared.observer import Observer
from tests.easel import CASCADE, Easel, plan_for, working
from tests.helpers import by_hand, ends, hire, holders, logger, outcomes, publish, spoilt, totals


def test_a_batch_is_drawn_and_each_prompt_goes_where_its_score_says(broker: Broker) -> None:
    plan_for(broker)
    publish(broker, "fine", "weak")
    easel = Easel("light", lambda job: Picture(b"webp", 0.9 if job.id == "fine" else 0.1))
    with working(broker, easel) as worker:
        worker.step()
    assert easel.batches == [["fine", "weak"]]
    assert ends(broker) == {"fine": ("light", "confident")}
    heavy = Easel("heavy", lambda _: Picture(b"better"))
    plan_for(broker, "heavy", 2)
    with working(broker, heavy) as worker:
        worker.step()
    assert ends(broker)["weak"] == ("heavy", "cascade")
    for outcome in outcomes(broker):
        for visit in outcome.visits:
            assert outcome.published - 0.1 <= visit.started <= visit.finished <= outcome.finished + 0.1


def test_hopeless_prompts_are_let_go_and_not_drawn(broker: Broker, observer: Observer) -> None:
    plan_for(broker, "heavy")
    light = hire(broker)
    publish(broker, "picture", allowance_s=0.02)
    publish(broker, "straight", allowance_s=0.02, route="heavy")
    time.sleep(0.02)
    light.escalate(light.one())
    easel = Easel("heavy")
    with working(broker, easel) as worker:
        worker.step()
    assert ends(broker) == {"picture": ("light", "deadline")}
    assert [prompt.stage for prompt in observer.open_prompts(1e12)] == ["light"], "light may still draw it"
    easel = Easel("light")
    plan_for(broker, "light", 2)
    with working(broker, easel) as worker:
        worker.step()
    assert not easel.batches
    assert ends(broker)["straight"] == ("dropped", "deadline")


def test_light_may_draw_what_heavy_lets_go_before_heavy_draws_the_rest(broker: Broker) -> None:
    broker.settings = broker.settings.model_copy(update={"margin_s": 20.0})
    plan_for(broker, "heavy")
    publish(broker, "late", allowance_s=CASCADE.service_s("heavy", 1) * 0.9, route="heavy")
    publish(broker, "tight", allowance_s=CASCADE.service_s("heavy", 2) + 10.0, route="heavy")
    publish(broker, "good", allowance_s=60.0, route="heavy")
    light, easel = hire(broker), Easel("heavy")
    moved: list[str] = []
    easel.before = lambda: moved.extend(entry.job.id for entry in light.take(4))
    with working(broker, easel) as worker:
        worker.step()
    assert sorted(moved) == ["late", "tight"], "one is hopeless, of the other heavy is not sure enough"
    assert easel.batches == [["good"]]


def test_malformed_entries_do_not_stop_a_worker_and_entries_by_hand_are_served(broker: Broker) -> None:
    plan_for(broker)
    by_hand(broker, {"prompt": b"\xff"})
    by_hand(broker, {"prompt": "a dog", "mood": "blue"})
    with working(broker, Easel("light")) as worker:
        worker.step()
    assert sorted(ends(broker).values()) == [("failed", "malformed"), ("light", "confident")]


def test_a_worker_reads_only_while_the_plan_gives_it_the_slot(broker: Broker) -> None:
    publish(broker)
    plan_for(broker, "heavy")
    slot = broker.keys.slot("test", 0)
    with working(broker, easel := Easel("light")) as worker:
        worker.step()
        assert (easel.batches, broker.client.get(slot)) == ([], None)
        plan_for(broker, "light", 2)
        worker.step()
        worker.step()
        assert easel.batches == [["p"]]
        assert broker.client.get(slot) == b"test-0-light-1"
        plan_for(broker, "heavy", 3)
        publish(broker, "q")
        for _ in range(2):
            worker.step()
        assert broker.client.get(slot) is None, "it gives the slot up after the batch in which it saw the plan"
    assert broker.client.exists(broker.keys.worker("test-0-light-1")) == 0


def test_a_hop_that_redis_refused_is_done_again_and_its_prompt_served_once(broker: Broker) -> None:
    plan_for(broker)
    publish(broker)
    with working(broker, Easel("light")) as worker:
        with spoilt(broker, broker.keys.done), pytest.raises(CommandRefused):
            worker.step()
        assert set(holders(broker).values()) == {"test-0-light-1"}
        worker.step()
    assert ends(broker) == {"p": ("light", "confident")}


def test_a_server_that_dies_in_the_middle_of_a_turn_costs_no_prompt(lasting_server: EmbeddedRedis) -> None:
    broker = Broker(Settings(redis_url=lasting_server.url, deployment="crash", node="test"))
    broker.check()
    plan_for(broker)
    publish(broker, "a", "b")
    easel = Easel("light")

    def crash() -> None:
        assert lasting_server.pid is not None
        os.kill(lasting_server.pid, signal.SIGKILL)
        lasting_server.stop()

    easel.before = crash
    with working(broker, easel) as worker:
        with pytest.raises(Unreachable):
            worker.step()
        easel.before = lambda: None
        lasting_server.start()
        for _ in range(3):
            worker.step()
    assert easel.batches == [["a", "b"], ["a", "b"]]
    assert ends(broker) == {"a": ("light", "confident"), "b": ("light", "confident")}
    assert totals(broker)["light"] == 2
    assert not holders(broker)
    broker.close()


def test_one_slow_batch_does_not_make_all_that_follows_hopeless(broker: Broker) -> None:
    plan_for(broker)
    easel = Easel("light")
    with working(broker, easel) as worker:
        worker._studio._ratios.extend([1e6] * 8)  # a spell in which nothing could be drawn in time
        for number in range(12):
            publish(broker, f"p{number}")
            worker.step()
    assert [ends(broker)[f"p{number}"] for number in (10, 11)] == [("light", "confident")] * 2


def test_a_slot_given_up_is_not_kept_by_the_lease(broker: Broker) -> None:
    plan_for(broker)
    with working(broker, Easel("light")) as worker:
        worker.step()
        lease = worker._lease
        lease.lose_slot()  # what a beat under way, or a lost reply, makes the lease believe
        broker.client.pexpire(lease.slot_key, 300)
        for _ in range(2):  # one of them an idle worker leaves out
            lease._beat()
        time.sleep(0.4)
        assert not broker.client.exists(lease.slot_key)


def test_a_worker_with_prompts_beats_at_every_turn_and_an_idle_one_at_every_other(
    broker: Broker,
) -> None:
    publish(broker)
    lease = Lease(broker.settings, "light", "test-0-light-1", "played", logger)
    lease.describe()

    def renews() -> bool:
        broker.client.pexpire(broker.keys.worker(lease.consumer), 60_000)
        assert lease._beat() == pytest.approx(broker.settings.lease_s / 4)
        return int(broker.client.pttl(broker.keys.worker(lease.consumer))) <= broker.settings.lease_s * 1000

    assert [renews() for _ in range(4)] == [True, False, True, False]
    assert renews()
    lease.carry([hire(broker).one()])
    assert [renews() for _ in range(3)] == [True] * 3, "also at the turn that it would have left out"
    broker.retire("light", lease.consumer)
