"""The whole deployment: a head and its GPU nodes, from the compose files as a user starts them.

with Cluster(folder, [Node("gpu-1", slots=2)]) as cluster:
    cluster.broker ... cluster.head.restart("control") ... cluster.nodes["gpu-1"].up()
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from deploy.cluster.containers import Container
from deploy.cluster.network import Network
from deploy.cluster.project import Project
from deploy.supervision import ROOT
from shared.broker import Broker
from shared.catalog import OWN_CATALOG
from shared.config import Settings
from shared.errors import CascadeError
from shared.model import TABLES
from shared.observer import Observer

HEAD_FILE: Final = ROOT / "docker-compose.yml"
NODE_FILE: Final = ROOT / "deploy" / "compose.gpu-node.yml"
CPU_FILE: Final = ROOT / "deploy" / "compose.cpu-node.yml"
CASCADE: Final = "sdturbo"
PROFILED: Final = "a100-80g"
MADE_UP: Final = "half-a100"  # a share of one, which takes twice the time; no such card was measured
SLOWER: Final = 2.0
PATIENCE_S: Final = 120.0
LOOK_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Node:
    """A GPU node: its name, its slots and their GPU type."""

    name: str
    slots: int
    gpu: str = PROFILED


class Cluster:
    """A head that runs, and nodes whose compose file is started when they are asked to join."""

    def __init__(
        self,
        folder: Path,
        nodes: Sequence[Node],
        *,
        node_file: Path = NODE_FILE,
        cascade: str = CASCADE,
        backend: str = "sleeping",
        profiles: Sequence[str] = (),
    ) -> None:
        """`profiles`: of the head's file."""
        self.folder = folder
        self.specs = {node.name: node for node in nodes}
        self.nodes: dict[str, Project] = {}
        self.network = Network()
        self.key = ""  # to the door over HTTP
        self._node_file = node_file
        self._cascade = cascade
        self._backend = backend
        self._profiles = profiles
        self._ends = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.network)
            address = self.network.add("head").address
            shared = {"HEAD_ADDRESS": address, "CASCADE": self._cascade, **self._secrets()}
            unlike = any(node.gpu == MADE_UP for node in self.specs.values())
            further = _catalog(self.folder) if unlike else {}
            host = self.network.hosts["head"]
            head = Project(host, HEAD_FILE, shared, self.folder, further=further, profiles=self._profiles)
            self.head = stack.enter_context(head)
            for node in self.specs.values():
                variables = shared | self._variables(node)
                project = Project(
                    self.network.add(node.name), self._node_file, variables, self.folder, names={}, further=further
                )
                self.nodes[node.name] = stack.enter_context(project)
            password = f"password_file={self.folder / 'secrets' / 'admin'}"
            self.settings = Settings(redis_url=f"redis://admin@{address}:6379/0?{password}", cascade=self._cascade)
            self.head.up()
            self.broker = Broker(self.settings)
            self.broker.check()
            self.observer = Observer(self.broker)
            self._ends = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._ends, ThreadPoolExecutor() as pool:
            list(pool.map(Project.down, self.nodes.values()))  # at once; the head after them, whom they still tell

    def agent(self, name: str) -> Container:
        """The one container of a node: supervisord, with the agent and the workers."""
        return self.nodes[name]["node"]

    def able(self, name: str) -> int:
        """How many of a node's slots can draw with both models."""
        return sum(slot.node == name and len(slot.stages) == 2 for slot in self.observer.slots())

    def ready_workers(self, name: str) -> int:
        """How many of a node's workers are ready, of either stage."""
        workers = self.observer.about(self.observer.worker_names(name))
        return sum(about.get("ready") == "1" for about in workers)

    def join(self, name: str) -> None:
        """Start a node's compose file and wait until all its slots can draw; raises CascadeError."""
        self.nodes[name].up()
        self.await_slots(name)

    def await_slots(self, name: str) -> None:
        """Wait until all slots of a node can draw."""
        slots = self.specs[name].slots
        self.until(lambda: self.able(name) == slots, f"{name} draws on {slots} slots; see {self.agent(name).log}")

    def planned(self, name: str) -> int:
        """How many of a node's slots the plan in force uses."""
        plan = self.broker.plan()
        return sum(slot.startswith(f"{name}:") for slot in plan.assignment) if plan else 0

    def ctl(self, *words: str) -> str:
        """`docker compose run --rm ctl ...`: a person's command; raises CascadeError with what it says."""
        code, said = self.head.run("ctl", words)
        if code:
            raise CascadeError(f"ctl {' '.join(words)}: {said}")
        return said

    def until(self, condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> float:
        """Wait for something to hold; the seconds it took. Raises CascadeError."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > patience_s:
                raise CascadeError(f"within {patience_s:g} s it never was so: {what}")
            time.sleep(LOOK_S)
        return time.monotonic() - began

    def _variables(self, node: Node) -> dict[str, str]:
        """What a user sets for a node."""
        models = self.folder / "models"
        models.mkdir(exist_ok=True)
        given = {"NODE_NAME": node.name, "SLOTS": str(node.slots), "GPU": node.gpu, "MODELS": str(models)}
        if node.gpu == MADE_UP:  # two slots to a GPU
            given["DEVICES"] = ",".join(str(slot // 2) for slot in range(node.slots))
        return given | {"BACKEND": self._backend, "RESIDENT": "true"}

    def _secrets(self) -> dict[str, str]:
        """Made with the command that the compose file names; the variables that say where they are."""
        secrets, keys = self.folder / "secrets", self.folder / "keys"
        command = [sys.executable, "-m", "deploy.secrets", "--folder", str(secrets), "--keys", str(keys)]
        command += ["--deployment", Settings().deployment]  # whatever .env of this checkout says
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CascadeError(done.stderr.strip())
        self.key = done.stdout.split()[-1]  # shown once, and last
        return {"SECRETS": str(secrets), "GATEWAY_KEYS": str(keys)}


def _catalog(folder: Path) -> dict[str, str]:
    """A catalogue with a second GPU type, and the environment that names it."""
    tables = folder / "tables"
    tables.mkdir(mode=0o755)
    shutil.copy(TABLES / "catalog.toml", tables)
    for name in ("profiles", "quality"):
        shutil.copytree(TABLES / name, tables / name)
    for profile in (tables / "profiles").glob("sd*.csv"):
        header, *rows = profile.read_text().splitlines()
        profile.write_text("\n".join([header, *rows, *_slower(header, rows)]) + "\n")
    kept = {name: os.environ[name] for name in ("CASCADE_DATA",) if name in os.environ}
    return {OWN_CATALOG: str(tables / "catalog.toml"), **kept}


def _slower(header: str, rows: Sequence[str]) -> list[str]:
    """The rows of the profiled GPU type for the made-up one."""
    names = header.split(",")
    made = []
    for row in rows:
        cells = dict(zip(names, row.split(","), strict=False))
        if cells["gpu"] == PROFILED:
            times = {name: f"{float(cells[name]) * SLOWER:.3f}" for name in ("p50_s", "p95_s") if cells.get(name)}
            cells |= {"gpu": MADE_UP, **times}
            made.append(",".join(cells.get(name, "") for name in names))
    return made
