"""What a loop leaves for health checks, and what they make of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.supervision import ROOT
from services.health import FOLDER, SERVICES, of_a_loop
from shared import beat as beats
from shared.beat import CLEAR_S, EVERY_S, FRESH_S, Beat, ailing, stale
from shared.connection import CommandRefused
from shared.process import Stop, patiently, until_done
from tests.helpers import logger


class Clock:
    """A clock that a test winds."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return time.time()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(beats, "time", made)
    return made


def aged(file: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(file, (then, then))


def test_a_loop_that_turns_is_well_and_one_that_stopped_is_not(tmp_path: Path) -> None:
    assert "no sign of life" in stale(tmp_path, "agent")
    Beat(tmp_path, "agent").turned()
    assert not stale(tmp_path, "agent")
    assert not ailing(tmp_path, "agent")
    aged(tmp_path / "agent", FRESH_S + 5)
    assert "agent: its loop has not turned for" in stale(tmp_path, "agent")
    assert ailing(tmp_path, "agent") == stale(tmp_path, "agent")
    assert "no sign of life" in stale(tmp_path, "control"), "each service has a file of its own"


def test_what_went_wrong_stands_until_nothing_has_for_a_while(tmp_path: Path, clock: Clock) -> None:
    beat = Beat(tmp_path, "agent")
    beat.turned()
    beat.stumbled("redis is away:\nno route")
    for _ in range(int(CLEAR_S) - 1):
        clock.now_s += EVERY_S
        beat.turned()
        assert ailing(tmp_path, "agent") == "agent: redis is away: no route", "a turn between two failures asks nobody"
        assert not stale(tmp_path, "agent")
    clock.now_s += 2 * EVERY_S
    beat.turned()
    assert not ailing(tmp_path, "agent")


def test_a_quick_loop_writes_once_a_second(tmp_path: Path, clock: Clock) -> None:
    beat = Beat(tmp_path, "keeper")
    beat.turned()
    (tmp_path / "keeper").unlink()
    clock.now_s += 0.9 * EVERY_S
    beat.turned()
    assert not (tmp_path / "keeper").exists()
    clock.now_s += 0.2 * EVERY_S
    beat.turned()
    assert (tmp_path / "keeper").exists()


def test_a_loop_goes_on_where_it_cannot_write(tmp_path: Path) -> None:
    beat = Beat(tmp_path / "not there", "agent")
    beat.turned()
    beat.stumbled("redis is away")
    assert "no sign of life" in stale(tmp_path / "not there", "agent")


def test_the_patient_loop_tells_of_every_turn_and_every_failure(tmp_path: Path) -> None:
    stop, beat = Stop(), Beat(tmp_path, "control")
    seen: list[str] = []

    def step() -> float:
        seen.append(ailing(tmp_path, "control"))
        if len(seen) == 2:
            raise CommandRefused("OOM command not allowed")
        if len(seen) == 3:
            stop.set()
        return 0.0

    patiently(step, stop, logger, longest_pause_s=0.01, beat=beat)
    assert "no sign of life" in seen[0]
    assert not seen[1], "a turn went through"
    assert "refused a command: OOM" in seen[2]


def test_one_that_waits_for_its_first_answer_lives(tmp_path: Path) -> None:
    stop, beat = Stop(), Beat(tmp_path, "agent")

    def act() -> None:
        if (tmp_path / "agent").exists():
            stop.set()
        raise CommandRefused("LOADING")

    assert not until_done(act, stop, logger, beat)
    assert not stale(tmp_path, "agent")
    assert "LOADING" in ailing(tmp_path, "agent")


def test_a_check_without_a_folder_says_which_variable_names_it() -> None:
    assert FOLDER in of_a_loop("live", "agent", {})


def test_a_check_that_runs_every_few_seconds_loads_no_library() -> None:
    code = "import sys, services.health; print(*{'redis', 'pydantic', 'msgpack', 'logging'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.split() == []


@pytest.mark.parametrize("service", SERVICES)
def test_the_command_ends_with_one_where_a_service_is_not_well(service: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "services.health", "healthy", service]
    options = {"cwd": ROOT, "capture_output": True, "text": True, "env": {**os.environ, FOLDER: str(tmp_path)}}
    ill = subprocess.run(command, check=False, **options)  # type: ignore[call-overload]
    assert (ill.returncode, ill.stdout.count("\n")) == (1, 1)
    (tmp_path / service).write_text("redis is away")
    away = subprocess.run(command, check=False, **options)  # type: ignore[call-overload]
    assert (away.returncode, away.stdout) == (1, f"{service}: redis is away\n")
    (tmp_path / service).write_text("")
    well = subprocess.run(command, check=False, **options)  # type: ignore[call-overload]
    assert (well.returncode, well.stdout) == (0, "")
