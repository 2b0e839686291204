"""Runs a trace through a simulated deployment and prints the summary of a live run.

python -m planner.simulator --trace FILE --cascade NAME --gpus 16 --policy quality [--json] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.console import Console

from planner.deployment import Deployment
from planner.policies import POLICIES, make_policy
from planner.scenario import Scenario, fleet
from shared.catalog import load_cascade
from shared.config import Resident, Settings
from shared.errors import SettingsError
from shared.process import guarded
from shared.recording import Recording
from shared.summary import summarise, table
from traces.published import find, locate
from traces.read import Arrival, TraceError, read_prompts, read_trace, scale

__all__ = ["Scenario", "fleet", "simulate", "worded"]

SWAPS: Final[Mapping[str | None, Resident]] = {None: True, "disk": False, "host": "host"}
PEAK_S: Final = 10.0  # seconds over which a peak is measured: a shorter one is met by the queue


def simulate(arrivals: Iterable[Arrival], scenario: Scenario) -> Recording:
    """Run the arrivals, ascending in time, through a deployment until every prompt has ended."""
    deployment = Deployment(scenario)
    deployment.run(arrivals)
    return deployment.recording()


def main() -> int:
    """Simulate one trace under one policy; print the summary as a table or as JSON."""
    given = _arguments()
    if given.gpus < 1:
        raise SettingsError(f"gpus: must be at least 1, got {given.gpus}")
    cascade = load_cascade(given.cascade)
    deadline_s = cascade.deadline_s if given.deadline_s is None else given.deadline_s
    if given.gpu is not None:
        cascade.profile("light", given.gpu), cascade.profile("heavy", given.gpu)
    try:
        arrivals = worded(scale(read_trace(locate(given.trace).path), rate=given.rate, time=given.time))
    except TraceError as wrong:
        raise SettingsError(str(wrong)) from None
    policy = make_policy(
        given.policy,
        cascade,
        deadline_s,
        given.solver,
        given.dwell_s,
        peak=peak_rate(arrivals),
        pinned=given.pinned,
        resident=SWAPS[given.swap],
    )
    scenario = Scenario(
        cascade=cascade,
        slots=fleet(given.gpus, given.gpu or cascade.gpu),
        policy=policy,
        deadline_s=deadline_s,
        seed=given.seed,
        mean_time_between_failures_s=given.mean_time_between_failures_s,
        repair_s=given.repair_s,
        jitter_s=given.jitter_s,
        resident=SWAPS[given.swap],
        keep_outcomes=False,
    )
    summary = summarise(simulate(arrivals, scenario), cascade)
    if given.json:
        sys.stdout.write(json.dumps(summary, indent=2) + "\n")
    else:
        Console().print(table(summary))
    return 0


def worded(arrivals: Sequence[Arrival]) -> list[Arrival]:
    """The arrivals with the texts of the published prompts, or of what stands in, where a trace only numbers them.

    A router looks at texts. Raises TraceError.
    """
    if all(arrival.prompt for arrival in arrivals):
        return list(arrivals)
    prompts = read_prompts(find("prompts").path)
    return [replace(each, prompt=each.prompt or prompts[each.index % len(prompts)]) for each in arrivals]


def peak_rate(arrivals: Sequence[Arrival], over_s: float = PEAK_S) -> float:
    """The most prompts per second over any `over_s` seconds: what a static plan has to be made for."""
    most, first = 0, 0
    for place, arrival in enumerate(arrivals):
        while arrival.at_s - arrivals[first].at_s > over_s:
            first += 1
        most = max(most, place - first + 1)
    return most / over_s


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", required=True, help="a file, or the name of a published trace, such as 4to32")
    parser.add_argument("--cascade", required=True, help="a row of [cascades] in models/catalog.toml")
    parser.add_argument("--gpus", type=int, required=True, help="slots, all of one type")
    parser.add_argument("--gpu", help="their type; default: the cascade's own")
    parser.add_argument("--policy", default="quality", help=", ".join(POLICIES))
    parser.add_argument("--pinned", type=Path, help="file of the policy `pinned`")
    parser.add_argument("--deadline-s", type=float, help="default: the cascade's")
    parser.add_argument("--solver", default="exhaustive", help="auto, gurobi, highs, exhaustive")
    parser.add_argument("--dwell-s", type=float, default=Settings.model_fields["dwell_s"].default)
    parser.add_argument("--rate", type=float, default=1.0, help="factor on the rate of the trace")
    parser.add_argument("--time", type=float, default=1.0, help="factor on the length of the trace")
    parser.add_argument("--mean-time-between-failures-s", type=float, default=math.inf, help="of one worker")
    parser.add_argument("--repair-s", type=float, default=20.0, help="until a failed worker is back")
    parser.add_argument("--jitter-s", type=float, default=0.0, help="a batch takes up to this much longer")
    parser.add_argument(
        "--swap", nargs="?", const="disk", choices=["disk", "host"], help="one model is loaded at a time, from there"
    )
    parser.add_argument("--seed", type=int, default=0, help="of faults and jitter")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    guarded(main)
