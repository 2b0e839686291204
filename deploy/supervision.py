"""Supervisor's configuration for a node, and a supervisord of our own around a run.

The set of programs is fixed: the head's services start at once, and each slot has one program per stage,
which the agent starts and stops. `--run` becomes that supervisord: the first process of a container.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from deploy.devices import devices_of, gpu_listing
from services.agent import program
from shared.catalog import load_cascade
from shared.config import PREFIX, Settings, load
from shared.errors import CascadeError
from shared.model import VISIBLE, on_processor
from shared.process import die_with_parent, guarded
from shared.schema import STAGES

ROOT: Final = Path(__file__).resolve().parent.parent
HEAD: Final = ("control", "keeper")
STOP_WAIT_S: Final = 15
OWN_ADDRESS: Final = "REDIS_URL_"  # with a service's name in capitals: the address it uses instead of REDIS_URL
SHARES: Final = f"{PREFIX}SHARES"
STANDARD_OUTPUT: Final = Path("/dev/fd/1")

_HEADER: Final = """\
; Written by `python -m deploy.supervision`. Supervisor listens on its unix socket only.
[unix_http_server]
file={socket}
chmod=0700

[supervisord]
nodaemon=true
directory={root}
logfile={own_log}
pidfile={folder}/supervisord.pid
childlogdir={folder}
identifier={identifier}
environment={environment}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://{socket}
"""

_PROGRAM: Final = """
[program:{name}]
command={command}
autostart={autostart}
autorestart=true
startsecs=1
startretries=3
stopsignal=TERM
stopwaitsecs={stop_wait_s}
stopasgroup=false
killasgroup=true
redirect_stderr=true
stdout_logfile={log}
stdout_logfile_maxbytes={log_bytes}
stdout_logfile_backups=1
environment={environment}
"""

# Of a higher priority than all others: the workers stop first, while the agent still buries those that die.
_GROUP: Final = """
[group:workers]
programs={programs}
priority=1000
"""


def configuration(
    folder: Path,
    socket: Path,
    slots: int,
    environment: Mapping[str, str],
    *,
    head: bool = True,
    gateway: bool = False,
    nice: int = 0,
    devices: Sequence[str] = (),
    spoken: bool = False,
) -> str:
    """The text of supervisord.conf. `nice`: how far model work yields to message work (for CPU slots).

    Each service gets its own REDIS_URL where the environment has one, so that each acts as its own Redis user.
    `devices`: what each slot sees of the GPUs, for CUDA calls the first that it sees its own; none: all of them.
    `spoken`: what the programs say goes to standard output, where a container's engine keeps it, and not into files.
    """
    own = {
        name.removeprefix(OWN_ADDRESS).lower(): {"CASCADE_REDIS_URL": value}
        for name, value in environment.items()
        if name.startswith(OWN_ADDRESS)
    }
    text = _HEADER.format(
        socket=socket,
        root=str(ROOT).replace("%", "%%"),
        folder=folder,
        own_log="/dev/null" if spoken else f"{folder}/supervisord.log",  # it speaks anyway, being in the foreground
        identifier=f"cascade-{socket.stem}",
        environment=_quoted({name: environment[name] for name in environment if not name.startswith(OWN_ADDRESS)}),
    )
    logs = None if spoken else folder
    python = shlex.quote(sys.executable).replace("%", "%%")
    for name in [*(HEAD if head else ()), *(("gateway",) if gateway else ()), "agent"]:
        text += _program(name, f"{python} -m services.{name}", logs, own.get(name, {}))
    yielding = f"nice -n {nice} " if nice else ""
    workers = [(slot, stage) for slot in range(slots) for stage in STAGES]
    for slot, stage in workers:
        command = f"{yielding}{python} -m services.worker --stage {stage} --slot {slot}"
        seen = {VISIBLE: devices[slot], SHARES: str(devices.count(devices[slot]))} if devices else {}
        text += _program(program(slot, stage), command, logs, own.get("worker", {}) | seen, worker=True)
    # One group: supervisor stops groups one after the other, and what is in one at once.
    return text + _GROUP.format(programs=",".join(program(*each) for each in workers))


def _program(
    name: str, command: str, logs: Path | None, environment: Mapping[str, str], *, worker: bool = False
) -> str:
    return _PROGRAM.format(
        name=name,
        command=command,
        log=f"{logs}/{name}.log" if logs else STANDARD_OUTPUT,
        log_bytes="10MB" if logs else "0",
        autostart="false" if worker else "true",
        stop_wait_s=STOP_WAIT_S,
        environment=_quoted(environment),
    )


def _quoted(environment: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{value}"'.replace("%", "%%") for name, value in sorted(environment.items()))


class Supervisord:
    """A supervisord in the foreground of nothing: ended, with all it runs, when the block is left."""

    def __init__(self, configuration_file: Path) -> None:
        self._file = configuration_file
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._file)]
        with (self._file.parent / "supervisord.out").open("wb") as out:
            # A session of its own: Ctrl-C reaches the runner, which ends the programs in order.
            self._process = subprocess.Popen(
                command, stdout=out, stderr=out, start_new_session=True, preexec_fn=die_with_parent
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process is not None
        self._process.terminate()
        # Supervisor ends its programs one after the other; told all at once, they end in the time of the slowest.
        for child in children(self._process.pid):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
        try:
            self._process.wait(timeout=STOP_WAIT_S + 5)
        except subprocess.TimeoutExpired:
            for child in children(self._process.pid):
                os.kill(child, signal.SIGKILL)
            self._process.kill()
            self._process.wait()

    def check(self) -> None:
        """Raise CascadeError with its last words if it has ended."""
        assert self._process is not None
        if self._process.poll() is not None:
            said = (self._file.parent / "supervisord.out").read_text(errors="replace").strip().splitlines()
            raise CascadeError(f"supervisord ended: {said[-1] if said else 'it said nothing'} ({self._file})")


def children(parent: int) -> list[int]:
    """The process ids of a process' children."""
    try:
        return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    except OSError:
        return []


