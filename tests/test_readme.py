"""The README's six terminals and its redis-cli lines, run as they are printed, on a port of our own."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.supervision import ROOT
from shared.broker import Broker
from shared.config import Settings
from shared.embedded import server_binaries
from shared.observer import Observer

pytestmark = pytest.mark.live

README = (ROOT / "README.md").read_text()


def block(kind: str) -> list[str]:
    found = re.search(rf"```\w+ {kind}\n(.*?)```", README, re.DOTALL)
    assert found, f"README.md has a block {kind}"
    return found.group(1).strip().splitlines()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def terminal(line: str, environment: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A line of the README, with this interpreter and this machine's Redis in the place of the printed ones."""
    server = str(server_binaries()[0])
    words = line.replace(".venv/bin/python", sys.executable).replace("redis-server", server, 1)
    words = words.replace("6379", environment["PORT"]).replace("logs/", f"{folder}/")
    process = subprocess.Popen(
        ["bash", "-c", f"exec {words}" if "&&" not in words else words],
        cwd=ROOT if not words.startswith(server) else folder,
        env=environment,
        stdout=(folder / f"{abs(hash(line))}.out").open("wb"),
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=120)


def redis_cli(line: str, settings: Settings, port: str) -> str:
    """Run a redis-cli line; through a client where this machine has no redis-cli."""
    words = shlex.split(line)
    assert words[0] == "redis-cli"
    if path := shutil.which("redis-cli"):
        said = subprocess.run([path, "-p", port, *words[1:]], capture_output=True, check=True)
        return said.stdout.decode(errors="replace")  # visits are packed
    client: Any = Broker(settings).client
    return str(client.execute_command(*words[1:]))


def test_the_six_terminals_serve_a_trace_and_show_what_is_inside(tmp_path: Path) -> None:
    port = str(free_port())
    url = f"redis://127.0.0.1:{port}/0"
    # Models that sleep: the real ones have a test of their own, and load for a while.
    environment = {**os.environ, "PORT": port, "REDIS_URL": url, "CASCADE_BACKEND": "sleeping", "CASCADE_NODE": "n"}
    settings = Settings(redis_url=url)
    lines = block("terminals")
    assert len(lines) == 6
    with ExitStack() as stack:
        stack.enter_context(terminal(lines[0], environment, tmp_path))
        wait_for(lambda: answers(int(port)))
        for line in lines[1:5]:
            stack.enter_context(terminal(line, environment, tmp_path))
        observer = Observer(Broker(settings))
        wait_for(lambda: {stage for slot in observer.slots() for stage in slot.stages} == {"light", "heavy"})
        wait_for(lambda: len(plan_slots(settings)) == 2)
        publisher = stack.enter_context(terminal(lines[5], environment, tmp_path))
        assert publisher.wait(timeout=120) == 0
        said = {line: redis_cli(line, settings, port) for line in block("redis-cli")}
        wait_for(lambda: observer.next_due() is None and len(observer.outcomes()[0]) > 20)
        totals = observer.totals()
        report = json.loads((tmp_path / f"{abs(hash(lines[5]))}.out").read_text().splitlines()[-1])
        wait_for(lambda: by_hand(observer))
    assert report["published"] == report["offered"] > 20
    assert totals["offered"] >= report["offered"]
    assert all(text.strip() for text in said.values()), said
    assert "threshold" in said[block("redis-cli")[0]]


def by_hand(observer: Observer) -> bool:
    outcomes, _ = observer.outcomes(count=10_000)
    return any(outcome.prompt == "big green ring left on black" and outcome.answered for outcome in outcomes)


def plan_slots(settings: Settings) -> list[str]:
    plan = Broker(settings).plan()
    return list(plan.assignment) if plan else []


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(ready: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)
