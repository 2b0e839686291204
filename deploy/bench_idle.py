"""What a deployment costs that has nothing to do, for `deploy.bench`: processor time of all its services together."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Final

import psutil

from deploy.runner import Run, deployment
from shared.config import Settings

IDLE_S: Final = 20.0


def idle(slots: int) -> float:
    """Percent of a core that Redis, supervisord, all services and sleeping workers use with nothing to do.

    A slot has two worker processes, one per stage.
    """
    with tempfile.TemporaryDirectory(prefix="cascade-run-") as folder:
        settings = Settings(cascade="sdturbo", backend="sleeping", slots=slots, node="bench", deployment="bench")
        with deployment(Run(Path(folder), settings, Path(folder), durability="no")) as running:
            running.wait_ready(lambda _: None)
            time.sleep(5)
            mine = psutil.Process()
            before = {child: _cpu_s(child) for child in mine.children(recursive=True)}
            began = time.perf_counter()
            time.sleep(IDLE_S)
            elapsed_s = time.perf_counter() - began
            used_s = sum(_cpu_s(child) - spent for child, spent in before.items())
    return used_s / elapsed_s * 100


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
