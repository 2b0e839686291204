"""How often a worker without a prompt says that it lives: seldom, but for one that has just become ready."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from services.lease import Lease
from shared.broker import Broker
from shared.embedded import EmbeddedRedis
from shared.exchange import Publication
from tests.conftest import fresh_deployment
from tests.helpers import ALLOWANCE_S, Hand, count_alike, job, logger
from tests.processes import until

pytestmark = pytest.mark.live

LEASE_S = 0.8
WATCHED_S = 4.0


@pytest.fixture
def here(oldest_server: EmbeddedRedis) -> Iterator[Broker]:
    yield from fresh_deployment(oldest_server)


def beats(broker: Broker, **about: str) -> int:
    """Scripts that one worker's lease asks of Redis in a few seconds."""
    lease = Lease(broker.settings.model_copy(update={"lease_s": LEASE_S}), "light", "n-0-light-1", "played", logger)
    lease.start()
    lease.describe(**about)
    before = scripts(broker)
    time.sleep(WATCHED_S)
    made = scripts(broker) - before
    lease.end(broker)
    return made


def scripts(broker: Broker) -> int:
    told: Any = broker.client.info("commandstats")
    return int(told.get("cmdstat_evalsha", {"calls": 0})["calls"])


def test_who_has_just_become_ready_hears_of_a_plan_twice_as_soon(here: Broker) -> None:
    resting, new = beats(here, ready="0"), beats(here, ready="1")
    assert new > 1.3 * resting > 0


def test_a_new_plan_is_heard_of_by_a_worker_that_waits_for_one(here: Broker) -> None:
    lease = Lease(here.settings.model_copy(update={"lease_s": LEASE_S}), "light", "n-0-light-1", "played", logger)
    lease.start()
    lease.describe(ready="1")
    until(lambda: lease.plan_version == 0, "it knows that there is none")
    lease.changed.clear()
    here.client.hset(here.keys.plan, "version", "7")
    until(lease.changed.is_set, "it hears of the plan")
    assert lease.plan_version == 7
    lease.end(here)


def test_of_two_prompts_whose_entries_have_one_id_the_cancelled_one_is_abandoned(here: Broker) -> None:
    lease = Lease(here.settings.model_copy(update={"lease_s": LEASE_S}), "light", "n-0-light-1", "played", logger)
    lease.start()
    assert lease.take_slot(here)
    count_alike(here)
    here.publish([Publication(job("a", priority=0), ALLOWANCE_S), Publication(job("b", priority=1), ALLOWANCE_S)])
    held = Hand(here, "light", lease.consumer, lease.slot_key).take(2)
    first, second = held
    assert first.entry_id == second.entry_id
    lease.carry(held)
    assert here.cancel("a").done
    until(lambda: lease.abandoned([first]), "the lease hears that nobody waits for it")
    assert not lease.abandoned([second])
    assert not lease.abandoned(held), "the batch is drawn for the other"
    lease.end(here)