def node_settings(given: argparse.Namespace) -> Settings:
    """What the node is told; raises SettingsError, also for a GPU type on which the cascade was never measured.

    Its workers would say so one by one; the node says it at once.
    """
    settings = load(given)
    cascade = load_cascade(settings.cascade)
    settings = settings.model_copy(update={"gpu": settings.gpu or cascade.gpu})
    for stage in STAGES:
        cascade.profile(stage, settings.gpu)
    return settings


def can_be_opened(output: Path = STANDARD_OUTPUT) -> bool:
    """Whether supervisor could open it. Most engines give a container's output to its user; some leave it to root."""
    try:
        output.open("ab").close()
    except OSError:
        return False
    return True


def become(text: str, folder: Path) -> None:
    """End as the supervisord of that configuration, under this process' id: so it hears whoever stops a container."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "supervisord.conf"
    file.touch(0o600)  # addresses may hold passwords
    file.write_text(text)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "supervisor.supervisord", "-c", str(file), "-n"])


def main() -> int:
    """Print a node's supervisord.conf, or run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, help="GPUs, or shares of one, on this node (default: CASCADE_SLOTS, or 1)")
    parser.add_argument(
        "--devices",
        default="",
        help="the GPU of each slot: 0,0,1,1 or MIG-...,MIG-... (default: 0,1,... or all MIG-...)",
    )
    parser.add_argument("--folder", type=Path, default=Path("logs"), help="where logs and the process id go")
    parser.add_argument("--socket", type=Path, help="supervisor's unix socket (default: supervisor.sock in the folder)")
    parser.add_argument("--no-head", action="store_true", help="without control and keeper: a GPU node")
    parser.add_argument("--gateway", action="store_true", help="with the door over HTTP (CASCADE_HTTP_PORT, ..._KEYS)")
    parser.add_argument("--nice", type=int, default=0, help="for CPU slots: how far model work yields")
    parser.add_argument(
        "--run", action="store_true", help="become that supervisord, logging to standard output where it may"
    )
    given = parser.parse_args()
    settings = node_settings(given)
    slots, folder = settings.slots, given.folder.resolve()
    socket = (given.socket or folder / "supervisor.sock").resolve()
    devices = () if on_processor(settings.gpu) else devices_of(given.devices, slots, os.environ, gpu_listing)
    passed = {name: os.environ[name] for name in os.environ if name.startswith((PREFIX, "REDIS_URL"))}
    passed |= {"CASCADE_SUPERVISOR_SOCKET": str(socket), "CASCADE_SLOTS": str(slots)}
    programs = {"head": not given.no_head, "gateway": given.gateway, "spoken": given.run and can_be_opened()}
    text = configuration(folder, socket, slots, passed, **programs, nice=given.nice, devices=devices)
    if given.run:
        become(text, folder)
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    guarded(main)
