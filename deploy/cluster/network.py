"""Hosts with addresses of their own: network namespaces on a switch, with cables that can be pulled.

    this machine ── switch (a namespace with a bridge) ── head, gpu-1, gpu-2 (a namespace each)

No namespace has a name: each lives as long as the process that holds it, and that one ends with us, so that nothing is
left behind even of a run that was killed, and two runs never meet.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from shared.errors import CascadeError
from shared.process import die_with_parent

PATIENCE_S: Final = 5.0
TOOLS: Final = ("ip", "unshare", "nsenter")
TRIES: Final = 100
# Seen by nobody: what is mounted in a namespace of one's own goes with it.
TRIAL: Final = """mount -t tmpfs trial /tmp && mkdir /tmp/written /tmp/work /tmp/root
mount -t overlay trial -o lowerdir=/,upperdir=/tmp/written,workdir=/tmp/work /tmp/root"""


@lru_cache(maxsize=1)
def obstacle() -> str:
    """Why hosts and containers can't be made here, in a few words; empty where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"{', '.join(missing)} not found: install iproute2 and util-linux"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "sh", "-ec", TRIAL],
        capture_output=True,
        text=True,
        check=False,
    )
    said = tried.stderr.strip().splitlines() or ["no reason given"]
    return f"no namespaces or overlays here: {said[-1]}" if tried.returncode else ""


@dataclass(frozen=True, slots=True)
class Host:
    """A host on the network. `pid`: of the process that holds its namespace."""

    name: str
    address: str
    pid: int

    @property
    def namespace(self) -> Path:
        """The file by which its network namespace is entered."""
        return Path(f"/proc/{self.pid}/ns/net")


class Network:
    """The switch, its hosts, and this machine's own cable to it; all gone when the block is left."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self.cable = ""  # this machine's end of its own
        self._holders: list[subprocess.Popen[bytes]] = []
        self._subnet = _unused_subnet()
        self._addresses = self._subnet.hosts()
        self._switch = 0

    def __enter__(self) -> Self:
        if reason := obstacle():
            raise CascadeError(reason)
        try:
            self._switch = self._hold()
            self._run(self._switch, "link", "add", "switch", "type", "bridge")
            self._run(self._switch, "link", "set", "switch", "up")
            self.cable = f"cascade{self._switch}"  # a process id: no other network has it
            self._plug("own", self.cable, None)
            self._run(None, "addr", "add", f"{next(self._addresses)}/{self._subnet.prefixlen}", "dev", self.cable)
            self._run(None, "link", "set", self.cable, "up")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def add(self, name: str) -> Host:
        """A host more, with the next address."""
        host = Host(name, str(next(self._addresses)), self._hold())
        self._plug(name, "eth0", host.pid)
        self._run(host.pid, "addr", "add", f"{host.address}/{self._subnet.prefixlen}", "dev", "eth0")
        self._run(host.pid, "link", "set", "eth0", "up")
        self._run(host.pid, "link", "set", "lo", "up")
        self.hosts[name] = host
        return host

    def cut(self, name: str) -> None:
        """Pull the host's cable at the switch: what is sent is lost and nobody is told."""
        self._run(self._switch, "link", "set", _port(name), "down")

    def heal(self, name: str) -> None:
        """Plug it in again."""
        self._run(self._switch, "link", "set", _port(name), "up")

    def _plug(self, name: str, end: str, pid: int | None) -> None:
        """A cable from the switch to an interface of a host; None: of this machine."""
        far = ["netns", str(pid)] if pid is not None else []
        # Made on this machine's side, for only from here both processes' namespaces can be named.
        cable = ["link", "add", "name", end, *far, "type", "veth", "peer", "name", _port(name)]
        self._run(None, *cable, "netns", str(self._switch))
        self._run(self._switch, "link", "set", _port(name), "master", "switch")
        self._run(self._switch, "link", "set", _port(name), "up")

    def _hold(self) -> int:
        """A process in a network namespace of its own, which lives as long as the process does."""
        holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], preexec_fn=die_with_parent)
        self._holders.append(holder)
        own, its = os.readlink("/proc/self/ns/net"), f"/proc/{holder.pid}/ns/net"
        end = time.monotonic() + PATIENCE_S
        while os.readlink(its) == own:
            if holder.poll() is not None or time.monotonic() > end:
                raise CascadeError("no network namespace was made")
            time.sleep(0.005)
        return holder.pid

    def _run(self, pid: int | None, *words: str) -> None:
        inside = ["nsenter", f"--net=/proc/{pid}/ns/net"] if pid is not None else []
        done = subprocess.run([*inside, "ip", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise CascadeError(f"ip {' '.join(words)}: {done.stderr.strip()}")

    def _end(self) -> None:
        # It goes with the switch anyway, but a moment later.
        subprocess.run(["ip", "link", "delete", self.cable], capture_output=True, check=False)
        for holder in self._holders:
            holder.kill()
            holder.wait()


def _port(name: str) -> str:
    return f"to-{name}"[:15]


def _unused_subnet() -> IPv4Network:
    """A private network of 254 addresses that no interface and no route of this machine touches."""
    said = subprocess.run(["ip", "-j", "-4", "route"], capture_output=True, text=True, check=False).stdout
    routes: list[dict[str, Any]] = json.loads(said or "[]")
    known = [IPv4Network(row["dst"]) for row in routes if row["dst"] != "default"]
    draw = random.SystemRandom()
    for _ in range(TRIES):
        chosen = IPv4Network((f"10.{draw.randrange(64, 256)}.{draw.randrange(256)}.0", 24))
        if not any(chosen.overlaps(each) for each in known):
            return chosen
    raise CascadeError("no private network of 254 addresses is free on this machine")
