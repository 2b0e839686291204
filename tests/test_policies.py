"""The policies: what a plan must be for any view, and what it must be for the published figures."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.demand import averaged, forecast
from planner.drafting import Setup
from planner.placement import place
from planner.policies import POLICIES, make_policy
from planner.policies.quality import quality
from planner.solvers import make_solver
from shared.cascade import looks_weak
from shared.catalog import Cascade, load_cascade
from shared.errors import SettingsError
from shared.plans import Plan, Slot, View
from shared.schema import Stage

SDTURBO = load_cascade("sdturbo")
DEADLINE_S = SDTURBO.deadline_s


def fleet(count: int, stages: tuple[Stage, ...] = ("light", "heavy")) -> tuple[Slot, ...]:
    return tuple(Slot("node", number, SDTURBO.gpu, stages) for number in range(count))


def view(rate: int, slots: tuple[Slot, ...], now: float = 100.0, plan: Plan | None = None) -> View:
    return View(now, (rate,) * 20, slots, plan=plan)


def largest_shares(
    cascade: Cascade, demand: float, slots: int, headroom: float, wait_share: float, deadline_s: float = DEADLINE_S
) -> list[float]:
    """The heavy share that each split and batch pair carries: the program by brute force, from the profiles."""
    shares = []
    for light, heavy in product(cascade.batches("light"), cascade.batches("heavy")):
        light_s, heavy_s = cascade.service_s("light", light), cascade.service_s("heavy", heavy)
        if (1 + wait_share) * (light_s + heavy_s) > deadline_s:
            continue
        shares += [
            min(1.0, headroom * (slots - workers) * heavy / heavy_s / demand)
            for workers in range(1, slots)
            if headroom * workers * light / light_s >= demand
        ]
    return shares


@pytest.mark.parametrize("rate", [0, 1, 4, 8, 10, 12])
def test_at_low_demand_the_heavy_share_is_the_one_of_best_quality_and_no_more(rate: int) -> None:
    plan = make_policy("quality", SDTURBO, DEADLINE_S, "highs")(view(rate, fleet(16)))
    assert plan.heavy_share == pytest.approx(0.6)
    assert "best" in plan.why


@pytest.mark.parametrize(("rate", "slots"), [(20, 16), (24, 16), (32, 16), (60, 16), (90, 16), (8, 4), (12, 4), (3, 2)])
def test_under_load_the_quality_is_the_best_of_all_splits_and_batches(rate: int, slots: int) -> None:
    plan = make_policy("quality", SDTURBO, DEADLINE_S, "highs")(view(rate, fleet(slots)))
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
    plan = make_policy("diffserve", SDTURBO, DEADLINE_S, "highs")(view(rate, fleet(slots)))
    assert plan.demand == pytest.approx(1.2 * rate, rel=0.021)
    assert plan.heavy_share == pytest.approx(max(largest_shares(SDTURBO, plan.demand, slots - 1, 1.0, 0.0)), abs=2e-3)
    assert plan.light_workers + plan.heavy_workers <= slots - 1


def test_diffserve_sends_more_heavy_than_quality_at_low_load_and_draws_worse() -> None:
    plans = {name: make_policy(name, SDTURBO, DEADLINE_S, "highs")(view(4, fleet(16))) for name in POLICIES}
    fid = {name: SDTURBO.curve().at(plan.heavy_share) for name, plan in plans.items()}
    assert plans["diffserve"].heavy_share == 1.0
    assert fid["diffserve"] - fid["quality"] == pytest.approx(18.55 - 16.79)


def test_diffserve_plans_every_five_seconds_and_takes_the_queues_from_the_deadline() -> None:
    policy = make_policy("diffserve", SDTURBO, DEADLINE_S, "exhaustive")
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
    plan = make_policy("diffserve", SDTURBO, DEADLINE_S, "exhaustive")(View(0.0, counts, fleet(16)))
    assert plan.demand == pytest.approx(1.2 * averaged(counts[-20:], 2.1), rel=0.021)


def test_the_planned_share_of_live_scores_escalates() -> None:
    draw = random.Random(4)
    scores = tuple(round(draw.random(), 2) for _ in range(1_000))
    plan = make_policy("quality", SDTURBO, DEADLINE_S, "exhaustive")(replace(view(32, fleet(16)), scores=scores))
    weak = sum(looks_weak(score, f"{draw.getrandbits(64):x}", plan) for score in scores)
    assert 0.2 < plan.heavy_share < 0.5
    assert weak / len(scores) == pytest.approx(plan.heavy_share, abs=0.02)


def test_every_solver_gives_the_same_plan() -> None:
    pytest.importorskip("gurobipy")
    draw = random.Random(9)
    policies = [make_policy("quality", SDTURBO, DEADLINE_S, solver) for solver in ("highs", "gurobi", "exhaustive")]
    plan: Plan | None = None
    for second in range(25):
        offered = tuple(draw.randint(0, 60) for _ in range(20))
        plans = [policy(View(float(second), offered, fleet(8), plan=plan)) for policy in policies]
        assert [each.solver for each in plans] == ["highs", "gurobi", "exhaustive"]
        assert len({repr(replace(each, solver="", solve_ms=0.0)) for each in plans}) == 1
        plan = plans[0]


@pytest.mark.parametrize(("rate", "slots"), [(16, 16), (24, 16), (1, 2), (4, 4), (10, 16)])
def test_a_heavy_batch_is_held_until_it_fills_but_never_a_tenth_of_the_deadline(rate: int, slots: int) -> None:
    plan = make_policy("quality", SDTURBO, DEADLINE_S, "exhaustive")(view(rate, fleet(slots)))
    fills_s = (plan.heavy_batch - 1) / (plan.demand * plan.heavy_share)
    assert plan.heavy_hold_s == pytest.approx(min(fills_s, 0.1 * DEADLINE_S))
    assert plan.light_hold_s == 0


def test_batches_are_small_while_slots_are_plenty_and_grow_with_the_load() -> None:
    policy = make_policy("quality", SDTURBO, DEADLINE_S, "exhaustive")
    batches = [policy(view(rate, fleet(16))).heavy_batch for rate in (1, 8, 24, 32)]
    assert batches == [1, 1, 4, 4]


def test_a_slow_machine_is_planned_at_its_measured_pace() -> None:
    policy = make_policy("quality", SDTURBO, DEADLINE_S, "exhaustive")
    slow = policy(replace(view(10, fleet(16)), pace={"light": 1.0, "heavy": 2.0}))
    assert slow.heavy_service_s == pytest.approx(2 * SDTURBO.service_s("heavy", slow.heavy_batch), rel=0.021)
    best = max(largest_shares(SDTURBO.paced({"heavy": 2.0}), slow.demand, 16, 0.9, 0.25))
    assert slow.heavy_share == pytest.approx(min(0.6, best), rel=0.03)
    assert policy(replace(view(10, fleet(16)), pace={"heavy": math.nan})).heavy_share == pytest.approx(0.6)


def test_a_noisy_steady_load_changes_worker_counts_at_most_once_a_dwell() -> None:
    draw = random.Random(2)
    policy = make_policy("quality", SDTURBO, DEADLINE_S, "exhaustive", dwell_s=3.0)
    plan: Plan | None = None
    changed, offered = [], [draw.randint(15, 50) for _ in range(20)]
    for second in range(300):
        offered = [*offered[1:], draw.randint(15, 50)]
        after = policy(View(1_000.0 + second, tuple(offered), fleet(16), plan=plan))
        if plan and (after.light_workers, after.heavy_workers) != (plan.light_workers, plan.heavy_workers):
            carried = 0.9 * plan.light_workers * 18.0  # about what its light workers draw in batches of 8
            changed.append((second, forecast(offered).planned > carried))
        plan = after
    calm = [second for second, forced in changed if not forced]
    assert changed
    assert all((1_000 + second) % 3 < 1 or forced for second, forced in changed)
    assert len({second // 3 for second in calm}) == len(calm)


def test_a_rise_that_light_cannot_carry_is_answered_within_the_dwell() -> None:
    policy = make_policy("quality", SDTURBO, DEADLINE_S, "exhaustive", dwell_s=1_000.0)
    first = policy(view(4, fleet(16), now=10.0))
    kept = policy(view(20, fleet(16), now=11.0, plan=first))
    assert (kept.light_workers, kept.heavy_workers) == (first.light_workers, first.heavy_workers)
    assert policy(view(120, fleet(16), now=12.0, plan=kept)).light_workers > first.light_workers


def test_workers_and_threshold_follow_the_load_up_and_down_again() -> None:
    policy = make_policy("quality", SDTURBO, DEADLINE_S, "exhaustive")
    plan: Plan | None = None
    seen: list[tuple[int, int, float]] = []
    for second in range(90):
        rate = 6 if second < 30 or second >= 60 else 100
        made = policy(view(rate, fleet(16), now=float(second), plan=plan))
        plan = place(made, fleet(16), plan.assignment if plan else {})
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


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(
    ("slots", "rate", "deadline_s", "reason"),
    [
        ((), 10, 5.0, "no slot is there"),
        (fleet(3, ("heavy",)), 10, 5.0, "no slot can run light"),
        (fleet(4), 10, 0.01, "no light batch meets the deadline"),
        (fleet(4), 10**12, 5.0, "more than 4 slots can draw light"),
    ],
)
def test_a_program_without_solution_gives_all_light_and_the_reason(
    name: str, slots: tuple[Slot, ...], rate: int, deadline_s: float, reason: str
) -> None:
    plan = make_policy(name, SDTURBO, deadline_s, "highs")(view(rate, slots))
    assert reason in plan.why
    assert (plan.heavy_workers, plan.heavy_share, plan.threshold) == (0, 0.0, 0.0)
    assert plan.light_workers == sum("light" in slot.stages for slot in slots)
    assert plan.light_batch == (1 if deadline_s < 1 else 16)


def test_slots_of_one_stage_and_of_unknown_gpus_are_planned() -> None:
    slots = (Slot("a", 0, "unheard-of", ("light",)), Slot("a", 1, "unheard-of", ("heavy",)))
    plan = place(make_policy("quality", SDTURBO, DEADLINE_S, "highs")(view(1, slots)), slots, {})
    assert plan.assignment == {"a:0": "light", "a:1": "heavy"}


SLOTS = st.lists(st.sampled_from([(), ("light",), ("heavy",), ("light", "heavy")]), max_size=6)
WILD = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(POLICIES)),
    offered=st.lists(st.integers(0, 10**20), max_size=25),
    stages=SLOTS,
    scores=st.lists(WILD, max_size=10),
    pace=st.dictionaries(st.sampled_from(["light", "heavy"]), WILD),
    waiting=st.integers(0, 10**9),
    deadline_s=st.floats(0.001, 1_000),
    before=st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_any_view_gives_a_plan_that_the_slots_can_hold(
    name: str,
    offered: list[int],
    stages: list[tuple[Stage, ...]],
    scores: list[float],
    pace: dict[Stage, float],
    waiting: int,
    deadline_s: float,
    before: tuple[int, int] | None,
) -> None:
    slots = tuple(Slot("node", number, SDTURBO.gpu, each) for number, each in enumerate(stages))
    plan = Plan("quality", 0.2, *before, 1, 1, 0.1, 1.0, made=99.0) if before else None
    seen = View(100.0, tuple(offered), slots, tuple(scores), {"light": waiting, "heavy": waiting}, {}, pace, plan)
    made = make_policy(name, SDTURBO, deadline_s, "exhaustive")(seen)
    assert made.light_workers <= sum("light" in slot.stages for slot in slots)
    assert made.heavy_workers <= sum("heavy" in slot.stages for slot in slots)
    assert made.light_workers + made.heavy_workers <= len(slots)
    assert made.light_workers >= any("light" in slot.stages for slot in slots)
    assert 0 <= made.threshold <= 1 and 0 <= made.tie_share <= 1 and 0 <= made.heavy_share <= 1
    assert 0 <= made.heavy_hold_s <= 0.1 * deadline_s + 1e-9
    assert made.why and math.isfinite(made.demand) and made.light_service_s > 0 < made.heavy_service_s
    assert made.heavy_workers > 0 or made.heavy_share == 0
    assert Plan.from_wire({k.encode(): str(v).encode() for k, v in made.wire().items()}) == made


def test_unknown_names_are_settings_to_mend() -> None:
    with pytest.raises(SettingsError, match="quality, diffserve"):
        make_policy("greedy", SDTURBO, DEADLINE_S)
    with pytest.raises(SettingsError, match="exhaustive"):
        make_policy("quality", SDTURBO, DEADLINE_S, "cplex")
