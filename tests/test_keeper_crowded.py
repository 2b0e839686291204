"""The keeper in a crowd, on a slow machine, and among keys that others spoilt."""

from __future__ import annotations

import time

import pytest

from shared.broker import Broker
from shared.cascade import first_stage
from shared.exchange import Hop
from shared.observer import Observer
from shared.schema import SUSPECT
from tests.helpers import a_plan, ends, hire, holders, outcomes, publish, put_plan
from tests.keeping import LEASE_S, keeper_of
from tests.processes import until


def test_a_keeper_that_comes_late_settles_as_much_earlier(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(broker, allowance_s=20.4)
    light = hire(broker)
    light.escalate(light.one())
    keeper = keeper_of(broker, margin_s=20.0)
    keeper.step()
    assert not ends(broker)
    punctual = time.monotonic
    monkeypatch.setattr("services.keeper.time.monotonic", lambda: punctual() + 10.0)  # as if it had not been let run
    keeper.step()
    assert ends(broker) == {"p": ("light", "deadline")}


def test_prompts_that_share_a_deadline_all_keep_it(broker: Broker) -> None:
    ids = [f"p{number}" for number in range(600)]
    publish(broker, *ids, allowance_s=10.0)
    light = hire(broker)
    while entries := light.take(64):
        hops = [Hop(light.drawn(entry, 0.1), None, "escalate", b"light") for entry in entries]
        broker.commit("light", light.name, hops)
    # A record that nobody can read must not hide those behind it.
    broker.client.zadd(broker.keys.due, {f"unreadable-{number}": 1.0 for number in range(1200)})
    unreadable = [broker.keys.prompt(f"unreadable-{number}") for number in range(1200)]
    broker.client.mset(dict.fromkeys(unreadable, "x"))
    keeper = keeper_of(broker, margin_s=20.0)
    looks = 0
    while len(ends(broker)) < len(ids):
        keeper.step()
        looks += 1
        assert looks < 10, "each look settles all it can"
    broker.client.zremrangebyscore(broker.keys.due, 1.0, 1.0)
    broker.client.delete(*unreadable)
    assert {outcome.end for outcome in outcomes(broker)} == {"light"}
    assert all(outcome.finished < outcome.deadline for outcome in outcomes(broker))


@pytest.mark.parametrize("stage", ["middle", "light"])
def test_a_record_that_no_script_writes_does_not_stop_the_keeper(broker: Broker, stage: str) -> None:
    keeper = keeper_of(broker)
    publish(broker, "good", "spoilt", allowance_s=0.2)
    broker.client.hset(broker.keys.prompt("spoilt"), mapping={"stage": stage, "class": "seven"})
    time.sleep(0.25)
    keeper.step()
    assert ends(broker) == {"good": ("dropped", "deadline")}
    broker.client.hset(broker.keys.prompt("spoilt"), mapping={"stage": "light", "class": "1"})
    keeper.step()
    assert ends(broker)["spoilt"] == ("dropped", "deadline")


def test_a_stall_of_redis_takes_nothing_from_workers_that_live(broker: Broker) -> None:
    publish(broker, "held")
    light = hire(broker)
    entry = light.one()
    keeper = keeper_of(broker)
    broker.client.delete(broker.keys.worker(light.name))  # its lease ran out while nobody could renew it
    hold = keeper._broker.hold

    def stalling(key: str, token: str) -> bool:
        time.sleep(LEASE_S / 2)
        return hold(key, token)

    keeper._broker.hold = stalling  # type: ignore[method-assign]
    keeper.step()
    keeper._broker.hold = hold  # type: ignore[method-assign]
    assert light.end(entry) == 1, "it was taken from a worker that lives"
    publish(broker, "orphan")
    light.one()
    broker.client.delete(broker.keys.worker(light.name))
    time.sleep(LEASE_S / 2)
    until(lambda: keeper.step() and SUSPECT in holders(broker).values(), "what nobody renews comes back")


def test_those_that_leave_heavy_together_leave_as_much_earlier(broker: Broker) -> None:
    one_a_second = a_plan(light_batch=1, light_service_s=1.0, heavy_batch=1, heavy_service_s=500.0)
    put_plan(broker, one_a_second)
    publish(broker, *(f"p{number}" for number in range(60)), allowance_s=120.0, route="heavy")
    keeper = keeper_of(broker, margin_s=90.0)
    keeper.step()
    moved = broker.client.xlen(broker.keys.streams["light"][1])
    # The first needs 2 s, each other one second more: with 30 s to spare those beyond the 28th go now.
    assert 20 <= moved <= 45
    waiting = {prompt.id for prompt in Observer(broker).open_prompts(1e12) if prompt.stage == "heavy"}
    assert "p0" in waiting, "who leaves last leaves no sooner than it must"


@pytest.mark.parametrize("heavy_workers", [0, 1])
def test_nobody_skips_light_while_heavy_has_no_worker(broker: Broker, heavy_workers: int) -> None:
    plan = a_plan(heavy_workers=heavy_workers)
    put_plan(broker, plan)
    publish(broker, route="heavy")
    (prompt,) = Observer(broker).open_prompts(1e12)
    assert prompt.stage == first_stage("heavy", plan) == ("heavy" if heavy_workers else "light")
    entry = hire(broker, prompt.stage).one()
    assert entry.job.route == "heavy", "what was asked for stays known"
    assert first_stage("cascade", plan) == first_stage("light", plan) == "light"
    assert first_stage("heavy", None) == "heavy"
