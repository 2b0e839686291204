"""Real processes of the services, for tests that hurt them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from deploy.runner import environment_of
from deploy.supervision import ROOT
from shared.broker import Broker
from shared.config import Settings
from shared.observer import Observer
from shared.process import die_with_parent
from shared.schema import Stage
from tests.helpers import a_plan, holders, publish, put_plan

PATIENCE_S = 120.0
LONG_S = 600.0  # a deadline that no test waits for
Process = subprocess.Popen[bytes]


def until(condition: Callable[[], object], what: str, limit_s: float = PATIENCE_S) -> float:
    """Wait for something to hold; the seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit_s, f"never: {what}"
        time.sleep(0.01)
    return time.monotonic() - began


def from_a_terminal() -> None:
    """In a child, before it runs: it dies with this process, and hears Ctrl-C, though these tests may not.

    What a shell without job control runs in the background ignores SIGINT, and so does all that it starts.
    """
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def service(
    settings: Settings, name: str, *options: str, log: Path | None = None, root: Path = ROOT
) -> Iterator[Process]:
    """A service as a process of its own, killed in the end. `root`: of the tree that it is run from."""
    environment = {**os.environ, **environment_of(settings)}
    errors = log.open("ab") if log else subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, "-m", f"services.{name}", *options],
        cwd=root,
        env=environment,
        stdout=errors,
        stderr=errors,
        preexec_fn=die_with_parent,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def worker(
    settings: Settings, stage: Stage = "light", slot: int = 0, log: Path | None = None, root: Path = ROOT
) -> Iterator[Process]:
    """A worker process that is ready to draw."""
    with service(settings, "worker", "--stage", stage, "--slot", str(slot), log=log, root=root) as process:
        observer = Observer(Broker(settings))
        until(lambda: standing(observer, process.pid) or process.poll() is not None, "the worker is ready")
        assert process.poll() is None, "the worker ended at once"
        yield process


def standing(observer: Observer, pid: int) -> str:
    """The consumer's name of a ready worker, by its process; empty where there is none."""
    found = [about for about in observer.workers() if about.get("pid") == str(pid) and about.get("ready") == "1"]
    return found[0]["consumer"] if found else ""


def settings_for(broker: Broker, **given: object) -> Settings:
    """Of a service that sleeps as the published cascade does, with the faults that prompts ask for."""
    known = {"cascade": "sdturbo", "backend": "faulty", "gpu": "a100-80g", "slots": 1, **given}
    return broker.settings.model_copy(update=known)


def give_slots(broker: Broker, stage: Stage = "light", slots: int = 1, version: int = 1, batch: int = 4) -> None:
    assignment = {f"test:{slot}": stage for slot in range(slots)}
    plan = a_plan(version=version, light_batch=batch, heavy_batch=batch, assignment=assignment)
    put_plan(broker, replace(plan, threshold=0.0))


def held_by(broker: Broker, process: Process) -> int:
    """How many prompts a process holds."""
    name = standing(Observer(broker), process.pid)
    return list(holders(broker).values()).count(name) if name else 0


def fault(broker: Broker, prompt_id: str, what: str, **more: object) -> None:
    publish(broker, prompt_id, allowance_s=LONG_S, parameters={"fault": what, **more})
