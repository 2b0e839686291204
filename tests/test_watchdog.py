"""The watchdog: what hangs ends, and nobody else pays for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from services.lease import Lease
from services.watchdog import DRAINED, HUNG, Watchdog
from shared.broker import Broker
from shared.letters import find_letter
from shared.messages import Entry
from shared.observer import Observer
from shared.process import Stop
from shared.schema import RETURNED, SUSPECT, Stage
from tests.helpers import ALLOWANCE_S, QUICK, ends, hire, holders, logger, publish
from tests.processes import until

pytestmark = pytest.mark.live

HANG_S = 0.3


class Watched:
    """A worker's lease and watchdog; the process' end is only noted."""

    def __init__(self, broker: Broker, stage: Stage, grace_s: float = 60.0) -> None:
        settings = broker.settings.model_copy(update={"hang_s": HANG_S, "grace_s": grace_s})
        self.broker = broker
        self.stage = stage
        self.codes: list[int] = []
        self.stop = Stop()
        self.lease = Lease(settings, stage, f"test-0-{stage}-1", "played", logger)
        self.lease.start()
        self.lease.take_slot(broker)
        self.watchdog = Watchdog(settings, stage, self.lease, self.stop, logger, self.codes.append)
        self.watchdog.start()

    def take(self, batch: int) -> list[Entry]:
        claim = self.broker.claim(
            self.stage,
            self.lease.consumer,
            self.lease.slot_key,
            batch=batch,
            hold_s=0.0,
            allowance_s=ALLOWANCE_S,
            service_s=QUICK,
        )
        return list(claim.entries)

    def draws(self, entries: list[Entry], expected_s: float = 0.01, slow_s: float = 0.01) -> None:
        """Draw for ever, until the watchdog has ended the process."""
        with self.watchdog.over(entries, expected_s, slow_s):
            until(lambda: self.codes, "the watchdog ends it")


@contextmanager
def watched(broker: Broker, stage: Stage = "light", grace_s: float = 60.0) -> Iterator[Watched]:
    made = Watched(broker, stage, grace_s)
    try:
        yield made
    finally:
        made.lease.end(broker)


def test_a_hang_in_company_has_each_drawn_alone_and_charges_nobody(broker: Broker) -> None:
    publish(broker, "a", "b")
    with watched(broker) as worker:
        worker.draws(worker.take(2))
        assert worker.codes[0] == HUNG
    assert set(holders(broker).values()) == {SUSPECT}
    assert broker.client.hget(broker.keys.prompt("a"), "attempts") is None
    assert not broker.client.exists(worker.lease.slot_key), "the slot is free for its successor"
    assert not ends(broker)


def test_a_prompt_that_hangs_alone_fails_with_where_it_stood_and_others_in_hand_go_back(broker: Broker) -> None:
    publish(broker, "bad", "mate")
    with watched(broker) as worker:
        worker.draws(worker.take(2)[:1])
    assert ends(broker) == {"bad": ("failed", "hang")}
    assert list(holders(broker).values()) == [RETURNED]
    letter = find_letter(Observer(broker), "bad")
    assert (letter.why, letter.attempts, letter.node) == ("hang", 1, "test")
    assert "until" in letter.traceback, "the line at which it hung"


def test_a_hang_of_the_heavy_model_leaves_the_light_picture_as_the_answer(broker: Broker) -> None:
    publish(broker, "bad")
    light = hire(broker)
    light.escalate(light.one())
    with watched(broker, "heavy") as worker:
        worker.draws(worker.take(1))
    assert ends(broker) == {"bad": ("light", "heavy_failed")}


@pytest.mark.parametrize("slow_s", [0.2, 30.0])
def test_a_slow_batch_is_no_hang(broker: Broker, slow_s: float) -> None:
    publish(broker)
    with watched(broker) as worker, worker.watchdog.over(worker.take(1), 0.1, slow_s):
        time.sleep(HANG_S * 2)
        assert (not worker.codes) == (slow_s * 5 > HANG_S)
        broker.hand_back_all("light", worker.lease.consumer)


def test_time_in_which_the_process_was_stopped_is_no_hang(broker: Broker) -> None:
    publish(broker)
    with watched(broker) as worker:
        with worker.watchdog.over(worker.take(1), 0.1, 10.0):
            batch = worker.watchdog._batch
            assert batch is not None
            batch.looked -= 3600.0  # the clock ran on, the process did not
            time.sleep(0.3)
            assert not worker.codes
        broker.hand_back_all("light", worker.lease.consumer)


def test_a_stopped_worker_hands_a_batch_back_that_would_outlast_its_grace_time(broker: Broker) -> None:
    publish(broker, "a", "b")
    with watched(broker, grace_s=5.0) as worker:
        worker.stop.set()
        began = time.monotonic()
        worker.draws(worker.take(2), expected_s=60.0, slow_s=60.0)
        assert time.monotonic() - began < 4.0, "at once: why wait for what can't be?"
        assert worker.codes[0] == DRAINED
    assert set(holders(broker).values()) == {RETURNED}, "nobody is suspected"
    assert [entry.job.id for entry in hire(broker).take(2)] == ["a", "b"]


def test_a_stopped_worker_may_finish_a_batch_within_its_grace_time(broker: Broker) -> None:
    publish(broker)
    with watched(broker, grace_s=60.0) as worker:
        worker.stop.set()
        with worker.watchdog.over(worker.take(1), 0.5, 10.0):
            time.sleep(0.5)
        assert not worker.codes
        broker.hand_back_all("light", worker.lease.consumer)


def test_a_batch_that_outlasts_the_grace_time_against_all_expectation_is_handed_back(broker: Broker) -> None:
    publish(broker)
    with watched(broker, grace_s=1.5) as worker:
        worker.stop.set()
        worker.draws(worker.take(1), expected_s=0.01, slow_s=60.0)
        assert worker.codes[0] == DRAINED
    assert list(holders(broker).values()) == [RETURNED]
