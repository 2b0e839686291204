"""A machine that is slower than the committed profile is told of, with the seconds that the planner measured."""

from __future__ import annotations

import io
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from markupsafe import escape
from rich.console import Console

from analysis.report import render
from deploy.results import show
from planner.policies import POLICIES
from shared.pace import SLOWER, UNPACED, Pace, pace, paces, slower
from shared.recording import Recording
from shared.schema import STAGES
from shared.summary import summarise
from tests.planning import SDTURBO, fleet, policy_of, same, view
from tests.synthetic_run import PLANS, cascade, run


def at(light: float, heavy: float) -> Recording:
    """The synthetic run on a machine that takes so many times the profiled seconds."""
    return run(
        plans=tuple(replace(each, light_service_s=0.4 * light, heavy_service_s=2.0 * heavy) for each in PLANS),
    )


def closing(recording: Recording) -> str:
    out = io.StringIO()
    show(summarise(recording, cascade()), Path("logs/demo"), Console(file=out, width=80))
    return out.getvalue()


def test_the_pace_is_the_one_that_the_planner_planned_with() -> None:
    plan = policy_of("quality")(replace(view(10, fleet(16)), pace={"light": 1.0, "heavy": 2.0}))
    found = pace([plan], SDTURBO, "heavy")
    assert found is not None
    assert found.batch == plan.heavy_batch
    assert found.ratio == pytest.approx(2.0, rel=0.02)
    assert found.profiled_s == SDTURBO.service_s("heavy", plan.heavy_batch)


def test_the_pace_is_the_median_at_the_batch_planned_most_often() -> None:
    rare = replace(PLANS[0], heavy_batch=1, heavy_service_s=9.0)
    found = pace([rare, *at(1.0, 3.0).plans], cascade(), "heavy")
    assert found is not None
    assert (found.batch, found.measured_s, found.profiled_s) == pytest.approx((4, 6.0, 2.0))


def test_what_no_profile_is_of_tells_no_pace() -> None:
    mixed = [replace(each, heavy_on={"a": 2, "b": 2}) for each in PLANS]
    assert pace(mixed, cascade(), "heavy") is None
    assert paces(run(plans=()), cascade()) == {}


@pytest.mark.parametrize("name", POLICIES)
def test_a_pace_is_told_of_no_policy_that_ignores_it_and_of_no_stage_that_nobody_draws(name: str) -> None:
    seen = view(10, fleet(16))
    plan = policy_of(name)(replace(seen, pace={"light": 2.0, "heavy": 2.0}))
    found = paces(run(plans=(plan,)), SDTURBO)
    if name in UNPACED:
        assert not found
        assert same(plan, policy_of(name)(seen)), "it plans with the profile"
    else:
        assert found.keys() == {stage for stage in STAGES if plan.workers(stage)}
        assert [each.ratio for each in found.values()] == pytest.approx([2.0] * len(found), rel=0.1)


def test_that_fewer_may_go_heavy_is_said_of_policies_that_plan_how_many() -> None:
    def told(policy: str, heavy_workers: int = 4) -> str:
        slow = at(2.0, 2.0)
        plans = tuple(replace(each, policy=policy, heavy_workers=heavy_workers) for each in slow.plans)
        return slower(summarise(replace(slow, plans=plans), cascade()))

    assert all(told(name).endswith("; so fewer prompts may go heavy.") for name in ("diffserve", "random", "hybrid"))
    light = told("clipper-light", heavy_workers=0)
    assert light.endswith("busy: 0.80 s for a light batch of 2 (profile: 0.40 s).")
    assert told("pinned") == told("static") == ""


def test_the_summary_of_a_run_from_before_there_was_a_pace_can_be_shown() -> None:
    old = summarise(at(2.0, 2.0), cascade())
    del old["pace"]
    out = io.StringIO()
    show(old, Path("logs/demo"), Console(file=out, width=80))
    assert "logs/demo/report.html" in out.getvalue()
    assert "slower" not in out.getvalue()


def test_seconds_are_compared_with_those_of_the_runs_own_gpu_type() -> None:
    own = cascade()
    profiles = {stage: {**known, "slow": known["cpu"].scaled(3.0)} for stage, known in own.profiles.items()}
    slow = replace(at(3.0, 3.0), settings={"gpu": "slow"})
    assert [each.ratio for each in paces(slow, replace(own, profiles=profiles)).values()] == pytest.approx([1.0, 1.0])
    assert [each.ratio for each in paces(slow, own).values()] == pytest.approx([3.0, 3.0]), "never profiled"


def test_a_slow_machine_is_told_of_at_the_end_and_on_the_page() -> None:
    words = (
        "This machine is slower than the models' profile, or busy: "
        "4.00 s for a heavy batch of 4 (profile: 2.00 s); so fewer prompts may go heavy."
    )
    recording = at(SLOWER * 0.99, 2.0)
    assert summarise(recording, cascade())["pace"]["heavy"] == asdict(Pace(4, 4.0, 2.0))
    assert words in closing(recording).splitlines(), "one line, whole"
    assert escape(words) in render(recording, cascade(), "demo")
    both = slower(summarise(at(2.0, 2.0), cascade()))
    assert "0.80 s for a light batch of 2 (profile: 0.40 s), 4.00 s for a heavy" in both


@pytest.mark.parametrize("recording", [run(), at(0.5, 0.5), at(SLOWER * 0.99, SLOWER * 0.99), run(plans=())])
def test_a_machine_as_fast_as_the_profile_is_not_spoken_of(recording: Recording) -> None:
    assert "slower" not in closing(recording)
    assert "slower" not in render(recording, cascade(), "demo")
