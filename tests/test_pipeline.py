"""The whole pipeline under the real supervisor: faults, real pictures, and nothing left running."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from analysis.recording import load
from deploy.runner import Deployment, Run, deployment
from deploy.supervision import ROOT
from shared.catalog import load_cascade
from shared.config import Settings
from shared.exchange import Publication
from shared.ledger import overlaps
from shared.messages import Job
from shared.summary import summarise
from tests.processes import from_a_terminal

pytestmark = pytest.mark.live

DEMO = [sys.executable, "-m", "deploy.demo"]


@contextmanager
def running(folder: Path, **given: Any) -> Iterator[Deployment]:
    settings = Settings(node="test", deployment="test", **given)
    with deployment(Run(folder, settings, Path("none"), durability="no", nice=5)) as found:
        found.wait_ready(lambda _: None)
        yield found


def left_running(folder: Path) -> list[str]:
    """Processes that carry the run's folder in their environment."""
    mark = str(folder.resolve())
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and mark in process.environ().get("CASCADE_LOG_DIR", ""):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def kill_a_drawing_worker(found: Deployment, stage: str) -> str:
    """SIGKILL a worker of the stage while it holds prompts; returns its name."""
    end = time.monotonic() + 20
    stream = found.broker.keys.streams["heavy" if stage == "heavy" else "light"][1]
    while time.monotonic() < end:
        workers = [worker for worker in found.observer.workers() if worker["stage"] == stage]
        random.shuffle(workers)
        holding = {
            row["name"].decode() for row in found.broker.client.xinfo_consumers(stream, "workers") if row["pending"]
        }
        for worker in workers:
            name = next((name for name in holding if f"-{worker['slot']}-{stage}-" in name), None)
            if name:
                os.kill(int(worker["pid"]), signal.SIGKILL)
                return str(name)
        time.sleep(0.01)
    raise AssertionError(f"no {stage} worker was seen drawing")


def publish(found: Deployment, numbers: range, per_s: float, text: str = "a cat", allowance_s: float = 30.0) -> None:
    for number in numbers:
        found.broker.publish([Publication(Job(f"p{number}", text, 0.0, 0.0, seed=number), allowance_s)])
        time.sleep(1 / per_s)


def settle_all(found: Deployment) -> Counter[str]:
    """Wait until nothing is open; the ids of all outcomes, counted."""
    end = time.monotonic() + 90
    while found.observer.next_due() is not None and time.monotonic() < end:
        time.sleep(0.05)
    outcomes, _ = found.observer.outcomes(count=10_000)
    return Counter(outcome.id for outcome in outcomes)


def test_killed_workers_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    with running(tmp_path, cascade="sdturbo", backend="sleeping", slots=4) as found:
        publish(found, range(20), per_s=8.0)
        killed = [kill_a_drawing_worker(found, "heavy")]
        publish(found, range(20, 40), per_s=8.0)
        killed.append(kill_a_drawing_worker(found, "heavy"))
        answers = settle_all(found)
        totals = found.observer.totals()
        outcomes, _ = found.observer.outcomes()
    assert answers == Counter({f"p{number}": 1 for number in range(40)})
    assert totals["offered"] == 40 == totals["light"] + totals["heavy"]
    assert overlaps(outcomes) == [], "two processes never draw on one slot at once"
    assert totals["reclaimed"] > 0, f"{killed} held prompts, which were taken back"
    assert left_running(tmp_path) == []


def test_a_worker_killed_amid_real_pictures_loses_nothing(tmp_path: Path) -> None:
    with running(tmp_path, cascade="tiny", slots=1) as found:
        publish(found, range(12), per_s=1000.0, text="big red circle on white", allowance_s=80.0)
        kill_a_drawing_worker(found, "light")
        answers = settle_all(found)
        outcomes, _ = found.observer.outcomes()
        pictures = found.observer.images((outcome.id, "light") for outcome in outcomes)
    assert answers == Counter({f"p{number}": 1 for number in range(12)})
    assert all(picture and picture[8:12] == b"WEBP" for picture in pictures), "every answer has its picture"
    assert {outcome.end for outcome in outcomes} <= {"light", "heavy"}, "there was time to draw every one again"
    assert left_running(tmp_path) == []


def demo(folder: Path, *options: str) -> list[str]:
    return [*DEMO, "--out", str(folder), "--cascade", "sdturbo", "--backend", "sleeping", "--slots", "3", *options]


def test_the_demo_ends_with_tables_and_a_report_and_leaves_nothing_running(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\na dog\n")
    folder = tmp_path / "run"
    command = demo(folder, "--seconds", "8", "--low", "2", "--high", "8", "--prompts", str(prompts))
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    assert {"summary.json", "outcomes.csv", "report.html", "run.json"} <= {path.name for path in folder.iterdir()}
    recording = load(folder)
    summary = summarise(recording, load_cascade("sdturbo"))
    assert summary["offered"] > 20
    assert summary["open"] == summary["answered_twice"] == summary["failed"] == 0
    assert summary["offered"] == summary["refused"] + sum(summary[end] for end in ("light", "heavy", "dropped"))
    assert "violation" in ended.stdout
    assert overlaps(recording.outcomes) == []
    assert left_running(folder) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_demo_that_is_interrupted_leaves_nothing_running(tmp_path: Path, how: signal.Signals) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\n")
    folder = tmp_path / "run"
    process = subprocess.Popen(
        demo(folder, "--prompts", str(prompts)),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=from_a_terminal,
    )
    try:
        end = time.monotonic() + 120
        while not any("publisher" in line for line in left_running(folder)) and time.monotonic() < end:
            time.sleep(0.2)
        assert len(left_running(folder)) >= 9, "the trace is running: 3 services, 6 workers, the publisher"
        process.send_signal(how)
        process.wait(timeout=150)
        end = time.monotonic() + 90
        while left_running(folder) and time.monotonic() < end:
            time.sleep(0.2)
        assert left_running(folder) == []
    finally:
        process.kill()
        process.wait()


def test_a_node_that_swaps_models_serves_both_stages(tmp_path: Path) -> None:
    with running(tmp_path, cascade="sdturbo", backend="sleeping", slots=3, resident=False) as found:
        publish(found, range(50), per_s=5.0)
        answers = settle_all(found)
        outcomes, _ = found.observer.outcomes()
        started = [worker["stage"] for worker in found.observer.workers()]
    assert answers == Counter({f"p{number}": 1 for number in range(50)})
    assert {outcome.end for outcome in outcomes} == {"light", "heavy"}
    assert len(started) <= 3, "never two processes of a slot; one may be changing now"
    assert overlaps(outcomes) == []
