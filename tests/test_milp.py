"""The program: its solvers held against each other and against an oracle that tries everything."""

from __future__ import annotations

import pytest

from planner.milp import best_share, case_of, loss_points
from planner.search import exhaustive
from planner.solvers import make_solver
from shared.catalog import load_cascade
from shared.measured import Curve
from shared.plans import Plan, Slot
from tests.random_cases import Cases, cases, found, mixed_cases, of_types


@pytest.mark.parametrize("among", [cases, mixed_cases])
def test_highs_finds_what_trying_everything_finds(among: Cases) -> None:
    solver = make_solver("highs")
    for case, right in among():
        assert found(case, solver.solve(case)) == right, case
    infeasible = sum(right is None for _, right in among())
    assert 20 <= infeasible <= 200  # both answers are common among the cases
    assert sum(right is not None and right[3] >= 0 for _, right in among()) > 60


@pytest.mark.parametrize("among", [cases, mixed_cases])
def test_gurobi_finds_what_trying_everything_finds(among: Cases) -> None:
    pytest.importorskip("gurobipy")
    solver = make_solver("gurobi")
    for case, right in among():
        assert found(case, solver.solve(case)) == right, case
    assert solver.name == "gurobi"


def test_exhaustive_search_leaves_nothing_out() -> None:
    solver = make_solver("exhaustive")
    for case, right in cases():
        assert found(case, solver.solve(case)) == right, case
    assert solver.name == "exhaustive"


def test_a_gpu_too_slow_for_the_deadline_is_left_out_of_a_stage() -> None:
    """On the slow GPUs heavy alone takes longer than the deadline, so they draw light; the plan says so."""
    cascade = of_types("sdturbo", {"fast": 1.0, "slow": 3.0})
    slots = tuple(Slot("node", number, ("fast", "slow")[number % 2]) for number in range(8))
    case = case_of(cascade, slots, 6.0, 5.0, loss_points(cascade.curve()))
    solution = make_solver("highs").solve(case)
    assert solution and solution.heavy
    assert case.by_type(solution.heavy_on).keys() == {"fast"}
    used_s = solution.light.latency_on(solution.light_on) + solution.heavy.latency_on(solution.heavy_on)
    assert used_s <= 5.0 + 1e-9


def test_a_large_fleet_is_solved_alike() -> None:
    cascade = load_cascade("sdturbo")
    slots = tuple(Slot("node", number, cascade.gpu) for number in range(256))
    in_force = Plan("quality", 0.1, 100, 156, 8, 4, 0.4, 3.7)
    for demand in (40.0, 300.0, 700.0):
        case = case_of(cascade, slots, demand, 5.0, loss_points(cascade.curve()), in_force)
        assert make_solver("highs").solve(case) == exhaustive(case)


def test_where_higher_is_better_the_loss_falls_as_quality_rises() -> None:
    curve = Curve("discriminator", "accuracy", ((0.0, 0.5), (0.5, 0.9), (1.0, 0.8)))
    points = loss_points(curve)
    assert best_share(points, 1.0)[0] == 0.5
    assert points[0][1] == pytest.approx(1.0)


def test_where_quality_is_flat_heavy_work_is_saved() -> None:
    points = loss_points(Curve("discriminator", "fid", ((0.0, 20.0), (0.4, 17.0), (0.8, 17.0), (1.0, 18.0))))
    assert best_share(points, 1.0)[0] == 0.4
    assert best_share(points, 0.2)[0] == pytest.approx(0.2)
