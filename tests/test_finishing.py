"""A batch is settled while the next one is drawn: real Redis, a real worker, a model whose encoder a test holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from models.backend import Abandoned, Ahead, Undeveloped, never
from models.diffusion import open_diffusion
from services import finishing
from services.finishing import Finishing
from services.lease import Lease
from services.watchdog import HUNG, Watchdog
from services.worker import Worker
from shared.broker import Broker
from shared.catalog import load_cascade
from shared.connection import CommandRefused
from shared.exchange import Hop
from shared.messages import Job
from shared.observer import Observer
from shared.process import Stop
from tests.easel import Easel, plan_for, working
from tests.helpers import ends, holders, logger, outcomes, publish, spoilt
from tests.processes import until

PATIENCE_S = 20.0


class DarkRoom(Easel):
    """Its pictures come out of the encoder when the test says so; `spoils`: ids whose encoding raises."""

    def __init__(self) -> None:
        super().__init__("light")
        self.open = threading.Event()
        self.spoils: set[str] = set()

    def draw_ahead(self, jobs: Sequence[Job], _abandoned: Abandoned = never) -> list[Undeveloped]:
        self.batches.append([job.id for job in jobs])
        self.before()
        return [Undeveloped(self._developing(job.id), 0.9) for job in jobs]

    def _developing(self, prompt_id: str) -> Callable[[], bytes]:
        def develop() -> bytes:
            assert self.open.wait(PATIENCE_S)
            if prompt_id in self.spoils:
                raise ValueError("no such colour")
            return f"picture of {prompt_id}".encode()

        return develop


@contextmanager
def at_work(broker: Broker, *, opened: bool = False) -> Iterator[tuple[DarkRoom, Worker]]:
    plan_for(broker)
    room = DarkRoom()
    if opened:
        room.open.set()
    try:
        with working(broker, room) as worker:
            yield room, worker
            room.open.set()
    finally:
        room.open.set()


def test_the_next_batch_is_drawn_while_the_last_one_is_encoded(broker: Broker) -> None:
    with at_work(broker) as (room, worker):
        publish(broker, "a", "b")
        worker.step()
        publish(broker, "c")
        settled_meanwhile: list[dict[str, tuple[str, str]]] = []

        def looks_then_opens() -> None:
            settled_meanwhile.append(ends(broker))
            room.open.set()

        room.before = looks_then_opens
        worker.step()
        assert room.batches == [["a", "b"], ["c"]]
        assert settled_meanwhile == [{}], "the first were not settled yet when the third was drawn"
    assert ends(broker) == dict.fromkeys(("a", "b", "c"), ("light", "confident"))
    kept = [broker.client.get(broker.keys.image(name, "light")) for name in "abc"]
    assert kept == [f"picture of {name}".encode() for name in "abc"]


def test_what_is_being_settled_stays_in_the_workers_hands(broker: Broker) -> None:
    with at_work(broker) as (room, worker):
        publish(broker, "a")
        worker.step()
        assert set(holders(broker).values()) == {"test-0-light-1"}
        idle = threading.Thread(target=worker.step)
        idle.start()
        idle.join(0.2)
        assert idle.is_alive(), "with nothing else to draw it waits for the encoder"
        room.open.set()
        idle.join(PATIENCE_S)
        assert ends(broker) == {"a": ("light", "confident")}


def test_a_worker_that_loses_its_slot_or_leaves_settles_first(broker: Broker) -> None:
    with at_work(broker, opened=True) as (_, worker):
        publish(broker, "a")
        worker.step()
        plan_for(broker, "heavy", 2)
        worker.step()  # it hears of the plan with this claim, or settles with it
        worker.step()
        assert ends(broker) == {"a": ("light", "confident")}
        plan_for(broker, "light", 3)
        publish(broker, "b")
        while len(outcomes(broker)) < 2 and not holders(broker):
            worker.step()
    assert ends(broker)["b"] == ("light", "confident")
    assert not holders(broker)


def test_a_picture_that_cannot_be_encoded_spoils_no_other(broker: Broker) -> None:
    with at_work(broker, opened=True) as (room, worker):
        room.spoils = {"bad"}
        publish(broker, "good", "bad", "fine")
        for _ in range(12):
            worker.step()
            if len(ends(broker)) == 3:
                break
    found = {outcome.id: outcome for outcome in outcomes(broker)}
    assert {name: outcome.end for name, outcome in found.items()} == {"good": "light", "fine": "light", "bad": "failed"}
    (letter,) = [fields for _, fields in Observer(broker).rows(broker.keys.dead, "0", 10)]
    assert b"no such colour" in letter[b"reason"]


def test_a_redis_that_refuses_for_a_moment_costs_no_drawing(broker: Broker) -> None:
    with at_work(broker, opened=True) as (room, worker):
        publish(broker, "a")
        with spoilt(broker, broker.keys.done):
            worker.step()
            publish(broker, "b")
            waiting = threading.Thread(target=worker.step)
            waiting.start()
            until(lambda: len(room.batches) == 2, "the next batch is drawn")
        waiting.join(PATIENCE_S)
        until(lambda: len(ends(broker)) == 2, "both are settled")
        assert room.batches == [["a"], ["b"]]


def test_what_redis_refuses_for_longer_is_drawn_again_and_served_once(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finishing, "PATIENCE_S", 0.2)
    with at_work(broker) as (room, worker):
        publish(broker, "a")
        worker.step()
        publish(broker, "b")
        room.before = room.open.set
        with spoilt(broker, broker.keys.done), pytest.raises(CommandRefused):
            worker.step()
        until(lambda: worker.step() == 0.0 and len(ends(broker)) == 2, "both are settled")
        assert room.batches[:2] == [["a"], ["b"]]
    assert len(outcomes(broker)) == 2


def test_an_encoder_that_never_comes_back_ends_the_worker(broker: Broker) -> None:
    ended: list[int] = []
    lease = Lease(broker.settings, "light", "test-0-light-1", "played", logger)
    settings = broker.settings.model_copy(update={"hang_s": 0.3})
    dog = Watchdog(settings, "light", lease, Stop(), logger, ended.append)
    dog.start()
    stuck, watched = threading.Event(), Finishing(lease, dog)

    def encode() -> list[Hop]:
        stuck.wait(PATIENCE_S)
        return []

    watched.begin([], encode, lambda _: None)
    try:
        waiting = threading.Thread(target=watched.wait, daemon=True)
        waiting.start()
        until(lambda: ended, "the watchdog ends the process")
    finally:
        stuck.set()
    assert ended[0] == HUNG


def test_the_tiny_cascade_draws_ahead_with_threads_and_the_pictures_are_those_of_draw() -> None:
    backend = open_diffusion(load_cascade("tiny"), "light", "cpu")
    assert isinstance(backend, Ahead)
    jobs = [Job(f"p{i}", "big red circle on white", 0.0, 0.0, seed=i) for i in range(3)]
    ahead, awaited = backend.draw_ahead(jobs), backend.draw(jobs)
    assert [(each.data, each.score) for each in ahead] == [(each.data, each.score) for each in awaited]
