"""A container without an engine: started, watched, restarted and stopped as a compose file says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from deploy.cluster.composefile import Health, Mount, Service
from deploy.cluster.image import Image, number_of
from deploy.cluster.network import Host
from deploy.supervision import ROOT, children
from shared.errors import CascadeError
from shared.process import die_with_parent

LOOK_S: Final = 0.02
FIRST_PAUSE_S: Final = 0.1  # before it is started again, doubled each time, as Docker does
LONGEST_PAUSE_S: Final = 60.0
LASTING_S: Final = 10.0  # one that ran so long is started again after the first pause
INSIDE: Final = ("--mount", "--uts", "--ipc", "--net", "--pid", "--root")

HealthState = Literal["none", "starting", "healthy", "unhealthy"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a container runs. `folder`: for its logs. `mounts`: with sources that are paths of this machine.

    `names`: addresses by the names that resolve in it.
    """

    host: Host
    folder: Path
    mounts: Sequence[Mount]
    names: Mapping[str, str]


class Container:
    """One container of a service. Its process is process 1 of its own namespace."""

    def __init__(self, service: Service, image: Image, place: Place) -> None:
        self.service = service
        self.host = place.host
        self.health: HealthState = "none"
        self.said = ""  # by the last health check
        self.starts = 0
        self.log = place.folder / f"{place.host.name}-{service.name}.log"
        self.environment = {"HOME": "/tmp", **image.environment, **service.environment}
        self.exit_code: int | None = None
        self._place = place
        self._image = image
        self._workdir = service.workdir or image.workdir
        self._user = number_of(service.user or image.user)
        self._check = service.health
        self._launcher: subprocess.Popen[bytes] | None = None
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def pid(self) -> int:
        """Its process 1, as this machine counts; 0 where it does not run."""
        launcher = self._launcher
        if launcher is None or launcher.poll() is not None:
            return 0
        return next(iter(children(launcher.pid)), 0)

    @property
    def running(self) -> bool:
        """Whether it has a process now."""
        return self.pid != 0

    def start(self) -> None:
        """Start it, and from now on keep it running as its restart policy says."""
        self._wanted.set()
        self.exit_code = None
        self.health = "starting" if self._check else "none"
        self._thread = threading.Thread(target=self._keep, name=self.log.stem, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """SIGTERM, the grace period, SIGKILL; returns the seconds it took."""
        began = time.monotonic()
        self._wanted.clear()
        if self._thread is not None:
            if self.running:
                self._signal(signal.SIGTERM)
            self._thread.join(self.service.grace_s)
            if self._thread.is_alive():
                self.kill()
                self._thread.join()
        return time.monotonic() - began

    def kill(self) -> None:
        """SIGKILL all its processes."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)

    def processes(self, words: str = "") -> list[int]:
        """Process ids, as this machine counts, of those in it whose command line holds these words."""
        found, left = [], [self.pid] if self.pid else []
        while left:
            pid = left.pop()
            left += children(pid)
            if words in _command_line(pid):
                found.append(pid)
        return found

    def run(self, command: Sequence[str], timeout_s: float = 60.0) -> tuple[int, str]:
        """Run a command in it, as `exec` of an engine does; its exit code (124: it ran too long) and what it said."""
        whole = [*self._entering(), *command]
        process = subprocess.Popen(
            whole, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=die_with_parent
        )
        try:
            said, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return 124, f"no answer within {timeout_s:g} s"
        return process.returncode, said.decode(errors="replace").strip()

    def _entering(self) -> list[str]:
        """The words that lead into the container."""
        pid = self.pid
        if not pid:
            raise CascadeError(f"{self.service.name} does not run on {self.host.name}; see {self.log}")
        user = [f"--setuid={self._user}", f"--setgid={self._user}"] if self._user else []
        pairs = [f"{name}={value}" for name, value in self.environment.items()]
        return ["nsenter", f"--target={pid}", *INSIDE, *user, "env", "-i", "-C", self._workdir, *pairs]

    def check_health(self, health: Health) -> bool:
        """Ask once, now."""
        try:
            code, self.said = self.run(health.command, health.timeout_s)
        except CascadeError as gone:
            code, self.said = 1, str(gone)
        return code == 0

    def _keep(self) -> None:
        """The life of the container: this thread starts every process of it, for they end with their thread."""
        pause_s = FIRST_PAUSE_S
        while self._wanted.is_set():
            began = time.monotonic()
            self._launcher = self._launch()
            self.starts += 1
            checks = threading.Thread(target=self._watch_health, args=(self._launcher,), daemon=True)
            checks.start()
            self.exit_code = self._launcher.wait()
            if not self.service.restarts:
                break
            pause_s = FIRST_PAUSE_S if time.monotonic() - began > LASTING_S else pause_s
            end = time.monotonic() + pause_s
            while self._wanted.is_set() and time.monotonic() < end:
                time.sleep(LOOK_S)
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)

    def _watch_health(self, launcher: subprocess.Popen[bytes]) -> None:
        health = self._check
        if health is None:
            return
        began, failed = time.monotonic(), 0
        self.health = "starting"
        while launcher.poll() is None:
            if self._passes(launcher, health.interval_s if failed or self.health != "starting" else 0.5):
                good = self.running and self.check_health(health)
                early = self.health == "starting" and time.monotonic() - began < health.start_period_s
                failed = 0 if good else failed + (not early)
                if good:
                    self.health = "healthy"
                elif failed >= health.retries:
                    self.health = "unhealthy"

    def _passes(self, launcher: subprocess.Popen[bytes], seconds: float) -> bool:
        """Wait so long; False where the process ended meanwhile."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if launcher.poll() is not None or not self._wanted.is_set():
                time.sleep(LOOK_S)
                return False
            time.sleep(min(0.2, max(0.0, end - time.monotonic())))
        return True

    def _launch(self) -> subprocess.Popen[bytes]:
        box = self._place.folder / f"{self.log.stem}.box"
        box.mkdir(exist_ok=True)
        spec = box.with_suffix(".json")
        spec.touch(mode=0o600)  # it holds the environment, and that the password
        spec.write_text(json.dumps(self._spec(box)))
        command = [sys.executable, "-m", "deploy.cluster.inside", str(spec)]
        with self.log.open("ab") as log:
            os.chown(self.log, self._user, self._user)  # a program may open /dev/stdout by its name
            return subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent
            )

    def _spec(self, box: Path) -> dict[str, Any]:
        service, image = self.service, self._image
        entrypoint = image.entrypoint if service.entrypoint is None else service.entrypoint
        # An entrypoint of one's own takes the image's command away.
        own = image.command if service.entrypoint is None else ()
        command = [*entrypoint, *(own if service.command is None else service.command)]
        names = {"localhost": "127.0.0.1", **self._place.names, service.hostname or self.host.name: self.host.address}
        mounts = [
            {"kind": each.kind, "source": each.source, "target": each.target, "read_only": each.read_only}
            for each in self._place.mounts
        ]
        return {
            "box": str(box),
            "image": str(image.root),
            "network": str(self.host.namespace),
            "hostname": service.hostname or self.host.name,
            "hosts": "".join(f"{address} {name}\n" for name, address in names.items()),
            "mounts": mounts,
            "reachable": [sys.prefix, sys.base_prefix, str(image.root / "..")],
            "read_only": service.read_only,
            "workdir": self._workdir,
            "user": self._user,
            "command": command,
            "environment": self.environment,
        }

    def _signal(self, number: signal.Signals) -> None:
        """As an engine does: to process 1 alone."""
        if self.pid:
            os.kill(self.pid, number)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
