"""The plan at the door and in the planner service, on real servers: who is sent past light, and what is seen of it."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import pytest

from planner.policies import make_policy
from services.control import Control
from services.publisher import Publisher
from shared.broker import Broker
from shared.cascade import hardness, routes_heavy
from shared.catalog import load_cascade
from shared.config import Settings
from shared.observer import Observer
from shared.plans import Plan, View
from shared.process import Stop
from tests.helpers import a_plan, ends, hire, logger, publish, put_plan
from tests.planning import PINNED
from traces.read import Arrival

PROMPTS = ["a cat", "two hands holding a sign with text, a crowd behind, each face lit by a mirror"]


def waiting(broker: Broker) -> dict[str, int]:
    return {stage: backlog.waiting for stage, backlog in Observer(broker).backlog().items()}


@pytest.mark.parametrize("lot", [True, False])
def test_a_publisher_sends_past_light_whom_the_plan_sends_and_they_are_drawn_heavy(broker: Broker, lot: bool) -> None:
    plan = a_plan(heavy_direct=0.5, direct_above=0.5, lot=lot, light_workers=1_000, heavy_workers=1_000)
    put_plan(broker, plan)
    publisher = Publisher(broker, PROMPTS, 30.0, logger)
    publisher.publish([Arrival(0.0, number) for number in range(80)], Stop())
    assert publisher.report.receipts == Counter(published=80)
    heavy = hire(broker, "heavy")
    direct = {entry.job.id: entry.job for entry in heavy.take(80)}
    assert all(job.route == "heavy" and routes_heavy(job.prompt, job.id, plan) for job in direct.values())
    light = hire(broker)
    rest = light.take(80)
    assert not any(routes_heavy(entry.job.prompt, entry.job.id, plan) for entry in rest)
    assert len(direct) + len(rest) == 80
    assert 20 < len(direct) < 60 if lot else {job.prompt for job in direct.values()} == {PROMPTS[1]}
    for entry in rest:
        light.end(entry)
    broker.hand_back_all("heavy", heavy.name)
    for entry in heavy.take(80):
        heavy.end(entry, why=entry.job.route)
    assert Counter(ends(broker).values()) == {("heavy", "heavy"): len(direct), ("light", "confident"): len(rest)}


def test_without_a_plan_every_prompt_starts_light(broker: Broker) -> None:
    Publisher(broker, PROMPTS, 30.0, logger).publish([Arrival(0.0, number) for number in range(10)], Stop())
    assert waiting(broker) == {"light": 10, "heavy": 0}


def restless(broker: Broker) -> Settings:
    """Settings with which a control plans at every step."""
    return broker.settings.model_copy(update={"plan_period_s": 1e-9})


class Looking:
    """A policy that keeps what it saw."""

    def __init__(self) -> None:
        self.views: list[View] = []

    def __call__(self, view: View) -> Plan:
        self.views.append(view)
        return a_plan()


def test_control_sees_the_hardness_and_score_of_each_newest_prompt_once(broker: Broker) -> None:
    seen = Looking()
    control = Control(restless(broker), load_cascade("tiny"), seen, logger)
    light = hire(broker)
    for prompt, prompt_id in zip(PROMPTS, ("p", "q"), strict=True):
        publish(broker, prompt_id, prompt=prompt)
        light.end(light.one())
        control.step()
    control.step()
    assert [view.hardness for view in seen.views] == [
        (hardness(PROMPTS[0]),),
        *[(hardness(PROMPTS[0]), hardness(PROMPTS[1]))] * 2,
    ]
    assert [view.scores for view in seen.views] == [(0.75,), (0.75, 0.75), (0.75, 0.75)]
    control.leave()


def test_an_outcome_written_by_hand_does_not_stop_the_planning(broker: Broker) -> None:
    seen = Looking()
    control = Control(restless(broker), load_cascade("tiny"), seen, logger)
    light = hire(broker)
    entries: list[dict[bytes, bytes]] = [
        {b"id": b"x"},
        {b"id": b"x", b"end": b"light", b"why": b"", b"finished": b"soon"},
    ]
    for fields in entries:
        broker.client.xadd(broker.keys.done, cast(Any, fields))
    publish(broker)
    light.end(light.one())
    control.step()
    assert seen.views[-1].scores == (0.75,)
    broker.client.delete(broker.keys.done, broker.keys.totals)  # what was written by hand obeys no law
    control.leave()


def test_control_puts_a_pinned_plan_in_force_once_and_keeps_it(broker: Broker) -> None:
    policy = make_policy("pinned", load_cascade("sdturbo"), 5.0, pinned=PINNED)
    control = Control(restless(broker), load_cascade("sdturbo"), policy, logger)
    hire(broker)
    control.step()
    first = broker.plan()
    assert first is not None
    # One slot, and it runs light: nobody is there to escalate to.
    assert (first.policy, first.light_workers, first.light_batch, first.threshold) == ("pinned", 1, 16, 0.0)
    control.step()
    assert broker.plan() == first
    control.leave()
