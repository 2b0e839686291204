"""Every service, told to stop, leaves within its grace time with nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.supervision import ROOT
from shared.broker import Broker
from shared.embedded import EmbeddedRedis
from shared.observer import Observer
from shared.schema import RETURNED
from tests.conftest import fresh_deployment
from tests.helpers import ends, hire, holders, publish, totals
from tests.processes import LONG_S, Process, fault, give_slots, held_by, service, settings_for, until, worker

pytestmark = pytest.mark.live

A_LEASE_NOBODY_WAITS_FOR_S = 240.0


@pytest.fixture
def broker(oldest_server: EmbeddedRedis) -> Iterator[Broker]:
    """One server is enough here: what processes do does not depend on its version."""
    yield from fresh_deployment(oldest_server)


def stop(process: Process) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(timeout=150)


def test_a_worker_told_to_stop_finishes_its_batch(broker: Broker) -> None:
    settings = settings_for(broker, grace_s=30.0)
    give_slots(broker)
    with worker(settings) as process:
        fault(broker, "p", "none", after_s=1.0)
        until(lambda: held_by(broker, process), "it draws")
        publish(broker, "q", allowance_s=LONG_S)
        assert stop(process) == 0
    assert set(ends(broker)) == {"p"}, "what it held is answered, and nothing new begun"
    assert not holders(broker)
    assert not broker.client.exists(broker.keys.slot("test", 0))
    assert not Observer(broker).workers()
    alive = hire(broker)
    assert alive.end(alive.one()) == 1


def test_a_worker_told_to_stop_hands_back_what_would_take_too_long(broker: Broker) -> None:
    settings = settings_for(broker, grace_s=2.0)
    give_slots(broker)
    with worker(settings) as process:
        fault(broker, "p", "hang")
        until(lambda: held_by(broker, process), "it draws")
        assert stop(process) == 0
    assert list(holders(broker).values()) == [RETURNED]
    assert broker.client.hget(broker.keys.prompt("p"), "attempts") is None
    assert not Observer(broker).workers()
    alive = hire(broker)
    assert alive.end(alive.one()) == 1


@pytest.mark.parametrize("name", ["worker", "control", "keeper", "agent"])
def test_a_service_told_to_stop_while_redis_is_silent_leaves_all_the_same(
    broker: Broker, oldest_server: EmbeddedRedis, tmp_path: Path, name: str
) -> None:
    settings = settings_for(broker, supervisor_socket=tmp_path / "none")
    give_slots(broker)
    assert oldest_server.pid is not None
    options = ["--stage", "light"] if name == "worker" else []
    with service(settings, name, *options, log=tmp_path / "log") as process:
        until(lambda: '"ready"' in (tmp_path / "log").read_text(), "it is ready")
        os.kill(oldest_server.pid, signal.SIGSTOP)
        try:
            assert stop(process) == 0
        finally:
            os.kill(oldest_server.pid, signal.SIGCONT)


@pytest.mark.parametrize("service_name", ["control", "keeper"])
def test_a_leader_told_to_stop_gives_up_the_lead_at_once(broker: Broker, service_name: str) -> None:
    settings = settings_for(broker, lease_s=A_LEASE_NOBODY_WAITS_FOR_S)
    leader = broker.keys.leader(service_name)
    with service(settings, service_name) as process:
        until(lambda: broker.client.get(leader), "it leads")
        assert stop(process) == 0
        assert broker.client.get(leader) is None


def test_an_agent_told_to_stop_leaves(broker: Broker, tmp_path: Path) -> None:
    settings = settings_for(broker, supervisor_socket=tmp_path / "none")
    with service(settings, "agent", log=tmp_path / "log") as process:
        until(lambda: '"ready"' in (tmp_path / "log").read_text(), "it is ready")
        assert stop(process) == 0


def test_a_publisher_told_to_stop_reports_what_it_offered(broker: Broker, tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("arrival_ms,prompt_index\n0,0\n500000,1\n")
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    options = ["--trace", str(tmp_path / "trace.csv"), "--prompts", str(tmp_path / "prompts.txt")]
    with service(settings_for(broker), "publisher", *options, log=tmp_path / "log") as process:
        until(lambda: totals(broker).get("offered"), "it offers")
        assert stop(process) == 0
    assert '"offered": 1' in (tmp_path / "log").read_text()


def test_a_worker_that_loads_its_model_leaves_at_once(broker: Broker) -> None:
    settings = settings_for(broker, cascade="tiny", backend="diffusers", gpu="cpu", lease_s=2.0)
    with service(settings, "worker", "--stage", "light") as process:
        until(lambda: Observer(broker).workers(), "it is announced")
        assert Observer(broker).workers()[0]["ready"] == "0", "it still loads"
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert process.wait(timeout=60) != 0
        assert time.monotonic() - began < 5.0, "loading takes longer"
    until(lambda: not Observer(broker).workers(), "its lease runs out")


DEAF = """
import hashlib, os, threading, time
from shared.process import Stop
stop = Stop().listen()
def watch():
    while not stop:
        time.sleep(0.01)
    os._exit(7)
threading.Thread(target=watch).start()
print("listening", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


def test_a_stop_is_heard_while_the_main_thread_is_deep_in_a_model() -> None:
    process = subprocess.Popen([sys.executable, "-c", DEAF], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        time.sleep(0.5)
        assert stop(process) == 7
    finally:
        process.kill()
        process.communicate()
