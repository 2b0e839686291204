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
from shared.pace import SLOWER, Pace, pace, paces, slower
from shared.recording import Recording
from shared.summary import summarise
from tests.planning import SDTURBO, fleet, policy_of, view
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


def test_seconds_are_compared_with_those_of_the_runs_own_gpu_type() -> None:
    own = cascade()
    profiles = {stage: {**known, "slow": known["cpu"].scaled(3.0)} for stage, known in own.profiles.items()}
    slow = replace(at(3.0, 3.0), settings={"gpu": "slow"})
    assert [each.ratio for each in paces(slow, replace(own, profiles=profiles)).values()] == pytest.approx([1.0, 1.0])
    assert [each.ratio for each in paces(slow, own).values()] == pytest.approx([3.0, 3.0]), "never profiled"


def test_a_slow_machine_is_told_of_at_the_end_and_on_the_page() -> None:
    words = (
        "This machine is slower than the models' profile, or busy: "
        "4.00 s for a heavy batch of 4 (profile: 2.00 s); so fewer prompts go heavy."
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
