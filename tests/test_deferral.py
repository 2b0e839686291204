"""The distribution of scores and its inverse."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.deferral import PRIOR_GONE, UNIFORM, WINDOW, Deferral, deferral, drift
from shared.cascade import looks_weak
from shared.catalog import load_cascade
from shared.plans import Plan

SCORES = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]) | st.floats(0, 1), min_size=1, max_size=60)


def escalated(fitted: Deferral, share: float) -> float:
    threshold, tie_share = fitted.threshold_for(share)
    through = fitted.share_below(math.nextafter(threshold, 2.0))
    below = fitted.share_below(threshold)
    return below + tie_share * (through - below)


def plainly(live: list[float], old: Sequence[float]) -> list[tuple[float, float]]:
    """Each distinct score and the share of weight up to it, by the formula: live and old ones weighed, added up."""
    live = [score for score in live[-WINDOW:] if math.isfinite(score)]
    old = [score for score in old if math.isfinite(score)] or UNIFORM
    prior = max(0.0, 1 - len(live) / PRIOR_GONE)
    weighed = [(score, (1 - prior) / len(live)) for score in live] + [(score, prior / len(old)) for score in old]
    values = sorted({score for score, weight in weighed if weight > 0})
    return [(value, sum(weight for score, weight in weighed if score <= value)) for value in values]


WILD = st.sampled_from([0.0, 0.1, 0.25, 0.9, 1.0, math.nan, math.inf]) | st.floats(0, 1)


@given(st.lists(WILD, max_size=40), st.lists(WILD, max_size=40), st.sampled_from([1, 3, 30]))
def test_the_blend_is_what_the_plain_formula_says(live: list[float], old: list[float], times: int) -> None:
    fitted, expected = deferral(live * times, old), plainly(live * times, old)
    assert list(fitted.values) == [value for value, _ in expected]
    assert list(fitted.through) == pytest.approx([through for _, through in expected], abs=1e-12)


@given(SCORES, SCORES, st.floats(0, 1))
def test_exactly_the_wanted_share_escalates_however_scores_tie(
    live: list[float], old: list[float], share: float
) -> None:
    assert escalated(deferral(live, old), share) == pytest.approx(share, abs=1e-9)


def test_ties_escalate_by_lot_in_the_wanted_share() -> None:
    live = [0.2] * 600 + [0.8] * 400
    threshold, tie_share = deferral(live, ()).threshold_for(0.3)
    plan = Plan("quality", threshold, 1, 1, 1, 1, 1.0, 1.0, tie_share=tie_share)
    draw = random.Random(7)
    weak = sum(looks_weak(score, f"{draw.getrandbits(64):x}", plan) for score in live)
    assert threshold == 0.2
    assert tie_share == pytest.approx(0.5)
    assert weak == pytest.approx(300, abs=30)


def test_recorded_scores_give_the_published_deferral_curve() -> None:
    fitted = deferral((), load_cascade("sdturbo").scores)
    published = {0.05: 0.360, 0.1: 0.449, 0.2: 0.582, 0.3: 0.788, 0.4: 0.878, 0.5: 0.993}
    for threshold, share in published.items():
        assert fitted.share_below(threshold) == pytest.approx(share, abs=0.002)


def test_the_prior_fades_as_live_scores_come_and_then_is_gone() -> None:
    recorded = [0.9] * 1_000
    shares = [deferral([0.1] * count, recorded).share_below(0.5) for count in (0, 75, 150, PRIOR_GONE, WINDOW)]
    assert shares == pytest.approx([0.0, 0.25, 0.5, 1.0, 1.0])


def test_only_the_last_window_of_live_scores_counts() -> None:
    assert deferral([0.1] * 5_000 + [0.9] * WINDOW, ()).share_below(0.5) == 0.0


@pytest.mark.parametrize("live", [(), (math.nan,), (math.inf, -math.inf)])
def test_without_any_score_the_threshold_is_the_share(live: tuple[float, ...]) -> None:
    threshold, _ = deferral(live, ()).threshold_for(0.35)
    assert threshold == pytest.approx(0.35, abs=0.01)


def test_no_share_escalates_nothing_and_the_full_share_everything() -> None:
    fitted = deferral([0.0, 0.5, 1.0] * 200, ())
    nothing, everything = fitted.threshold_for(0.0), fitted.threshold_for(1.0)
    for score in (0.0, 0.5, 1.0):
        plan = Plan("quality", nothing[0], 1, 1, 1, 1, 1.0, 1.0, tie_share=nothing[1])
        assert not looks_weak(score, "a", plan)
        plan = Plan("quality", everything[0], 1, 1, 1, 1, 1.0, 1.0, tie_share=everything[1])
        assert looks_weak(score, "a", plan)


def test_drift_is_what_was_measured_less_what_was_predicted() -> None:
    draw = random.Random(3)
    plan = Plan("quality", 0.4, 1, 1, 1, 1, 1.0, 1.0, heavy_share=0.4)
    assert drift(plan, [draw.random() for _ in range(5_000)]) == pytest.approx(0.0, abs=0.02)
    assert drift(plan, [0.5 * draw.random() for _ in range(5_000)]) == pytest.approx(0.4, abs=0.02)
    assert drift(plan, ()) == 0.0
