"""Real processes that are killed, paused, hung and stopped: prompts come back, and nobody answers twice."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.watchdog import HUNG
from shared.broker import Broker
from shared.catalog import load_cascade
from shared.config import Settings
from shared.door import Door
from shared.embedded import EmbeddedRedis
from shared.letters import find_letter
from shared.observer import Observer
from shared.schema import DEATHS, SUSPECT
from tests.conftest import fresh_deployment
from tests.helpers import ends, hire, holders, outcomes, publish, totals
from tests.processes import LONG_S, fault, give_slots, held_by, service, settings_for, standing, until, worker

pytestmark = pytest.mark.live

LIGHT = load_cascade("sdturbo").models["light"].name
A_LEASE_NOBODY_WAITS_FOR_S = 240.0


@pytest.fixture
def broker(oldest_server: EmbeddedRedis) -> Iterator[Broker]:
    """One server is enough here: what processes do does not depend on its version."""
    yield from fresh_deployment(oldest_server)


# -- death


def test_the_agent_hands_a_dead_workers_prompts_back_without_waiting_for_its_lease(
    broker: Broker, tmp_path: Path
) -> None:
    settings = settings_for(broker, lease_s=A_LEASE_NOBODY_WAITS_FOR_S, supervisor_socket=tmp_path / "none")
    give_slots(broker)
    with service(settings, "agent", log=tmp_path / "agent.log"), worker(settings) as victim:
        fault(broker, "a", "hang")
        publish(broker, "b", allowance_s=LONG_S)
        until(lambda: held_by(broker, victim), "it draws")
        time.sleep(1.5)  # the agent knows it by now
        held = held_by(broker, victim)
        victim.send_signal(signal.SIGKILL)
        back_s = until(lambda: list(holders(broker).values()).count(SUSPECT) == held, "its prompts are back")
        assert back_s < A_LEASE_NOBODY_WAITS_FOR_S / 4
        assert totals(broker)["reclaimed"] == held
        assert not broker.client.exists(broker.keys.slot("test", 0)), "the slot is free"
        alive = hire(broker)
        while entries := alive.take(4):
            for entry in entries:
                alive.end(entry)
    assert set(ends(broker)) == {"a", "b"}


def test_the_agent_leaves_a_worker_that_is_only_paused_alone(broker: Broker, tmp_path: Path) -> None:
    settings = settings_for(broker, lease_s=A_LEASE_NOBODY_WAITS_FOR_S, supervisor_socket=tmp_path / "none")
    give_slots(broker)
    with service(settings, "agent"), worker(settings) as paused:
        fault(broker, "slow", "none", after_s=1.0)
        until(lambda: held_by(broker, paused), "it draws")
        paused.send_signal(signal.SIGSTOP)
        time.sleep(3.0)
        assert held_by(broker, paused) == 1
        paused.send_signal(signal.SIGCONT)
        until(lambda: ends(broker), "it answers")
    assert ends(broker)["slow"][0] == "light"
    assert "reclaimed" not in totals(broker)


def test_a_prompt_that_kills_its_workers_fails_after_three_and_others_are_answered(
    broker: Broker, tmp_path: Path
) -> None:
    settings = settings_for(broker, lease_s=A_LEASE_NOBODY_WAITS_FOR_S, supervisor_socket=tmp_path / "none")
    give_slots(broker, batch=2)
    fault(broker, "bad", "kill", after_s=0.2)
    publish(broker, "mate", "other", allowance_s=LONG_S)
    with service(settings, "agent"):
        for _ in range(DEATHS + 1):  # the first in company
            if "bad" not in ends(broker):
                # Not one that is seen ready: it may have died before anybody looks.
                with service(settings, "worker", "--stage", "light", "--slot", "0") as victim:
                    victim.wait(timeout=60)
                    until(lambda: not standing(Observer(broker), victim.pid), "it is buried")
        with worker(settings):
            until(lambda: len(ends(broker)) == 3, "all are answered")
    assert ends(broker)["bad"] == ("failed", "poison")
    assert {end for each, (end, _) in ends(broker).items() if each != "bad"} == {"light"}
    assert find_letter(Observer(broker), "bad").attempts == DEATHS


def test_a_node_that_is_gone_frees_its_prompts_when_the_lease_has_run_out(broker: Broker) -> None:
    settings = settings_for(broker, lease_s=1.0)
    give_slots(broker)
    with service(settings, "keeper"), worker(settings) as lost:
        fault(broker, "p", "hang")
        until(lambda: held_by(broker, lost), "it draws")
        lost.send_signal(signal.SIGKILL)
        name = next(iter(holders(broker).values()))
        until(lambda: not broker.client.exists(broker.keys.worker(name)), "the lease has run out")
        until(lambda: SUSPECT in holders(broker).values(), "the keeper takes it back", limit_s=10.0)
    alive = hire(broker)
    alive.end(alive.one())


# -- a pause


def test_a_worker_paused_for_three_leases_is_fenced_out_and_goes_on_afterwards(broker: Broker) -> None:
    settings = settings_for(broker, lease_s=1.0)
    give_slots(broker)
    with service(settings, "keeper"), worker(settings) as paused:
        fault(broker, "p", "none", after_s=1.5)
        until(lambda: held_by(broker, paused), "it draws")
        paused.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        until(lambda: SUSPECT in holders(broker).values(), "its prompt is taken back")
        other = hire(Broker(settings_for(broker, lease_s=A_LEASE_NOBODY_WAITS_FOR_S)))
        entry = other.one()
        time.sleep(max(0.0, 3 * settings.lease_s - (time.monotonic() - began)))
        paused.send_signal(signal.SIGCONT)
        time.sleep(2.0)  # it finishes the batch, and is refused
        assert holders(broker) == {other.place(entry): other.name}
        assert not ends(broker)
        assert other.end(entry, why="elsewhere") == 1
        until(lambda: standing(Observer(broker), paused.pid), "it stands again, with a fresh lease")
        publish(broker, "q", allowance_s=LONG_S)
        until(lambda: "q" in ends(broker), "it draws again")
        assert paused.poll() is None
    assert ends(broker)["p"] == ("light", "elsewhere")
    assert len(outcomes(broker)) == 2


# -- a hang, too little memory, a broken model


@contextmanager
def revived(settings: Settings, broker: Broker, done: int, tmp_path: Path) -> Iterator[list[int]]:
    """Workers one after the other, as supervisor runs them, until so many prompts have ended; their exit codes."""
    codes: list[int] = []
    while len(ends(broker)) < done:
        log = tmp_path / "worker.log"
        with service(settings, "worker", "--stage", "light", "--slot", "0", log=log) as process:
            until(lambda: process.poll() is not None or len(ends(broker)) >= done, "it ends or has done all")
            if process.returncode is not None:
                codes.append(process.returncode)
    yield codes


def test_a_prompt_that_hangs_fails_alone_and_its_mates_are_answered(broker: Broker, tmp_path: Path) -> None:
    settings = settings_for(broker, hang_s=1.5)
    give_slots(broker)
    publish(broker, "a", allowance_s=LONG_S)
    fault(broker, "bad", "hang")
    publish(broker, "b", allowance_s=LONG_S)
    with revived(settings, broker, 3, tmp_path) as codes:
        assert codes[:2] == [HUNG, HUNG], "in company, then alone"
    assert ends(broker)["bad"] == ("failed", "hang")
    assert {ends(broker)[each][0] for each in "ab"} == {"light"}
    letter = find_letter(Observer(broker), "bad")
    assert "time.sleep(FOREVER_S)" in letter.traceback
    assert letter.attempts == 1


def test_faults_within_the_model_end_their_prompt_alone_and_the_worker_lives(broker: Broker, tmp_path: Path) -> None:
    settings = settings_for(broker)
    give_slots(broker)
    publish(broker, "a", allowance_s=LONG_S)
    for what in ("raise", "nan", "short"):
        fault(broker, what, what)
    publish(broker, "b", allowance_s=LONG_S)
    publish(broker, "crowd-1", "crowd-2", "crowd-3", allowance_s=LONG_S, parameters={"room": 1})
    with revived(settings, broker, 8, tmp_path) as codes:
        assert codes == [], "one worker did it all"
    failed = {each for each, (end, _) in ends(broker).items() if end == "failed"}
    assert failed == {"raise", "nan", "short"}
    assert {find_letter(Observer(broker), each).why for each in failed} == {"error"}
    assert broker.ceiling(LIGHT, "a100-80g") == 1


def test_a_broken_model_ends_its_worker_and_a_sound_one_answers(broker: Broker, tmp_path: Path) -> None:
    settings = settings_for(broker)
    give_slots(broker, batch=1)
    fault(broker, "breaks", "broken")
    # Not one that is seen ready: it may have ended before anybody looks.
    with service(settings, "worker", "--stage", "light", "--slot", "0", log=tmp_path / "worker.log") as process:
        assert process.wait(timeout=60) == 2
    assert "draws nothing any more" in (tmp_path / "worker.log").read_text()
    assert not ends(broker)
    assert list(holders(broker).values()) == [SUSPECT]
    sound = hire(broker)
    assert sound.end(sound.one()) == 1


# -- no light model


def test_where_no_worker_draws_light_the_heavy_one_answers(broker: Broker) -> None:
    """Also who has no time to spare. One that waited for light before stays there."""
    # So wide a margin that light would have to take every prompt at once.
    settings = settings_for(broker, policy="quality", margin_s=LONG_S)
    publish(broker, "stood", allowance_s=LONG_S)
    door = Door(broker.plan)
    with service(settings, "keeper"), service(settings, "control"), worker(settings, "heavy", 0):
        until(lambda: (plan := broker.plan()) and plan.heavy_direct == 1.0, "every prompt is sent to heavy")
        until(lambda: door.route("", "p") == "heavy", "the door has heard of it")
        publish(broker, "p", "q", allowance_s=20.0, route=door.route("", "p"))
        until(lambda: len(ends(broker)) == 2, "both end", LONG_S)
        assert ends(broker) == dict.fromkeys("pq", ("heavy", "heavy"))
        with worker(settings, "light", 1):
            until(lambda: "stood" in ends(broker), "light is back")
    assert ends(broker)["stood"][0] == "light"
