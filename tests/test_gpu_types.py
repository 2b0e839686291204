"""Fleets of several GPU types: the plan names them, travels, and is placed and staffed as it says."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.recording import load, save
from planner.fleet import Staff
from planner.milp import Case, Solution, case_of, loss_points
from planner.placement import place
from planner.policies import make_policy
from planner.solvers import make_solver
from planner.spares import refit, spread
from shared.plans import Plan, Slot, View
from shared.recording import Recording
from shared.schema import STAGES, Stage
from tests.random_cases import mixed_cases, of_types

SDTURBO = of_types("sdturbo", {"fast": 0.5, "middle": 1.0, "slow": 3.0})
KINDS: tuple[tuple[Stage, ...], ...] = (("light", "heavy"), ("light",), ("heavy",))


def fleet(count: int) -> tuple[Slot, ...]:
    return tuple(Slot("node", number, ("fast", "middle", "slow")[number % 3]) for number in range(count))


def solved() -> list[tuple[Case, Solution]]:
    solver = make_solver("highs")
    both = [(case, solver.solve(case)) for case, right in mixed_cases()[:150] if right]
    return [(case, solution) for case, solution in both if solution]


def test_a_plan_names_the_types_draws_what_it_says_and_survives_the_wire() -> None:
    policy = make_policy("quality", SDTURBO, 5.0, "highs")
    for rate in (2, 15, 30, 60):
        plan = policy(View(100.0, (rate,) * 20, fleet(12)))
        assert sum(plan.light_on.values()) == plan.light_workers
        assert sum(plan.heavy_on.values()) == plan.heavy_workers
        for stage in STAGES:
            drawn = sum(
                count * plan.batch(stage) / SDTURBO.service_s(stage, plan.batch(stage), gpu)
                for gpu, count in plan.on(stage).items()
            )
            assert plan.throughput(stage) == pytest.approx(drawn)
        wire = plan.wire()
        assert all(wire[f"light_on:{gpu}"] == str(count) for gpu, count in plan.light_on.items())
        assert Plan.from_wire({k.encode(): str(v).encode() for k, v in wire.items()}) == plan


def test_a_plan_of_several_types_is_read_back_from_a_run_folder(tmp_path: Path) -> None:
    plan = place(make_policy("quality", SDTURBO, 5.0, "highs")(View(100.0, (20,) * 20, fleet(9))), fleet(9), {})
    assert plan.light_on and plan.heavy_on and plan.assignment
    save(Recording("sdturbo", 5.0, 0, 0, 0, 0.0, (), (plan,), ()), tmp_path / "run")
    assert load(tmp_path / "run").plans == (plan,)


def test_a_quiet_mixed_fleet_keeps_its_workers() -> None:
    policy = make_policy("quality", SDTURBO, 5.0, "highs")
    plan: Plan | None = None
    seen = set()
    for second in range(12):
        made = policy(View(100.0 + second, (20,) * 20, fleet(12), plan=plan))
        plan = place(made, fleet(12), plan.assignment if plan else {})
        seen.add(tuple(sorted(plan.assignment.items())))
    assert len(seen) == 1


def test_slots_left_over_are_staffed_within_deadline_and_slots() -> None:
    for case, needed in solved():
        full = spread(case, needed)
        assert all(now >= before for now, before in zip(full.light_on, needed.light_on, strict=True))
        assert all(now >= before for now, before in zip(full.heavy_on, needed.heavy_on, strict=True))
        for light, heavy, pool in zip(full.light_on, full.heavy_on, case.pools, strict=True):
            assert light <= pool.light_slots and heavy <= pool.heavy_slots and light + heavy <= pool.slots
        assert full.light_workers + full.heavy_workers <= case.slots
        assert latency_s(full) <= case.deadline_s + 1e-6
        # A slot idles only where neither stage could run on it in time.
        for place_of, pool in enumerate(case.pools):
            used = full.light_on[place_of] + full.heavy_on[place_of]
            if used < pool.slots and full.light_workers + full.heavy_workers < case.slots:
                assert full.light_on[place_of] == pool.light_slots or too_slow(case, full, "light", place_of)
                assert full.heavy_on[place_of] == pool.heavy_slots or too_slow(case, full, "heavy", place_of)


def latency_s(solution: Solution) -> float:
    heavy_s = solution.heavy.latency_on(solution.heavy_on) if solution.heavy else 0.0
    return solution.light.latency_on(solution.light_on) + heavy_s


def too_slow(case: Case, full: Solution, stage: Stage, pool: int) -> bool:
    choice = full.light if stage == "light" else full.heavy
    if choice is None:
        return True
    other_s = latency_s(full) - choice.latency_on(full.light_on if stage == "light" else full.heavy_on)
    return choice.latencies[pool] + other_s > case.deadline_s + 1e-9


def test_batches_refitted_to_the_needed_workers_lose_nothing_and_meet_the_deadline() -> None:
    for case, needed in solved():
        kept = refit(case, needed.staff)
        assert kept is not None
        assert kept.staff == needed.staff
        assert kept.loss <= needed.loss + 1e-3 + 1e-9
        assert latency_s(kept) <= case.deadline_s + 1e-6
        assert 0.9 * kept.throughput("light") >= case.demand * (1 - 1e-6)
        assert all(seconds < math.inf for seconds, n in zip(kept.light.seconds, kept.light_on, strict=True) if n)


def test_workers_that_light_cannot_do_with_are_not_kept() -> None:
    slots = fleet(9)
    case = case_of(SDTURBO, slots, 100.0, 5.0, loss_points(SDTURBO.curve()))
    assert refit(case, Staff((0, 1, 0), (3, 2, 3))) is None


def test_without_types_in_the_plan_the_assignment_says_where_its_workers_are() -> None:
    slots = fleet(6)
    stages: tuple[Stage, ...] = ("light", "heavy", "heavy", "heavy", "light", "light")
    before = Plan(
        "pinned", 0.1, 3, 3, 1, 1, 0.1, 1.0, assignment={s.name: t for s, t in zip(slots, stages, strict=True)}
    )
    case = case_of(SDTURBO, slots, 10.0, 5.0, loss_points(SDTURBO.curve()), before)
    assert case.counts == Staff((1, 1, 1), (1, 1, 1))


@st.composite
def situations(draw: st.DrawFn) -> tuple[Plan, tuple[Slot, ...], dict[str, Stage]]:
    kinds = draw(st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from("ab")), min_size=1, max_size=5))
    slots = tuple(Slot("node", number, gpu, stages) for number, (stages, gpu) in enumerate(kinds))
    current: dict[str, Stage] = {}
    for slot in slots:
        stage = draw(st.sampled_from([None, *slot.stages]))
        if stage:
            current[slot.name] = stage
    on: dict[Stage, dict[str, int]] = {"light": {}, "heavy": {}}
    for gpu in "ab":
        count = sum(slot.gpu == gpu for slot in slots)
        light = draw(st.integers(0, count))
        on["light"][gpu], on["heavy"][gpu] = light, draw(st.integers(0, count - light))
    plan = Plan("quality", 0.1, sum(on["light"].values()), sum(on["heavy"].values()), 1, 1, 0.1, 1.0)
    return replace(plan, light_on=on["light"], heavy_on=on["heavy"]), slots, current


def counts(assignment: dict[str, Stage], slots: tuple[Slot, ...]) -> Counter[tuple[Stage, str]]:
    kinds = {slot.name: slot.gpu for slot in slots}
    return Counter((stage, kinds[name]) for name, stage in assignment.items())


@given(situations())
def test_workers_are_placed_on_the_types_the_plan_names_with_the_fewest_switches(
    situation: tuple[Plan, tuple[Slot, ...], dict[str, Stage]],
) -> None:
    plan, slots, current = situation
    first = dict(place(plan, slots, current).assignment)
    for stage in STAGES:
        workers = [name for name, now in current.items() if now == stage]
        if len(workers) > 1 or (workers and plan.workers(stage)):
            assert any(first.get(name) == stage for name in workers)
    wanted = Counter({(stage, gpu): n for stage in STAGES for gpu, n in plan.on(stage).items() if n})
    possible = []
    for stages in product(*([None, *slot.stages] for slot in slots)):
        tried: dict[str, Stage] = {slot.name: stage for slot, stage in zip(slots, stages, strict=True) if stage}
        if counts(tried, slots) == wanted:
            possible.append(sum(tried.get(name) == stage for name, stage in current.items()))
    if possible:
        assert sum(first.get(name) == stage for name, stage in current.items()) >= max(possible)
        last = first
        for _ in range(4):
            last = dict(place(plan, slots, last).assignment)
        assert counts(last, slots) == wanted
