"""The compose files' services as processes on one machine: healthy while they serve, and not when they do not."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy.chaos.programs import Programs
from deploy.supervision import ROOT
from shared.beat import FRESH_S
from shared.observer import Observer
from tests.composed import Places, answers, broker_as, environment_of_a_container, redis_of_the_head, running
from tests.composing import CPU_NODE, DEMANDED, HEAD, Service, healthcheck_here, said_by, services
from tests.helpers import ends, publish
from tests.processes import Process, until
from tests.servers import folder

pytestmark = pytest.mark.live

LONG_AGO_S = 10 * FRESH_S
# Workers that sleep: what is tried is how a node is started, watched and stopped.
NODE = {**DEMANDED, "HEAD_ADDRESS": "127.0.0.1", "NODE_NAME": "n1", "BACKEND": "sleeping", "CASCADE": "sdturbo"}


@dataclass
class Composed:
    """What runs: each service's process and description."""

    where: Path
    port: int
    places: Places
    redis: ExitStack
    stack: ExitStack
    processes: dict[str, Process] = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=dict)

    def start(self, name: str, service: Service) -> None:
        log = self.where / f"{name}.log"
        self.processes[name] = self.stack.enter_context(running(service, self.places, log))
        self.services[name] = service

    def unwell(self, name: str, *instead: str) -> str:
        """What the service's health check says, or another command in its container; empty where all is well."""
        service = self.services[name]
        command = healthcheck_here(service, self.places)
        environment = environment_of_a_container(service, self.places, {})
        said = said_by([*command[:3], *instead] if instead else command, cwd=ROOT, env=environment)
        return (said.stdout + said.stderr).strip() or "no word" if said.returncode else ""

    def back_date(self, name: str) -> None:
        """Make what the service left last look old."""
        file = self.where / "run" / name
        os.utime(file, (file.stat().st_atime, file.stat().st_mtime - LONG_AGO_S))


@pytest.fixture
def composed() -> Iterator[Composed]:
    """The head without the door, and a node of two slots."""
    with folder() as where, ExitStack() as redis, ExitStack() as stack:
        port, places = redis.enter_context(redis_of_the_head(where))
        made = Composed(where, port, places, redis, stack)
        until(lambda: answers(broker_as("admin", port, where / "secrets" / "admin")), "Redis answers")
        for name in ("control", "keeper"):
            made.start(name, services(HEAD, {**NODE, "POLICY": "clipper-light"})[name])
        made.start("node", services(CPU_NODE, NODE)["node"])
        for name in made.processes:
            until(lambda name=name: not made.unwell(name), f"{name} is healthy")  # type: ignore[misc]
        yield made


def test_a_node_draws_by_being_started_and_hands_its_slots_back_when_stopped(composed: Composed) -> None:
    until(lambda: not composed.unwell("node", "ready"), "every slot can draw")
    broker = broker_as("admin", composed.port, composed.where / "secrets" / "admin")
    publish(broker, "p", allowance_s=60.0)
    until(lambda: ends(broker), "the prompt is answered")
    assert ends(broker)["p"][0] in ("light", "heavy")
    assert {about["node"] for about in Observer(broker).workers()} == {"n1"}
    programs = Programs(composed.where / "run" / "supervisor.sock").pids()
    assert len(programs) == 1 + 2 * int(NODE["SLOTS"])
    node = composed.processes["node"]
    node.terminate()
    assert node.wait(60) == 0
    assert not [pid for pid in programs.values() if Path(f"/proc/{pid}").exists()], "the first process ends them all"
    assert not Observer(broker).workers(), "told to stop, a worker takes leave"


def test_a_loop_that_stands_still_is_found_out(composed: Composed) -> None:
    pids = {name: process.pid for name, process in composed.processes.items()}
    pids["node"] = Programs(composed.where / "run" / "supervisor.sock").pids()["agent"]
    for name, service in (("control", "control"), ("keeper", "keeper"), ("node", "agent")):
        os.kill(pids[name], signal.SIGSTOP)
        composed.back_date(service)
        assert "has not turned" in composed.unwell(name)
        assert "has not turned" in composed.unwell(name, "live", service)
        os.kill(pids[name], signal.SIGCONT)
        until(lambda name=name: not composed.unwell(name), f"{name} is healthy again")  # type: ignore[misc]


def test_without_redis_nothing_is_healthy_and_nothing_is_to_be_killed(composed: Composed) -> None:
    composed.redis.close()
    for name, service in (("control", "control"), ("keeper", "keeper"), ("node", "agent")):
        until(lambda name=name: composed.unwell(name), f"{name} says so")  # type: ignore[misc]
        for _ in range(10):  # also between two failures
            assert "redis is away" in composed.unwell(name)
        assert not composed.unwell(name, "live", service)
    assert "connect" in composed.unwell("node", "ready")
