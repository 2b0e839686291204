"""Runs the whole pipeline on this machine around one trace, and leaves nothing running.

Redis ── supervisord (control, keeper, agent, workers) ── publisher ── recorder ──> logs/<run>/
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy.recorder import Recorder
from deploy.supervision import ROOT, Supervisord, configuration
from shared.broker import Broker
from shared.catalog import load_cascade
from shared.config import PREFIX, Settings, load
from shared.embedded import EmbeddedRedis
from shared.errors import CascadeError
from shared.observer import Observer
from shared.process import die_with_parent
from shared.recording import Recording, Tick

LOOK_S: Final = 1.0
PATIENCE_S: Final = 240.0  # for all models to load, on a slow disk
LAST_SETTLED_S: Final = 10.0  # after the last deadline nothing is open


@dataclass(frozen=True, slots=True)
class Run:
    """What to run: a trace on so many slots, into a folder. `label`: the trace's name, if not its file's.

    `gateway`: with the door over HTTP.
    """

    folder: Path
    settings: Settings
    trace: Path
    prompts: Path | None = None
    durability: str = "everysec"
    nice: int = 0
    label: str = ""
    gateway: bool = False

    @property
    def pictures(self) -> Path | None:
        """Where pictures are kept; None for workers that draw none."""
        return self.folder / "pictures" if self.settings.backend == "diffusers" else None


class Deployment:
    """A running pipeline: its broker, and the processes a test may want to hurt."""

    def __init__(self, run: Run, settings: Settings, server: EmbeddedRedis, supervisord: Supervisord) -> None:
        self.settings = settings
        self.server = server
        self.supervisord = supervisord
        self.broker = Broker(settings)
        self.observer = Observer(self.broker)
        self.recorder = Recorder(self.broker, run.pictures)

    def ready_slots(self) -> int:
        """Slots on which both stages can draw."""
        return sum(len(slot.stages) == 2 for slot in self.observer.slots())

    def wait_ready(self, say: Callable[[str], None], slots: int | None = None) -> None:
        """Wait until every slot can draw and a plan is in force. `slots`: of all nodes, where there are several."""
        slots = slots or self.settings.slots
        end = time.monotonic() + PATIENCE_S
        said = -1
        while True:
            self.supervisord.check()
            if wrong := not_loading(self.observer.workers()):
                raise CascadeError(wrong)
            ready = self.ready_slots()
            if ready != said:
                said = ready
                say(f"models loaded on {ready} of {slots} slots")
            plan = self.broker.plan()
            if ready == slots and plan is not None and len(plan.assignment) == ready:
                return
            if time.monotonic() > end:
                raise CascadeError(f"only {ready} of {slots} slots came up; see {self.settings.log_dir}")
            time.sleep(0.25)


def not_loading(workers: Sequence[Mapping[str, str]]) -> str:
    """Why a model does not load, as the first worker that fails says; nothing where none does."""
    failing = (worker for worker in workers if worker.get("error") and worker.get("ready") != "1")
    return next((f"the {worker['stage']} model does not load: {worker['error']}" for worker in failing), "")


@contextmanager
def deployment(run: Run) -> Iterator[Deployment]:
    """Start Redis and supervisord for a run; both end, whatever happens inside."""
    processes = run.folder / "processes"
    processes.mkdir(parents=True, exist_ok=True)
    # Unix sockets need short paths.
    short = Path(tempfile.mkdtemp(prefix="cascade-"))
    try:
        with EmbeddedRedis(short, durability=run.durability) as server:
            socket = short / "supervisor.sock"
            settings = run.settings.model_copy(
                update={"redis_url": server.url, "supervisor_socket": socket, "log_dir": processes.resolve()}
            )
            Broker(settings).check()
            with supervised(settings, gateway=run.gateway, nice=run.nice) as supervisord:
                yield Deployment(run, settings, server, supervisord)
    finally:
        shutil.rmtree(short, ignore_errors=True)


def supervised(settings: Settings, *, head: bool = True, gateway: bool = False, nice: int = 0) -> Supervisord:
    """A node's supervisord, not yet started; its configuration lies beside its logs."""
    assert settings.log_dir is not None
    folder, socket = settings.log_dir, settings.supervisor_socket
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "supervisord.conf"
    environment = environment_of(settings)
    file.write_text(configuration(folder, socket, settings.slots, environment, head=head, gateway=gateway, nice=nice))
    return Supervisord(file)


def settings_here(**given: Any) -> Settings:
    """Settings of a run on this machine: what is `given`, and else what the environment says; raises SettingsError."""
    return load().model_copy(update=given)


def environment_of(settings: Settings) -> dict[str, str]:
    """The settings as environment variables for the services."""
    given = {name: value for name, value in settings.model_dump().items() if value is not None}
    passed = {PREFIX + name.upper(): str(value) for name, value in given.items() if name not in ("stage", "slot")}
    # One thread per process: two spin under contention, and slots share the machine.
    return passed | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}


def replay(run: Run, say: Callable[[str], None], show: Callable[[Tick, Recorder], None]) -> Recording:
    """Run the pipeline around the trace and return what was recorded.

    `say` gets a line at each step of the start; `show` gets each look while the trace runs.
    """
    cascade = load_cascade(run.settings.cascade)
    deadline_s = run.settings.deadline_s or cascade.deadline_s
    with deployment(run) as running:
        say(f"{run.settings.slots} slots start; logs in {running.settings.log_dir}")
        running.wait_ready(say)
        with _publisher(run, running.settings) as publisher:
            while publisher.poll() is None:
                _look(running, show)
            report = _published(publisher, run)
        end = time.monotonic() + deadline_s + LAST_SETTLED_S
        while running.observer.next_due() is not None and time.monotonic() < end:
            _look(running, show)
        known = json.loads(running.settings.model_dump_json())
        settings = {**known, "trace": run.label or run.trace.name, "publisher": report}
        if running.recorder.trouble:
            say(running.recorder.trouble)
        return running.recorder.recording(cascade.name, deadline_s, settings)


@contextmanager
def _publisher(run: Run, settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "services.publisher", "--trace", str(run.trace.resolve())]
    if run.prompts is not None:
        command += ["--prompts", str(run.prompts.resolve())]
    environment = {**os.environ, **environment_of(settings)}
    with (run.folder / "processes" / "publisher.log").open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            preexec_fn=die_with_parent,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _published(publisher: subprocess.Popen[bytes], run: Run) -> dict[str, Any]:
    assert publisher.stdout is not None
    said = publisher.stdout.read().decode().strip()
    if publisher.returncode != 0:
        log = (run.folder / "processes" / "publisher.log").read_text().strip().splitlines()
        raise CascadeError(f"the publisher ended with {publisher.returncode}: {log[-1] if log else 'it said nothing'}")
    return dict(json.loads(said.splitlines()[-1]))


def _look(running: Deployment, show: Callable[[Tick, Recorder], None]) -> None:
    began = time.monotonic()
    running.supervisord.check()
    show(running.recorder.look(), running.recorder)
    time.sleep(max(0.0, LOOK_S - (time.monotonic() - began)))
