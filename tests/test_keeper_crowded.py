"""The keeper in a crowd, on a slow machine, and among keys that others spoilt."""

from __future__ import annotations

import time

import pytest

from shared.broker import Broker
from shared.exchange import Hop
from shared.schema import SUSPECT
from tests.helpers import ends, hire, holders, outcomes, publish
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
