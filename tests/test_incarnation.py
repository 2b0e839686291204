"""Who is said to have ended has ended, and in doubt nobody has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from shared.incarnation import ended, identity
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
