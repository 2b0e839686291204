"""Idle workers on one Redis: they cost next to nothing, and agents do not look at the whole fleet for nothing."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest

from deploy.bench_polling import polled
from services.agent import Agent, Supervisor, program
from shared.broker import Broker
from shared.schema import STAGES
from tests.helpers import Hand, a_plan, hire, put_plan

pytestmark = pytest.mark.live

# A claim every two seconds and a beat every second, each with what its script does; with room for both.
MOST_COMMANDS_A_SLOT = 30.0


def test_an_idle_worker_asks_redis_seldom() -> None:
    found = polled(8, services=False, window_s=5.0)
    assert 1.0 < found.commands_per_s / found.slots < MOST_COMMANDS_A_SLOT


class AllRuns(Supervisor):
    """One slot on which both programs run."""

    def __init__(self) -> None:
        super().__init__(Path("none.sock"))

    def listing(self) -> dict[str, str]:
        return {program(0, stage): "RUNNING" for stage in STAGES}


def looks_in(broker: Broker, agent: Agent, seconds: float) -> int:
    """How often the agent asked for the names of the fleet's workers."""

    def asked() -> int:
        facts: Any = broker.client.info("commandstats")
        names = ("cmdstat_xinfo|consumers", "cmdstat_xinfo")  # the second on 6.2
        return int(next((facts[name]["calls"] for name in names if name in facts), 0)) // len(STAGES)

    before, end = asked(), time.monotonic() + seconds
    while time.monotonic() < end:
        agent.sleep(agent.step())
    return asked() - before


def test_an_agent_looks_at_the_fleet_while_it_lacks_a_worker_and_seldom_after(broker: Broker) -> None:
    put_plan(broker, a_plan(assignment={"test:0": "light"}))
    settings = broker.settings.model_copy(update={"slots": 1})
    agent = Agent(settings, AllRuns(), logging.getLogger("test"))
    light = introduced(broker, "light")
    lacking = looks_in(broker, agent, 4.2)
    heavy = introduced(broker, "heavy")
    looks_in(broker, agent, 1.2)  # now it knows both
    complete = looks_in(broker, agent, 4.2)
    assert lacking >= 4 > 2 >= complete, (lacking, complete)
    for hand in (light, heavy):
        broker.retire(hand.stage, hand.name)


def introduced(broker: Broker, stage: Any) -> Hand:
    """A worker of this node that says who it is and lives long enough."""
    hand = hire(broker, stage)
    name = f"test-0-{stage}-0123abcd"
    about = {
        "node": "test",
        "slot": "0",
        "gpu": "cpu",
        "stage": stage,
        "ready": "1",
        "consumer": name,
        "process": "x y",
    }
    broker.retire(stage, hand.name)
    broker.announce(stage, name, about)
    broker.client.persist(broker.keys.worker(name))
    return Hand(broker, stage, name, hand.slot_key)
