"""The program and its three solvers, held against each other."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from planner.milp import HEAVY_PRICE, Case, Choice, Solution, best_share, build, case_of, decode, loss_points
from planner.program import HEAVIEST, Objective, Program, Row, folded
from planner.solvers import exhaustive, find_licence, highs, make_solver
from shared.catalog import Curve, load_cascade
from shared.errors import SettingsError
from shared.plans import Slot

ANY_LICENCE = {"GRB_LICENSE_FILE": ""}


def random_choices(draw: random.Random) -> tuple[Choice, ...]:
    batches = sorted(draw.sample([1, 2, 4, 8, 16, 32], draw.randint(1, 5)))
    first_s, each_s = draw.uniform(0.05, 1.0), draw.uniform(0.02, 0.5)
    return tuple(Choice(batch, first_s + each_s * batch, 0.25 * (first_s + each_s * batch)) for batch in batches)


def random_case(draw: random.Random) -> Case:
    slots = draw.randint(1, 16)
    two_way = draw.random() < 0.6
    shares = sorted({0.0, 1.0} | {round(draw.random(), 3) for _ in range(draw.randint(0, 5))})
    return Case(
        demand=draw.uniform(0.05, 1.2) * slots,
        deadline_s=draw.uniform(1, 20),
        light=random_choices(draw),
        heavy=random_choices(draw),
        slots=slots,
        light_slots=slots if two_way else draw.randint(1, slots),
        heavy_slots=slots if two_way else draw.randint(0, slots),
        loss=tuple((share, draw.random() + HEAVY_PRICE * share) for share in shares),
        counts=(draw.randint(0, slots), draw.randint(0, slots)) if draw.random() < 0.7 else None,
    )


@cache
def cases(count: int = 400) -> tuple[tuple[Case, Solution | None], ...]:
    draw = random.Random(20_251_122)
    return tuple((case, exhaustive(case)) for case in (random_case(draw) for _ in range(count)))


def disagreements(spoil: Callable[[Program], Program], count: int = 45) -> int:
    """How many cases HiGHS answers differently once their program is spoilt."""
    wrong = 0
    for case, truth in cases()[:count]:
        values = highs(spoil(build(case)))
        wrong += (None if values is None else decode(case, values)) != truth
    return wrong


def test_highs_finds_what_exhaustive_search_finds() -> None:
    infeasible = 0
    for case, truth in cases():
        assert make_solver("highs").solve(case) == truth, case
        infeasible += truth is None
    assert 40 <= infeasible <= 240  # both answers are common among the cases


def test_gurobi_finds_what_exhaustive_search_finds() -> None:
    pytest.importorskip("gurobipy")
    solver = make_solver("gurobi")
    for case, truth in cases()[:150]:
        assert solver.solve(case) == truth, case


def brute(case: Case) -> tuple[float, int] | None:
    """Least loss and fewest workers by trying every count: shares no code with the search but `best_share`."""
    found = []
    for light in case.light:
        for heavy in (None, *case.heavy):
            if light.latency_s + (heavy.latency_s if heavy else 0) > case.deadline_s:
                continue
            for light_workers in range(1, min(case.slots, case.light_slots) + 1):
                if 0.9 * light_workers * light.batch / light.service_s < case.demand:
                    continue
                for heavy_workers in range(min(case.slots - light_workers, case.heavy_slots) + 1 if heavy else 1):
                    drawn = 0.9 * heavy_workers * heavy.batch / heavy.service_s if heavy else 0.0
                    found.append((best_share(case.loss, drawn / case.demand)[1], light_workers + heavy_workers))
    if not found:
        return None
    least = min(found)[0]
    return least, min(workers for loss, workers in found if loss <= least + 1e-3)


def test_exhaustive_search_leaves_nothing_out() -> None:
    for case, truth in cases():
        expected = brute(case)
        assert (truth is None) == (expected is None)
        if truth and expected:
            assert truth.loss <= expected[0] + 1e-3 + 1e-9
            assert truth.light_workers + truth.heavy_workers == expected[1]


def drop_row(name: str) -> Callable[[Program], Program]:
    return lambda program: replace(program, rows=tuple(row for row in program.rows if row.name != name))


def flip(row: Row) -> Row:
    return replace(row, lower=-row.upper, upper=-row.lower)


def flip_row(name: str) -> Callable[[Program], Program]:
    return lambda program: replace(program, rows=tuple(flip(r) if r.name == name else r for r in program.rows))


def drop_objective(place: int) -> Callable[[Program], Program]:
    return lambda program: replace(
        program, objectives=tuple(o for at, o in enumerate(program.objectives) if at != place)
    )


def reverse_objective(place: int) -> Callable[[Program], Program]:
    def spoil(program: Program) -> Program:
        objectives = [
            replace(o, terms=tuple((column, -cost) for column, cost in o.terms)) if at == place else o
            for at, o in enumerate(program.objectives)
        ]
        return replace(program, objectives=tuple(o for o in objectives if not _unbounded(program, o)))

    return spoil


def _unbounded(program: Program, objective: Objective) -> bool:
    return any(cost < 0 and program.columns[column].upper > 1e9 for column, cost in objective.terms)


ROWS = ("light demand", "heavy demand", "slots", "deadline", "one batch of light", "weights")


@pytest.mark.parametrize("name", ROWS)
def test_a_dropped_constraint_is_found_out(name: str) -> None:
    assert disagreements(drop_row(name)) > 0


def test_a_dropped_segment_is_found_out_where_the_loss_is_not_convex() -> None:
    # Straight lines past the hump promise a loss that no share within reach of these workers has.
    hump = [replace(case, loss=((0.0, 0.5), (0.5, 1.0), (1.0, 0.0))) for case, _ in cases()[:60]]
    for name in ("one segment", "weights beside the segment"):
        wrong = 0
        for case in hump:
            values = highs(drop_row(name)(build(case)))
            wrong += (None if values is None else decode(case, values)) != exhaustive(case)
        assert wrong > 0


@pytest.mark.parametrize("name", ["light demand", "slots", "deadline"])
def test_a_wrong_sign_is_found_out(name: str) -> None:
    assert disagreements(flip_row(name)) > 0


@pytest.mark.parametrize("place", [0, 1])
def test_a_broken_objective_is_found_out(place: int) -> None:
    assert disagreements(drop_objective(place)) > 0
    assert disagreements(reverse_objective(place)) > 0


def test_an_unspoilt_program_agrees() -> None:
    assert disagreements(lambda program: program) == 0


def test_folded_objectives_keep_their_order_and_large_ones_stay_apart() -> None:
    small = [Objective(name, ((place, 1.0),), 0.5, 9) for place, name in enumerate("abc")]
    (one,) = folded(small)
    assert dict(one.terms) == {0: 100.0, 1: 10.0, 2: 1.0}
    large = [replace(objective, span=HEAVIEST) for objective in small]
    assert folded(large) == tuple(large)


def test_a_large_fleet_is_solved_alike() -> None:
    cascade = load_cascade("sdturbo")
    slots = tuple(Slot("node", number, cascade.gpu) for number in range(256))
    for demand in (40.0, 300.0, 700.0):
        case = case_of(cascade, slots, demand, 5.0, loss_points(cascade.curve()), (100, 156))
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


def test_a_licence_is_looked_for_where_the_readme_says(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (tmp_path / "gurobi").mkdir()
    home.mkdir()
    (home / "gurobi.lic").touch()
    assert find_licence({"HOME": str(home)}, tmp_path) == home / "gurobi.lic"
    (tmp_path / "gurobi" / "gurobi.lic").touch()
    assert find_licence({"HOME": str(home)}, tmp_path) == tmp_path / "gurobi" / "gurobi.lic"
    named = {"GRB_LICENSE_FILE": "/elsewhere.lic", "HOME": str(home)}
    assert find_licence(named, tmp_path) == Path("/elsewhere.lic")
    assert make_solver("auto", named, tmp_path).name == "gurobi"


def test_auto_takes_highs_where_no_licence_is(tmp_path: Path) -> None:
    assert find_licence(ANY_LICENCE, tmp_path) is None
    assert make_solver("auto", ANY_LICENCE, tmp_path).name == "highs"


def test_a_broken_licence_gives_way_to_highs_with_one_log_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gurobipy")
    monkeypatch.setattr(logging.getLogger("cascade"), "propagate", True)
    monkeypatch.setenv("GRB_LICENSE_FILE", "")  # put back afterwards: Gurobi is told of a file this way alone
    broken = tmp_path / "gurobi.lic"
    broken.write_text("TYPE=none\nEXPIRATION=2020-01-01\n")
    solver = make_solver("gurobi", {"GRB_LICENSE_FILE": str(broken)}, tmp_path)
    for case, truth in cases()[:5]:
        assert solver.solve(case) == truth
    assert solver.name == "highs"
    assert len(caplog.records) == 1


def test_an_unknown_solver_is_a_setting_to_mend() -> None:
    with pytest.raises(SettingsError, match="cplex"):
        make_solver("cplex")


def test_the_same_case_is_solved_once() -> None:
    solver = make_solver("exhaustive")
    case = cases()[0][0]
    assert solver.solve(case) is solver.solve(replace(case))
    assert solver.solve.cache_info().hits == 1
