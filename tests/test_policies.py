"""The policies: what a plan must be for any view, and what it must be for the published figures."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise

import pytest

from planner.demand import averaged, forecast
from planner.drafting import Setup
from planner.placement import place
from planner.policies import make_policy
from planner.policies.quality import quality
from planner.solvers import make_solver
from planner.viewing import next_plan
from shared.cascade import looks_weak
from shared.errors import SettingsError
from shared.plans import Plan, Slot, View
from tests.planning import DEADLINE_S, SDTURBO, fleet, largest_shares, policy_of, view


@pytest.mark.parametrize("rate", [0, 1, 4, 8, 10, 12])
def test_at_low_demand_the_heavy_share_is_the_one_of_best_quality_and_no_more(rate: int) -> None:
    plan = policy_of("quality", solver="highs")(view(rate, fleet(16)))
    assert plan.heavy_share == pytest.approx(0.6)
    assert "best" in plan.why


@pytest.mark.parametrize(("rate", "slots"), [(20, 16), (24, 16), (32, 16), (60, 16), (90, 16), (8, 4), (12, 4), (3, 2)])
def test_under_load_the_quality_is_the_best_of_all_splits_and_batches(rate: int, slots: int) -> None:
    plan = policy_of("quality", solver="highs")(view(rate, fleet(slots)))
    curve = SDTURBO.curve()
    best = min(curve.at(min(share, 0.6)) for share in largest_shares(SDTURBO, plan.demand, slots, 0.9, 0.25))
    assert curve.at(plan.heavy_share) == pytest.approx(best, abs=0.01)
    assert plan.demand >= rate
    assert plan.light_workers + plan.heavy_workers == slots
    assert 0.9 * plan.throughput("light") >= plan.demand * (1 - 1e-6)
    assert 0.9 * plan.throughput("heavy") >= plan.demand * plan.heavy_share * (1 - 1e-6)
    assert 1.25 * (plan.light_service_s + plan.heavy_service_s) <= DEADLINE_S


@pytest.mark.parametrize(("rate", "slots"), [(4, 16), (20, 16), (32, 16), (60, 16), (6, 4)])
def test_diffserve_has_the_highest_threshold_that_one_slot_fewer_carries(rate: int, slots: int) -> None:
    plan = policy_of("diffserve", solver="highs")(view(rate, fleet(slots)))
    assert plan.demand == pytest.approx(1.2 * rate, rel=0.021)
    assert plan.heavy_share == pytest.approx(max(largest_shares(SDTURBO, plan.demand, slots - 1, 1.0, 0.0)), abs=2e-3)
    assert plan.light_workers + plan.heavy_workers <= slots - 1


def test_diffserve_sends_more_heavy_than_quality_at_low_load_and_draws_worse() -> None:
    plans = {name: policy_of(name)(view(4, fleet(16))) for name in ("quality", "diffserve")}
    fid = {name: SDTURBO.curve().at(plan.heavy_share) for name, plan in plans.items()}
    assert plans["diffserve"].heavy_share == 1.0
    assert fid["diffserve"] - fid["quality"] == pytest.approx(18.55 - 16.79)


def test_diffserve_plans_every_five_seconds_and_takes_the_queues_from_the_deadline() -> None:
    policy = policy_of("diffserve")
    first = policy(view(20, fleet(16), now=100.0))
    assert policy(view(30, fleet(16), now=104.9, plan=first)) is first
    assert policy(view(30, fleet(16), now=105.0, plan=first)).demand > first.demand
    # 30 prompts wait where 1.2 * 20 times the heavy share come each second.
    queueing_s = round(30 / (24 * first.heavy_share), 1)
    queued = policy(replace(view(20, fleet(16), now=105.0, plan=first), waiting={"heavy": 30}))
    left = largest_shares(SDTURBO, first.demand, 15, 1.0, 0.0, DEADLINE_S - queueing_s)
    assert queued.heavy_share == pytest.approx(max(left), abs=2e-3)
    assert queued.heavy_share < first.heavy_share - 0.05


def test_diffserve_averages_twenty_counts() -> None:
    counts = tuple(random.Random(1).randint(2, 30) for _ in range(40))
    plan = policy_of("diffserve")(View(0.0, counts, fleet(16)))
    assert plan.demand == pytest.approx(1.2 * averaged(counts[-20:], 2.1), rel=0.021)


def test_the_planned_share_of_live_scores_escalates() -> None:
    draw = random.Random(4)
    scores = tuple(round(draw.random(), 2) for _ in range(1_000))
    plan = policy_of("quality")(replace(view(32, fleet(16)), scores=scores))
    weak = sum(looks_weak(score, f"{draw.getrandbits(64):x}", plan) for score in scores)
    assert 0.2 < plan.heavy_share < 0.5
    assert weak / len(scores) == pytest.approx(plan.heavy_share, abs=0.02)


def test_every_solver_gives_the_same_plan() -> None:
    pytest.importorskip("gurobipy")
    draw = random.Random(9)
    policies = [policy_of("quality", solver=solver) for solver in ("highs", "gurobi", "exhaustive")]
    plan: Plan | None = None
    for second in range(25):
        offered = tuple(draw.randint(0, 60) for _ in range(20))
        plans = [policy(View(float(second), offered, fleet(8), plan=plan)) for policy in policies]
        assert [each.solver for each in plans] == ["highs", "gurobi", "exhaustive"]
        assert len({repr(replace(each, solver="", solve_ms=0.0)) for each in plans}) == 1
        plan = plans[0]


@pytest.mark.parametrize(("rate", "slots"), [(16, 16), (24, 16), (1, 2), (4, 4), (10, 16)])
def test_a_heavy_batch_is_held_until_it_fills_but_never_a_tenth_of_the_deadline(rate: int, slots: int) -> None:
    plan = policy_of("quality")(view(rate, fleet(slots)))
    fills_s = (plan.heavy_batch - 1) / (plan.demand * plan.heavy_share)
    assert plan.heavy_hold_s == pytest.approx(min(fills_s, 0.1 * DEADLINE_S))
    assert plan.light_hold_s == 0


def test_batches_are_small_while_slots_are_plenty_and_grow_with_the_load() -> None:
    policy = policy_of("quality")
    batches = [policy(view(rate, fleet(16))).heavy_batch for rate in (1, 8, 24, 32)]
    assert batches == [1, 1, 4, 4]


def test_a_slow_machine_is_planned_at_its_measured_pace() -> None:
    policy = policy_of("quality")
    slow = policy(replace(view(10, fleet(16)), pace={"light": 1.0, "heavy": 2.0}))
    assert slow.heavy_service_s == pytest.approx(2 * SDTURBO.service_s("heavy", slow.heavy_batch), rel=0.021)
    best = max(largest_shares(SDTURBO.paced({"heavy": 2.0}), slow.demand, 16, 0.9, 0.25))
    assert slow.heavy_share == pytest.approx(min(0.6, best), rel=0.03)
    assert policy(replace(view(10, fleet(16)), pace={"heavy": math.nan})).heavy_share == pytest.approx(0.6)


def test_a_noisy_steady_load_changes_worker_counts_at_most_once_a_dwell() -> None:
    draw = random.Random(2)
    policy = policy_of("quality", dwell_s=3.0)
    plan: Plan | None = None
    changed, offered = [], [draw.randint(15, 50) for _ in range(20)]
    for second in range(300):
        offered = [*offered[1:], draw.randint(15, 50)]
        after = next_plan(policy, View(1_000.0 + second, tuple(offered), fleet(16), plan=plan)) or plan
        assert after
        if plan and (after.light_workers, after.heavy_workers) != (plan.light_workers, plan.heavy_workers):
            carried = 0.9 * plan.light_workers * 18.0  # about what its light workers draw in batches of 8
            changed.append((second, forecast(offered).planned > carried))
        plan = after
    assert len(changed) > 5
    assert all(forced or second - before >= 3 for (before, _), (second, forced) in pairwise(changed))


def test_a_rise_that_light_cannot_carry_is_answered_within_the_dwell() -> None:
    policy = policy_of("quality", dwell_s=1_000.0)
    first = replace(policy(view(4, fleet(16), now=10.0)), staffed=10.0)
    kept = policy(view(20, fleet(16), now=11.0, plan=first))
    assert (kept.light_workers, kept.heavy_workers) == (first.light_workers, first.heavy_workers)
    assert policy(view(120, fleet(16), now=12.0, plan=kept)).light_workers > first.light_workers


def test_workers_and_threshold_follow_the_load_up_and_down_again() -> None:
    policy = policy_of("quality")
    plan: Plan | None = None
    seen: list[tuple[int, int, float]] = []
    for second in range(90):
        rate = 6 if second < 30 or second >= 60 else 100
        made = policy(view(rate, fleet(16), now=float(second), plan=plan))
        staffed = plan.staffed if plan and plan.light_workers == made.light_workers else float(second)
        plan = place(replace(made, staffed=staffed), fleet(16), plan.assignment if plan else {})
        seen.append((plan.light_workers, plan.heavy_workers, plan.threshold))
    low, high, again = seen[29], seen[59], seen[89]
    assert high[0] > low[0] and high[1] < low[1] and high[2] < low[2]
    assert again == low


def test_a_quiet_view_solves_nothing() -> None:
    solver = make_solver("highs")
    policy = quality(Setup(SDTURBO, DEADLINE_S, solver, 3.0))
    plan = policy(view(10, fleet(16)))
    for second in range(10):
        plan = policy(view(10, fleet(16), now=101.0 + second, plan=plan))
    assert solver.solve.cache_info().misses <= 2  # without and with a plan in force


def test_slots_of_one_stage_and_of_unknown_gpus_are_planned() -> None:
    slots = (Slot("a", 0, "unheard-of", ("light",)), Slot("a", 1, "unheard-of", ("heavy",)))
    plan = place(policy_of("quality", solver="highs")(view(1, slots)), slots, {})
    assert plan.assignment == {"a:0": "light", "a:1": "heavy"}


def test_unknown_names_are_settings_to_mend() -> None:
    with pytest.raises(SettingsError, match="quality, diffserve"):
        make_policy("greedy", SDTURBO, DEADLINE_S)
    with pytest.raises(SettingsError, match="exhaustive"):
        make_policy("quality", SDTURBO, DEADLINE_S, "cplex")
