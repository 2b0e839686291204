"""A cancel reaches a batch that is being drawn: it stops when no member is left, and not before."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from models.backend import Abandoned, NobodyWaits, Picture, never
from services.keeper import Keeper
from services.lease import Lease
from services.worker import Worker
from shared.broker import Broker
from shared.catalog import load_cascade
from shared.messages import Job
from shared.observer import Observer
from shared.schema import Stage
from tests.helpers import a_plan, ends, events, hire, holders, logger, publish, put_plan

CASCADE = load_cascade("tiny")
PATIENCE_S = 60.0
LEASE_S = 0.4


@dataclass
class Canvas:
    """A model that goes on drawing until the test lets it finish or nobody waits."""

    stage: Stage
    begun: threading.Event = field(default_factory=threading.Event)
    finish: threading.Event = field(default_factory=threading.Event)
    given_up: bool = False

    def warm_up(self, batches: Sequence[int]) -> None:
        """Nothing to warm."""

    def draw(self, jobs: Sequence[Job], abandoned: Abandoned = never) -> list[Picture]:
        self.begun.set()
        end = time.monotonic() + PATIENCE_S
        while not self.finish.wait(0.01):
            assert time.monotonic() < end, "nobody let it finish"
            if abandoned():
                self.given_up = True
                raise NobodyWaits
        return [Picture(b"webp", 0.9 if self.stage == "light" else None) for _ in jobs]


def drawing(broker: Broker, canvas: Canvas, meanwhile: Callable[[Lease], object]) -> None:
    """One step of a worker, and what happens once it draws."""
    settings = broker.settings.model_copy(update={"lease_s": LEASE_S})
    assignment = {"test:0": canvas.stage}
    put_plan(broker, a_plan(light_service_s=0.001, heavy_service_s=0.001, assignment=assignment))
    lease = Lease(settings, canvas.stage, "test-0-canvas-1", "played", logger)
    lease.start()
    worker = Worker(settings, canvas.stage, CASCADE, canvas, lease, logger)
    thread = threading.Thread(target=worker.step)
    thread.start()
    assert canvas.begun.wait(PATIENCE_S)
    try:
        meanwhile(lease)
    finally:
        thread.join(PATIENCE_S)
        worker.leave()


def until(lease: Lease, holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, f"{lease.consumer} did not hear of it"
        time.sleep(0.01)


def test_a_batch_stops_once_all_its_members_are_cancelled(broker: Broker) -> None:
    publish(broker, "a", "b")
    canvas = Canvas("light")

    def cancel_both(_lease: Lease) -> None:
        assert [broker.cancel(each).done for each in "ab"] == [True, True]
        assert ends(broker) == dict.fromkeys("ab", ("cancelled", "asked")), "at once"

    drawing(broker, canvas, cancel_both)
    assert canvas.given_up
    assert not holders(broker)
    assert not broker.client.exists(broker.keys.image("a", "light"), broker.keys.image("b", "light"))


def test_a_batch_with_a_member_left_is_drawn_to_the_end(broker: Broker) -> None:
    publish(broker, "a", "b")
    canvas = Canvas("light")

    def cancel_one(lease: Lease) -> None:
        broker.cancel("a")
        until(lease, lambda: bool(lease._unwanted))
        time.sleep(0.1)
        assert not canvas.given_up
        canvas.finish.set()

    drawing(broker, canvas, cancel_one)
    assert ends(broker) == {"a": ("cancelled", "asked"), "b": ("light", "confident")}
    assert Observer(broker).image("a", "light") is None, "its result is void"
    assert Observer(broker).image("b", "light") == b"webp"


def test_a_batch_that_the_keeper_overtook_is_drawn_on_for_the_upgrade(broker: Broker) -> None:
    publish(broker, allowance_s=4.0)
    light = hire(broker)
    light.escalate(light.one())
    canvas = Canvas("heavy")

    def overtake(_lease: Lease) -> None:
        keeper = Keeper(broker.settings.model_copy(update={"margin_s": 5.0}), {"light": 0.1, "heavy": 2.0}, logger)
        keeper.step()
        keeper.leave()
        assert ends(broker) == {"p": ("light", "deadline")}
        time.sleep(LEASE_S)  # several beats
        assert not canvas.given_up
        canvas.finish.set()

    drawing(broker, canvas, overtake)
    assert [event for event in events(broker) if event[b"type"] == b"upgraded"]
    assert Observer(broker).image("p", "heavy") == b"webp"


def test_a_batch_of_a_worker_that_was_thought_dead_stops(broker: Broker) -> None:
    publish(broker)
    canvas, heir = Canvas("light"), hire(broker)

    def take_over(lease: Lease) -> None:
        broker.client.delete(broker.keys.worker(lease.consumer))
        broker.reclaim()
        assert heir.end(heir.one()) == 1

    drawing(broker, canvas, take_over)
    assert canvas.given_up
    assert ends(broker) == {"p": ("light", "confident")}


@pytest.mark.parametrize("stage", ["light", "heavy"])
def test_an_entry_that_is_still_the_workers_own_is_never_taken_for_abandoned(broker: Broker, stage: Stage) -> None:
    publish(broker, route="heavy" if stage == "heavy" else "cascade")
    canvas = Canvas(stage)

    def beat_often(_lease: Lease) -> None:
        time.sleep(LEASE_S)
        canvas.finish.set()

    drawing(broker, canvas, beat_often)
    assert not canvas.given_up
    assert [end for end, _ in ends(broker).values()] == [stage]
