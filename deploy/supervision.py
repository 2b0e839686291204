"""Supervisor's configuration for a node, and a supervisord of our own around a run.

The set of programs is fixed: the head's services start at once, and each slot has one program per stage,
which the agent starts and stops.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from services.agent import program
from shared.errors import CascadeError
from shared.process import die_with_parent
from shared.schema import STAGES

ROOT: Final = Path(__file__).resolve().parent.parent
HEAD: Final = ("control", "keeper")
STOP_WAIT_S: Final = 15
OWN_ADDRESS: Final = "REDIS_URL_"  # with a service's name in capitals: the address it uses instead of REDIS_URL

_HEADER: Final = """\
; Written by `python -m deploy.supervision`. Supervisor listens on its unix socket only.
[unix_http_server]
file={socket}
chmod=0700

[supervisord]
nodaemon=true
directory={root}
logfile={folder}/supervisord.log
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
stdout_logfile={folder}/{name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=1
environment={environment}
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
) -> str:
    """The text of supervisord.conf. `nice`: how far model work yields to message work (for CPU slots).

    Each service gets its own REDIS_URL where the environment has one, so that each acts as its own Redis user.
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
        identifier=f"cascade-{socket.stem}",
        environment=_quoted({name: environment[name] for name in environment if not name.startswith(OWN_ADDRESS)}),
    )
    python = shlex.quote(sys.executable).replace("%", "%%")
    services = [*(HEAD if head else ()), *(("gateway",) if gateway else ()), "agent"]
    for name in services:
        text += _program(name, f"{python} -m services.{name}", folder, own.get(name, {}), autostart=True)
    yielding = f"nice -n {nice} " if nice else ""
    for slot in range(slots):
        for stage in STAGES:
            command = f"{yielding}{python} -m services.worker --stage {stage} --slot {slot}"
            text += _program(program(slot, stage), command, folder, own.get("worker", {}), autostart=False)
    return text


def _program(name: str, command: str, folder: Path, environment: Mapping[str, str], *, autostart: bool) -> str:
    return _PROGRAM.format(
        name=name,
        command=command,
        folder=folder,
        autostart="true" if autostart else "false",
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


def main() -> None:
    """Print a node's supervisord.conf."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=1, help="GPUs, or shares of one, on this node")
    parser.add_argument("--folder", type=Path, default=Path("logs"), help="where logs and the process id go")
    parser.add_argument("--socket", type=Path, default=Path("logs/supervisor.sock"), help="supervisor's unix socket")
    parser.add_argument("--no-head", action="store_true", help="without control and keeper: a GPU node")
    parser.add_argument("--gateway", action="store_true", help="with the door over HTTP (CASCADE_HTTP_PORT, ..._KEYS)")
    parser.add_argument("--nice", type=int, default=0, help="for CPU slots: how far model work yields")
    given = parser.parse_args()
    folder, socket = given.folder.resolve(), given.socket.resolve()
    passed = {name: os.environ[name] for name in os.environ if name.startswith(("CASCADE_", "REDIS_URL"))}
    passed |= {"CASCADE_SUPERVISOR_SOCKET": str(socket), "CASCADE_SLOTS": str(given.slots)}
    programs = {"head": not given.no_head, "gateway": given.gateway}
    text = configuration(folder, socket, given.slots, passed, **programs, nice=given.nice)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
