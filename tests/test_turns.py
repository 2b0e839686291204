"""What it takes a slot to change its model: measured, read from the profile, simulated, and kept in mind by plans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from planner.policies import make_policy
from planner.scenario import Scenario
from planner.simulator import simulate
from shared.catalog import Cascade
from shared.config import Resident
from shared.errors import SettingsError
from shared.measured import read_profiles
from shared.plans import Plan, View
from tests.planning import DEADLINE_S, SDTURBO, fleet, view
from tests.test_simulator import always, every

HEADER = "model,gpu,batch,p50_s,p95_s,memory_gib,ceiling,load_s,warm_s,swap_s,source\n"


def measured(**seconds: float) -> Cascade:
    """The published cascade on GPUs whose loading and swapping was measured too."""

    known: dict[str, Any] = dict(seconds)
    profiles = {
        stage: {gpu: replace(each, **known) for gpu, each in by_gpu.items()}
        for stage, by_gpu in SDTURBO.profiles.items()
    }
    return replace(SDTURBO, profiles=profiles)


@pytest.mark.parametrize(
    ("resident", "seconds", "turn_s"),
    [
        (True, {"load_s": 9.0, "swap_s": 0.8}, 0.0),
        ("host", {"load_s": 9.0, "swap_s": 0.8}, 0.8),
        ("auto", {"load_s": 9.0, "swap_s": 0.8}, 0.8),
        ("host", {"load_s": 9.0}, 1.0),
        (False, {"load_s": 3.0, "warm_s": 0.75, "swap_s": 0.8}, 3.75),
        (False, {"swap_s": 0.8}, 5.0),
    ],
)
def test_a_simulated_slot_turns_in_the_measured_time(
    resident: Resident, seconds: dict[str, float], turn_s: float
) -> None:
    cascade = measured(**seconds)

    def policy(seen: View) -> Plan:
        turned = seen.now >= 3
        fixed = always(cascade, threshold=2.0 if turned else -1.0)(seen)
        return replace(fixed, light_workers=2 - turned, heavy_workers=int(turned))

    scenario = Scenario(cascade, fleet(2), policy, 60.0, overhead_s=0, turnaround_s=0, switch_s=0.05)
    found = simulate(every(0.25, 40), replace(scenario, resident=resident))
    first = min(visit.started for each in found.outcomes for visit in each.visits if visit.stage == "heavy")
    # A prompt that waits for heavy is there at every time from 3.12 s on.
    assert first == pytest.approx(max(3.0 + 0.05 + turn_s, 3.12), abs=0.14)


def test_worker_counts_stand_longer_where_a_change_takes_long() -> None:
    cascade = measured(load_s=20.0)
    held = {}
    for resident in (True, False):
        policy = make_policy("quality", cascade, DEADLINE_S, "exhaustive", dwell_s=3.0, resident=resident)
        first = replace(policy(view(4, fleet(16), now=10.0)), staffed=10.0)
        counts = [policy(view(20, fleet(16), now=now, plan=first)).light_workers for now in (12.0, 14.0, 49.0, 51.0)]
        held[resident] = [count == first.light_workers for count in counts]
    assert held == {True: [True, False, False, False], False: [True, True, True, False]}


def test_a_table_without_the_seconds_of_a_turn_is_read_as_ever_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(HEADER + "m,h100,1,0.1,0.2,1.5,2,,,,old\nm,h100,2,0.2,0.3,,2,7.5,,0.25,new\n")
    known = read_profiles(path)["h100"]
    assert (known.load_s, known.warm_s, known.swap_s, known.memory_gib) == (7.5, None, 0.25, {1: 1.5})
    assert known.up_to(1).swap_s == 0.25
    path.write_text(HEADER + "m,h100,1,0.1,0.2,1.5,2,,,-1,wrong\n")
    with pytest.raises(SettingsError, match=r"m.csv:2: swap_s must not be negative"):
        read_profiles(path)
