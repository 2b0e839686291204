"""Keeper and control as real processes, killed and paused: one acts, the other takes over, nobody acts twice."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from shared.broker import Broker
from shared.config import Settings
from shared.embedded import EmbeddedRedis
from shared.observer import Observer
from tests.helpers import assert_conserved, ends, hire, publish
from tests.processes import Process, service, until

pytestmark = pytest.mark.live

LEASE_S = 2.0
SLACK_S = 3.0  # over lease_s + 0.5 s: a busy machine; one that never takes over fails all the same


@pytest.fixture
def broker(oldest_server: EmbeddedRedis) -> Iterator[Broker]:
    """A broker whose own leases last for the whole test; the services get shorter ones."""
    deployment = f"t{uuid.uuid4().hex[:6]}"
    made = Broker(Settings(redis_url=oldest_server.url, deployment=deployment, node="test", lease_s=60.0))
    made.check()
    yield made
    made.client.flushdb()
    made.close()


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def leader(broker: Broker, name: str) -> bytes | None:
    found: bytes | None = broker.client.get(broker.keys.leader(name))  # type: ignore[assignment]
    return found


def two(processes: ExitStack, broker: Broker, name: str) -> tuple[Process, Process, bytes]:
    """Two processes of a service and the token of the first, which leads."""
    settings = broker.settings.model_copy(update={"lease_s": LEASE_S, "margin_s": 1.0, "plan_period_s": 0.2})
    first = processes.enter_context(service(settings, name))
    until(lambda: leader(broker, name), "the first leads")
    token = leader(broker, name)
    assert token is not None
    second = processes.enter_context(service(settings, name))
    time.sleep(LEASE_S)
    assert leader(broker, name) == token, "the first still leads"
    return first, second, token


def overtaken(broker: Broker, name: str, token: bytes) -> float:
    """Seconds until another leads."""
    return until(lambda: leader(broker, name) not in (None, token), f"another {name} leads")


def escalated(broker: Broker, prompt_id: str, allowance_s: float = 3.0) -> None:
    publish(broker, prompt_id, allowance_s=allowance_s)
    light = hire(broker)
    assert light.escalate(light.one()) == 1


@pytest.mark.parametrize("name", ["keeper", "control"])
def test_another_takes_over_within_a_lease_and_half_a_second_of_a_kill(
    broker: Broker, processes: ExitStack, name: str
) -> None:
    first, second, token = two(processes, broker, name)
    first.kill()
    assert overtaken(broker, name, token) < LEASE_S + 0.5 + SLACK_S
    assert second.poll() is None


@pytest.mark.parametrize("name", ["keeper", "control"])
def test_one_that_is_told_to_stop_hands_over_at_once(broker: Broker, processes: ExitStack, name: str) -> None:
    first, _, token = two(processes, broker, name)
    first.terminate()
    first.wait(timeout=120)
    assert first.returncode == 0
    overtaken(broker, name, token)


def test_deadlines_are_kept_though_the_keeper_is_killed(broker: Broker, processes: ExitStack) -> None:
    first, _, _ = two(processes, broker, "keeper")
    escalated(broker, "p", allowance_s=LEASE_S + 0.5 + SLACK_S + 1.0)
    first.kill()
    until(lambda: ends(broker), "the other settles it")
    (outcome,) = Observer(broker).outcomes()[0]
    assert (outcome.end, outcome.why) == ("light", "deadline")
    assert outcome.finished < outcome.deadline


def test_a_paused_keeper_that_wakes_does_no_harm(broker: Broker, processes: ExitStack) -> None:
    first, second, token = two(processes, broker, "keeper")
    escalated(broker, "a", allowance_s=1.5)
    first.send_signal(signal.SIGSTOP)
    overtaken(broker, "keeper", token)
    until(lambda: "a" in ends(broker), "the other settles it")
    now_leads = leader(broker, "keeper")
    first.send_signal(signal.SIGCONT)
    escalated(broker, "b", allowance_s=1.5)
    until(lambda: "b" in ends(broker), "the other settles on")
    assert leader(broker, "keeper") == now_leads
    second.kill()
    escalated(broker, "c", allowance_s=1.5)
    until(lambda: "c" in ends(broker), "the first leads again")
    assert set(ends(broker)) == {"a", "b", "c"}
    assert_conserved(broker)


def test_a_paused_control_that_wakes_up_leaves_the_newer_plan_in_force(broker: Broker, processes: ExitStack) -> None:
    hire(broker)
    hire(broker, "heavy")
    first, second, token = two(processes, broker, "control")
    until(broker.plan, "a plan is in force")
    first.send_signal(signal.SIGSTOP)
    overtaken(broker, "control", token)
    # Another slot: the plan must change.
    about = {"node": "test", "slot": "1", "gpu": "cpu", "stage": "light", "ready": "1"}
    broker.announce("light", "test-1-light-1", about)
    until(lambda: (plan := broker.plan()) and "test:1" in plan.assignment, "the other plans for the new slot")
    newer, now_leads = broker.plan(), leader(broker, "control")
    first.send_signal(signal.SIGCONT)
    time.sleep(LEASE_S)
    assert leader(broker, "control") == now_leads
    plan = broker.plan()
    assert plan is not None and newer is not None
    assert plan.version >= newer.version
    assert "test:1" in plan.assignment
    versions = [each.version for each in Observer(broker).plans()[0]]
    assert versions == sorted(set(versions)), "each plan is newer than the one before"
    first.kill()
    second.kill()
    until(lambda: leader(broker, "control") is None, "nobody leads")
    assert broker.plan() == Observer(broker).plans()[0][-1], "the last plan stays in force"
