"""Large fleets of mixed GPU types in the simulator: what a policy reaches on them, and what planning them costs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from analysis.trial import DWELL_S, read_arrivals
from planner.policies import make_policy
from planner.scenario import Scenario
from planner.simulator import peak_rate, simulate
from shared.catalog import Cascade
from shared.errors import SettingsError
from shared.plans import Slot
from shared.summary import summarise
from traces.read import scale

SLOTS_A_NODE: Final = 8
SOLVER: Final = "highs"  # the exhaustive one knows a single type
# Traces, and on how many GPUs of the published type they were published for each cascade.
TRACES: Final[Mapping[str, tuple[str, int]]] = {
    "sdturbo": ("4to32", 16),
    "sdxs": ("4to32", 16),
    "sdxlltn": ("1to8", 16),
}


@dataclass(frozen=True, slots=True)
class GpuType:
    """A made-up GPU type: its share of the fleet, and how many times the published type's seconds it takes."""

    name: str
    share: float
    pace: float


TYPES: Final = (GpuType("type-a", 0.5, 1.0), GpuType("type-b", 0.3, 0.55), GpuType("type-c", 0.2, 1.8))


@dataclass(frozen=True, slots=True)
class Fleet:
    """A policy's run on a fleet; `prompts_per_s` in the mean, `peak_per_s` over ten seconds; what simulating took.

    `trace`: its label, which says so where it stands in for the published one.
    """

    cascade: str
    trace: str
    gpus: int
    policy: str
    prompts_per_s: float
    peak_per_s: float
    wall_s: float
    processor_s: float
    found: Mapping[str, Any]

    def figures(self) -> dict[str, float]:
        """What is told of the run, by name with its unit."""
        found, reached = self.found, self.found["quality"]
        return {
            "prompts": found["offered"],
            "prompts/s in the mean": self.prompts_per_s,
            "prompts/s at the peak": self.peak_per_s,
            "violation": found["violation"],
            reached["metric"]: reached["value"],
            f"{reached['metric']} by lot": reached["control"],
            "heavy share": found["heavy_share"],
            "plans": found["plans"],
            "solve p50 ms": found["solve_ms_p50"],
            "solve p99 ms": found["solve_ms_p99"],
            "wall s": self.wall_s,
            "processor s": self.processor_s,
        }


def of_types(cascade: Cascade, types: tuple[GpuType, ...] = TYPES) -> Cascade:
    """The cascade on these types."""
    profiles = {
        stage: {each.name: replace(cascade.profile(stage).scaled(each.pace), gpu=each.name) for each in types}
        for stage in cascade.profiles
    }
    return replace(cascade, profiles=profiles, gpu=types[0].name)


def mixed(gpus: int, types: tuple[GpuType, ...] = TYPES) -> tuple[Slot, ...]:
    """So many slots by the types' shares, in nodes of one type each."""
    slots: list[Slot] = []
    reached = 0.0
    for each in types:
        reached += each.share
        count = round(gpus * reached) - len(slots)
        slots += [Slot(f"{each.name}-{n // SLOTS_A_NODE}", n % SLOTS_A_NODE, each.name) for n in range(count)]
    return tuple(slots)


def simulated(cascade: Cascade, gpus: int, policies: tuple[str, ...], time_factor: float) -> Iterator[Fleet]:
    """Each policy on the cascade's published trace at the fleet's size, `time_factor` times as long."""
    if cascade.name not in TRACES:
        raise SettingsError(f"cascade: no trace is known for {cascade.name!r}; there are {', '.join(TRACES)}")
    trace, published_on = TRACES[cascade.name]
    own, slots = of_types(cascade), mixed(gpus)
    paces = {each.name: each.pace for each in TYPES}
    larger = sum(1 / paces[slot.gpu] for slot in slots) / published_on
    label, arrivals = read_arrivals(trace)
    offered = scale(arrivals, rate=larger * time_factor, time=time_factor)
    peak = peak_rate(offered)
    for name in policies:
        policy = make_policy(name, own, own.deadline_s, SOLVER, DWELL_S, peak=peak)
        scenario = Scenario(own, slots, policy, own.deadline_s, keep_outcomes=False)
        began, spent_s = time.perf_counter(), time.process_time()
        run = simulate(offered, scenario)
        wall_s, processor_s = time.perf_counter() - began, time.process_time() - spent_s
        mean = len(offered) / offered[-1].at_s
        yield Fleet(cascade.name, label, gpus, name, mean, peak, wall_s, processor_s, summarise(run, own))
