"""The worker against a real Redis; only its model is played."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest

from models.backend import Picture
from services.lease import Lease
from services.worker import Worker
from shared.broker import Broker
from shared.catalog import load_cascade
from shared.config import Settings
from shared.connection import CommandRefused, Unreachable
from shared.embedded import EmbeddedRedis
from shared.messages import Job
from shared.observer import Observer
from shared.schema import Stage
from tests.helpers import a_plan, by_hand, ends, hire, holders, logger, outcomes, publish, put_plan, spoilt, totals

CASCADE = load_cascade("tiny")


class Easel:
    """A model that does what the test says with each batch; `batches` remembers their ids."""

    def __init__(self, stage: Stage, paint: Callable[[Job], Picture] = lambda _: Picture(b"webp", 0.9)) -> None:
        self.stage = stage
        self.paint = paint
        self.before: Callable[[], object] = lambda: None
        self.batches: list[list[str]] = []

    def warm_up(self, batches: Sequence[int]) -> None:
        """Nothing to warm."""

    def draw(self, jobs: Sequence[Job]) -> list[Picture]:
        self.batches.append([job.id for job in jobs])
        self.before()
        return [self.paint(job) for job in jobs]


@contextmanager
def working(broker: Broker, easel: Easel) -> Iterator[Worker]:
    settings = broker.settings.model_copy(update={"deadline_s": None})
    lease = Lease(settings, easel.stage, f"test-0-{easel.stage}-1", "played", logger)
    lease.start()
    worker = Worker(settings, easel.stage, CASCADE, easel, lease, logger)
    yield worker
    worker.leave()


def plan_for(broker: Broker, stage: Stage = "light", version: int = 1) -> None:
    plan = a_plan(version=version, light_service_s=0.001, heavy_service_s=0.001, assignment={"test:0": stage})
    put_plan(broker, replace(plan, threshold=0.5))


def poison(prompt_id: str) -> Callable[[Job], Picture]:
    def paint(job: Job) -> Picture:
        if job.id == prompt_id:
            raise ValueError("too ugly")
        return Picture(b"webp", 0.9)

    return paint


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


def reasons(broker: Broker) -> list[str]:
    """What the dead letters say went wrong."""
    return [fields[b"reason"].decode() for _, fields in Observer(broker).rows(broker.keys.dead, "0", 10)]


def test_a_poisonous_prompt_fails_with_the_reason_and_its_mates_are_answered(broker: Broker) -> None:
    plan_for(broker)
    publish(broker, "a", "bad", "c")
    easel = Easel("light", poison("bad"))
    with working(broker, easel) as worker:
        for _ in range(4):
            worker.step()
    assert easel.batches == [["a", "bad", "c"], ["a"], ["bad"], ["c"]]
    assert ends(broker) == {
        "a": ("light", "confident"),
        "bad": ("failed", "error"),
        "c": ("light", "confident"),
    }
    assert reasons(broker) == ["ValueError: too ugly"]


def test_a_heavy_failure_leaves_the_light_picture_as_the_answer(broker: Broker) -> None:
    plan_for(broker, "heavy")
    publish(broker, "bad")
    light = hire(broker)
    light.escalate(light.one())
    with working(broker, Easel("heavy", poison("bad"))) as worker:
        worker.step()
    assert ends(broker) == {"bad": ("light", "heavy_failed")}


def test_a_wrong_number_of_pictures_fails_nobody_but_the_cause(broker: Broker) -> None:
    plan_for(broker)
    publish(broker, "a", "b")

    class Forgetful(Easel):
        def draw(self, jobs: Sequence[Job]) -> list[Picture]:
            return super().draw(jobs)[:1]

    with working(broker, Forgetful("light")) as worker:
        for _ in range(3):
            worker.step()
    assert ends(broker) == {"a": ("light", "confident"), "b": ("light", "confident")}


@pytest.mark.parametrize("score", [math.nan, math.inf, None])
def test_a_score_that_is_no_number_fails_its_prompt_alone(broker: Broker, score: float | None) -> None:
    plan_for(broker)
    publish(broker, "odd", "good")
    easel = Easel("light", lambda job: Picture(b"webp", score if job.id == "odd" else 0.9))
    with working(broker, easel) as worker:
        worker.step()
    assert ends(broker) == {"odd": ("failed", "error"), "good": ("light", "confident")}
    assert reasons(broker) == [f"score is {score}"]
    assert all(outcome.score in (None, 0.9) for outcome in outcomes(broker))


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
        worker._ratios.extend([1e6] * 8)  # a spell in which nothing could be drawn in time
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
        lease._beat()
        time.sleep(0.4)
        assert not broker.client.exists(lease.slot_key)
