"""A prompt that Redis refuses, for whatever reason, costs its neighbours nothing while the cause stands."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from services.worker import Worker
from shared.broker import Broker
from shared.connection import CommandRefused
from shared.observer import Observer
from shared.schema import SUSPECT, Stage
from tests.easel import Easel, working
from tests.helpers import a_plan, by_hand, ends, holders, publish, put_plan

FEW = 6  # turns in which a worker with nothing but one good prompt to draw has drawn it
PATIENCE_S = 30.0
Plant = Callable[[Broker], None]


def overwrite(broker: Broker, prompt_id: str) -> None:
    """What somebody does to a record with one command."""
    broker.client.delete(broker.keys.prompt(prompt_id))
    broker.client.set(broker.keys.prompt(prompt_id), "of another type")


def mend(broker: Broker, prompt_id: str) -> None:
    broker.client.delete(broker.keys.prompt(prompt_id))


def to_adopt(broker: Broker) -> None:
    by_hand(broker, {"prompt": "x", "id": "bad"})
    overwrite(broker, "bad")


def malformed(broker: Broker) -> None:
    by_hand(broker, {"nothing": "x", "id": "bad"})
    overwrite(broker, "bad")


def late(broker: Broker) -> None:
    by_hand(broker, {"prompt": "x", "id": "bad", "published": "1.0", "deadline": "2.0"})
    overwrite(broker, "bad")


def drawn(broker: Broker) -> None:
    now = broker.now()
    by_hand(broker, {"prompt": "x", "id": "bad", "published": f"{now:.6f}", "deadline": f"{now + 600:.6f}"})
    overwrite(broker, "bad")


PLANTS: list[tuple[Plant, tuple[str, str]]] = [
    (to_adopt, ("light", "confident")),
    (malformed, ("failed", "malformed")),
    (late, ("dropped", "deadline")),
    (drawn, ("light", "confident")),
]


def plan_of(broker: Broker, batch: int, stage: Stage = "light") -> None:
    quick = a_plan(light_batch=batch, heavy_batch=batch, light_service_s=0.001, heavy_service_s=0.001)
    put_plan(broker, replace(quick, assignment={"test:0": stage}))


def turns_until(worker: Worker, reached: Callable[[], bool], most: int) -> int:
    turns = 0
    while not reached():
        worker.step()
        turns += 1
        assert turns <= most, "it went on and on"
    return turns


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(("plant", "end"), PLANTS, ids=[plant.__name__ for plant, _ in PLANTS])
def test_one_worker_serves_the_neighbours_of_a_refused_prompt_while_the_cause_stands_and_it_afterwards(
    broker: Broker, plant: Plant, end: tuple[str, str], batch: int
) -> None:
    plan_of(broker, batch)
    plant(broker)
    with working(broker, Easel("light")) as worker:
        for number in range(3):
            good = f"good-{number}"
            publish(broker, good, allowance_s=600.0)
            turns_until(worker, lambda good=good: good in ends(broker), FEW)  # type: ignore[misc]
        assert set(holders(broker).values()) == {SUSPECT}, "it waits"
        mend(broker, "bad")
        stop = time.monotonic() + PATIENCE_S
        while "bad" not in ends(broker):
            assert time.monotonic() < stop, "it was never tried again"
            worker.step()
    assert ends(broker)["bad"] == end
    assert not holders(broker)


def test_many_refused_prompts_keep_nobody_out(broker: Broker) -> None:
    plan_of(broker, 4)
    bad = [f"bad-{number}" for number in range(60)]
    for each in bad:
        by_hand(broker, {"prompt": "x", "id": each})
        overwrite(broker, each)
    with working(broker, Easel("light")) as worker:
        turns_until(worker, lambda: set(holders(broker).values()) == {SUSPECT} and len(holders(broker)) == 60, 60)
        time.sleep(1.1)  # now all may be tried again
        for number in range(3):
            publish(broker, f"good-{number}", allowance_s=600.0)
            turns_until(worker, lambda number=number: f"good-{number}" in ends(broker), FEW)  # type: ignore[misc]
        for each in bad:
            mend(broker, each)
        stop = time.monotonic() + PATIENCE_S
        while len(ends(broker)) < len(bad) + 3:
            assert time.monotonic() < stop, "some were never tried again"
            worker.step()


def test_a_refused_prompt_is_tried_again_now_and_then_and_not_in_a_busy_loop(broker: Broker) -> None:
    plan_of(broker, 4)
    to_adopt(broker)
    with working(broker, Easel("light")) as worker:
        began, turns = time.monotonic(), 0
        while time.monotonic() < began + 3.0:
            worker.step()
            turns += 1
        assert turns <= 20
        mend(broker, "bad")
        turns_until(worker, lambda: "bad" in ends(broker), 20)


def test_what_heavy_lets_go_and_light_cannot_take_keeps_heavy_from_nothing(broker: Broker) -> None:
    plan_of(broker, 4, "heavy")
    publish(broker, "late", allowance_s=0.01, route="heavy")
    publish(broker, "good", allowance_s=600.0, route="heavy")
    time.sleep(0.02)
    overwritten = broker.keys.wake["light"]
    broker.client.delete(overwritten)
    broker.client.set(overwritten, "of another type")
    easel = Easel("heavy")
    with working(broker, easel) as worker:
        turns_until(worker, lambda: "good" in ends(broker), FEW)
        assert set(holders(broker).values()) == {SUSPECT}
        broker.client.delete(overwritten)
        stop = time.monotonic() + PATIENCE_S
        while Observer(broker).open_prompts(1e12)[0].stage == "heavy":
            assert time.monotonic() < stop
            worker.step()
    assert easel.batches == [["good"]]
    (prompt,) = Observer(broker).open_prompts(1e12)
    assert broker.overtake(prompt.id, "light", prompt.priority, prompt.entry_id, "dropped", "deadline")


def test_a_cause_that_concerns_all_stops_the_worker_and_loses_nothing(broker: Broker) -> None:
    plan_of(broker, 4)
    publish(broker, "a", "b", allowance_s=600.0)
    broker.client.set(broker.keys.done, "of another type")
    with working(broker, Easel("light")) as worker:
        with pytest.raises(CommandRefused):
            worker.step()
        broker.client.delete(broker.keys.done)
        worker.step()
    assert set(ends(broker)) == {"a", "b"}
