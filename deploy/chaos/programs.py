"""The processes of a node, by the names supervisor gives them: find, kill, pause, keep down."""

from __future__ import annotations

import os
import signal
import time
import xmlrpc.client
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

from supervisor.xmlrpc import SupervisorTransport

PATIENCE_S: Final = 20.0


class Programs:
    """What a supervisor runs, over its unix socket."""

    def __init__(self, socket: Path) -> None:
        transport = SupervisorTransport(None, None, f"unix://{socket}")
        self._rpc: Any = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)

    def pids(self) -> dict[str, int]:
        """Program -> process id of all that run."""
        rows = cast(list[dict[str, Any]], self._rpc.supervisor.getAllProcessInfo())
        return {row["name"]: row["pid"] for row in rows if row["pid"]}

    def _places(self) -> dict[str, str]:
        """Program -> its name with its group's, by which supervisor knows it."""
        rows = cast(list[dict[str, Any]], self._rpc.supervisor.getAllProcessInfo())
        return {row["name"]: f"{row['group']}:{row['name']}" for row in rows}

    def workers(self, stage: str = "") -> list[str]:
        """The names of all worker programs of a stage; of all stages where none is named."""
        rows = cast(list[dict[str, Any]], self._rpc.supervisor.getAllProcessInfo())
        return [row["name"] for row in rows if row["name"].startswith("worker-") and row["name"].endswith(stage)]

    def send(self, names: Iterable[str], what: signal.Signals) -> None:
        """Send a signal to the programs that run."""
        pids = self.pids()
        for name in names:
            if name in pids:
                with suppress(ProcessLookupError):
                    os.kill(pids[name], what)

    def keep_down(self, names: Iterable[str]) -> None:
        """Kill programs with SIGKILL and let supervisor not start them again."""
        names, places = set(names), self._places()
        self.send(names, signal.SIGKILL)
        end = time.monotonic() + PATIENCE_S
        while names & self.pids().keys() and time.monotonic() < end:
            for name in names:
                with suppress(xmlrpc.client.Fault):  # it has ended already
                    self._rpc.supervisor.stopProcess(places[name], False)
            self.send(names, signal.SIGKILL)  # what supervisor started again meanwhile
            time.sleep(0.05)

    def start(self, names: Iterable[str]) -> None:
        """Let supervisor start programs again; returns at once."""
        places = self._places()
        for name in names:
            with suppress(xmlrpc.client.Fault):  # it runs already
                self._rpc.supervisor.startProcess(places[name], False)
