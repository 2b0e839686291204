"""Demand from the counts of offered prompts."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.demand import BURST_S, BURST_Z, averaged, forecast, slope


def test_a_steady_rate_is_its_own_level_with_room_for_an_eightieth_percentile_burst() -> None:
    demand = forecast([20] * 30)
    assert demand.level == pytest.approx(20)
    assert demand.rise == pytest.approx(0)
    assert demand.burst == pytest.approx(BURST_Z * math.sqrt(20 / BURST_S))


def test_the_planned_rate_covers_eighty_of_a_hundred_poisson_windows() -> None:
    draw = random.Random(5)
    planned = 16 + forecast([16] * 30).burst
    windows = [sum(draw.expovariate(1.0) < 1e-9 or _poisson(draw, 16.0) for _ in range(5)) / 5 for _ in range(4_000)]
    assert sum(mean <= planned for mean in windows) / len(windows) == pytest.approx(0.8, abs=0.03)


def _poisson(draw: random.Random, rate: float) -> int:
    count, product = 0, draw.random()
    while product > math.exp(-rate):
        count, product = count + 1, product * draw.random()
    return count


def test_a_step_up_is_met_within_two_seconds_and_not_overshot() -> None:
    after = [forecast([4] * 20 + [32] * seconds) for seconds in (1, 2, 3, 5)]
    levels = [demand.level + demand.rise for demand in after]
    assert levels[0] >= 18
    assert levels[1] >= 0.9 * 32
    assert max(levels) <= 32 + 1e-9


def test_a_step_down_is_followed_gently() -> None:
    levels = [forecast([32] * 30 + [4] * seconds).level for seconds in (1, 3, 10, 25)]
    assert levels[0] >= 0.7 * 32
    assert levels == sorted(levels, reverse=True)
    assert levels[-1] <= 4.5


def test_a_ramp_is_seen_ahead_of_the_plan() -> None:
    ramp = [10 + 2 * second for second in range(20)]
    demand = forecast(ramp)
    assert demand.level + demand.rise == pytest.approx(ramp[-1], abs=0.01)  # capped at the largest recent count
    assert demand.level < ramp[-1] - 1


@given(st.lists(st.integers(0, 10**30), max_size=40))
def test_any_counts_give_finite_demand(offered: list[int]) -> None:
    demand = forecast(offered)
    assert math.isfinite(demand.planned)
    assert demand.planned >= 0
    assert forecast(tuple(offered)) == demand


def test_nothing_offered_is_no_demand() -> None:
    assert forecast(()).planned == 0
    assert forecast([0] * 20).planned == 0


def test_averages_and_slopes_match_their_definitions() -> None:
    assert averaged([1, 2, 3], 1.0) == pytest.approx((1 * 0.25 + 2 * 0.5 + 3) / 1.75)
    assert slope([1, 3, 5, 7]) == pytest.approx(2)
    assert slope([5, 9]) == 0
