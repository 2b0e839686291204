"""What the simulator costs: seconds for every policy on one trace, and memory for a million prompts.

Seconds of processor time, for it does nothing but compute and the machine may be shared.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from random import Random
from typing import Final

from analysis.trial import all_policies, make_trial
from deploy.supervision import ROOT
from planner.policies import make_policy
from planner.simulator import Scenario, fleet, simulate
from shared.catalog import load_cascade
from shared.process import guarded
from traces.read import Arrival

TRACE: Final = "4to32"
CASCADE: Final = "sdturbo"
GPUS: Final = 16
MILLION: Final = 1_000_000
RATE: Final = 22.0  # prompts per second: the fleet is busy and nothing is refused


def policies_s() -> tuple[float, int]:
    """Processor seconds for all policies on the trace with the exhaustive solver, and its prompts."""
    trial = make_trial(TRACE, CASCADE, GPUS, solver="exhaustive")
    began = time.process_time()
    offered = [trial.run(policy).offered for policy in all_policies()]
    return time.process_time() - began, offered[0]


def million() -> tuple[float, float]:
    """Processor seconds and peak memory (MiB) of a million prompts under one policy, in a process of its own."""
    command = [sys.executable, "-m", "deploy.bench_simulator"]  # a peak is that of a whole process
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    seconds, mebibytes = (float(part) for part in told.split())
    return seconds, mebibytes


def _arrivals() -> Iterator[Arrival]:
    draw, at_s = Random(0), 0.0
    for number in range(MILLION):
        at_s += draw.expovariate(RATE)
        yield Arrival(at_s, number)


def main() -> int:
    """Simulate a million prompts; print seconds and the peak memory of this process in MiB."""
    cascade = load_cascade(CASCADE)
    policy = make_policy("quality", cascade, cascade.deadline_s, "exhaustive")
    scenario = Scenario(cascade, fleet(GPUS, cascade.gpu), policy, cascade.deadline_s, keep_outcomes=False)
    began = time.process_time()
    found = simulate(_arrivals(), scenario)
    assert sum(found.tally.ends.values()) + found.refused == MILLION, "a prompt was lost"
    mebibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(f"{time.process_time() - began:.1f} {mebibytes:.0f}\n")
    return 0


if __name__ == "__main__":
    guarded(main)
