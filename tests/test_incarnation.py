"""Who is said to have ended has ended, and in doubt nobody has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from shared.incarnation import Deaths, ended, identity
from tests.processes import until

SAY_WHO = "from shared.incarnation import identity; import sys, time; print(identity(), flush=True); time.sleep(600)"


@pytest.mark.parametrize("reaped", [False, True])
def test_a_killed_process_has_ended_also_before_its_parent_looked(reaped: bool) -> None:
    process = subprocess.Popen([sys.executable, "-c", SAY_WHO], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        known = process.stdout.readline().strip()
        assert not ended(known)
        os.kill(process.pid, signal.SIGSTOP)
        assert not ended(known), "a process that is stopped may go on"
        os.kill(process.pid, signal.SIGKILL)
        if reaped:
            process.wait()
        until(lambda: ended(known), "the process has ended")
    finally:
        process.kill()
        process.communicate()


def test_nobody_else_is_taken_for_a_process() -> None:
    boot, space, pid, started = identity().split()
    assert pid == str(os.getpid())
    assert not ended(identity())
    assert ended(f"{boot} {space} {pid} {int(started) - 1}"), "its id was given to another"
    gone = 4_000_000  # above the largest id of a process
    assert ended(f"{boot} {space} {gone} {started}")
    assert not ended(f"another-boot {space} {gone} {started}"), "another machine's processes can't be seen from here"
    assert not ended(f"{boot} pid:[1] {gone} {started}"), "nor another container's"
    for nonsense in ("", "what", f"{boot} {space} x {started}", "1 2 3 4 5"):
        assert not ended(nonsense)


@pytest.mark.parametrize("told", [True, False])
def test_a_death_is_heard_while_asleep_whether_or_not_the_system_tells(
    told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not told:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    sleeping = subprocess.Popen([sys.executable, "-c", SAY_WHO], stdout=subprocess.PIPE, text=True)
    deaths = Deaths()
    try:
        assert sleeping.stdout is not None
        known = sleeping.stdout.readline().strip()
        deaths.watch(known)
        deaths.watch(identity())
        assert deaths.over() == set()
        sleeping.kill()
        began = time.monotonic()
        while not deaths.over() and time.monotonic() - began < 20:
            deaths.wait(60.0)
        assert deaths.over() == {known}, "who lives is not said to have ended"
        assert time.monotonic() - began < 20, "it slept on"
        deaths.forget(known)
        assert deaths.over() == set()
    finally:
        sleeping.kill()
        sleeping.communicate()


def test_who_had_ended_before_is_heard_of_and_another_machines_are_not() -> None:
    boot, space, pid, started = identity().split()
    deaths = Deaths()
    reused = f"{boot} {space} {pid} {int(started) - 1}"
    deaths.watch(reused)
    deaths.watch(f"another-boot {space} {pid} {started}")
    deaths.watch("nonsense")
    assert deaths.over() == {reused}
