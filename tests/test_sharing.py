"""Several cascades on the same slots: held against an oracle that tries everything, and what holds in any case."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest

from planner import formulation
from planner.engines import LARGE, highs
from planner.formulation import build, decode, width
from planner.milp import Case, case_of, loss_points
from planner.program import Objective, Program, folded
from planner.sharing import share
from planner.solvers import make_solver
from shared.catalog import load_cascade
from shared.plans import Slot
from tests.random_cases import Found, brute, found, of_types, sharing, truth

Rights = tuple[Found, ...] | None


@cache
def shared_cases(count: int = 200) -> tuple[tuple[tuple[Case, ...], Rights], ...]:
    """Two or three cascades each, and the one right answer."""
    draw = random.Random(8)
    every = [sharing(draw) for _ in range(count)]
    answers = [brute(*cases) for cases in every]
    return tuple(
        (cases, None if found is None else tuple(truth((one,)) for one in found))
        for cases, found in zip(every, answers, strict=True)
    )


@pytest.mark.parametrize("name", ["highs", "gurobi"])
def test_solvers_share_the_slots_as_trying_everything_does(name: str) -> None:
    if name == "gurobi":
        pytest.importorskip("gurobipy")
    solver = make_solver(name)
    for cases, right in shared_cases():
        got = share(cases, solver)
        if right is None:
            assert got.carried < 1 or None in got.solutions
        else:
            assert got.carried == 1
            assert tuple(found(*each) for each in zip(cases, got.solutions, strict=True)) == right, cases
    infeasible = sum(right is None for _, right in shared_cases())
    assert 30 <= infeasible <= 150  # both answers are common among the cases
    assert solver.name == name


def wrong(program: Program, cases: Sequence[Case], right: Rights) -> bool:
    values = highs(program)
    if values is None or right is None:
        return (values is None) != (right is None)
    start, got = 0, []
    for case in cases:
        got.append(found(case, decode(case, values, start)))
        start += width(case)
    return tuple(got) != right


@pytest.mark.parametrize("name", ["slots of", "deadline", "light demand", "heavy demand"])
def test_a_dropped_constraint_is_found_out(name: str) -> None:
    def drop(program: Program) -> Program:
        return replace(program, rows=tuple(row for row in program.rows if not row.name.startswith(name)))

    assert any(wrong(drop(build(*cases)), cases, right) for cases, right in shared_cases())


def test_losses_weighed_wrongly_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    right_way = folded

    def unweighed(objectives: Sequence[Objective]) -> tuple[Objective, ...]:
        loss = objectives[0]
        assert loss.name == "loss"
        even = tuple((column, math.copysign(1.0, cost)) for column, cost in loss.terms)
        return right_way([replace(loss, terms=even), *objectives[1:]])

    monkeypatch.setattr(formulation, "folded", unweighed)
    assert any(wrong(build(*cases), cases, right) for cases, right in shared_cases())


def of_published(slots: int, rates: Sequence[float], kinds: Sequence[str] = ("a100-80g",)) -> tuple[Case, ...]:
    fleet = tuple(Slot("node", number, kinds[number % len(kinds)]) for number in range(slots))
    cascades = [load_cascade(name) for name in ("sdturbo", "sdxs", "sdxlltn")][: len(rates)]
    return tuple(
        case_of(cascade, fleet, rate, cascade.deadline_s, loss_points(cascade.curve()))
        for cascade, rate in zip(cascades, rates, strict=True)
    )


@pytest.mark.parametrize("rates", [(100.0, 100.0, 5.0), (1e5, 1.0, 1.0), (1e9, 1e9, 1e9)])
def test_overload_sheds_the_same_share_of_every_demand_and_draws_all_light(rates: tuple[float, ...]) -> None:
    cases = of_published(8, rates)
    got = share(cases, make_solver("highs"))
    assert got.carried < 1
    for case, solution in zip(cases, got.solutions, strict=True):
        assert solution and solution.heavy is None
        # The least a GPU draws may be more than the share of a small demand.
        assert 0.9 * solution.throughput("light") >= case.demand * got.carried * (1 - 1e-6)
    assert sum(sum(got.gpus(place).values()) for place in range(3)) <= 8


def test_shedding_wastes_little_of_what_the_slots_could_draw() -> None:
    (case,) = of_published(8, (1_000.0,))
    got = share([case], make_solver("highs"))
    fastest = max(choice.throughput for choice in case.light)
    assert got.carried * case.demand == pytest.approx(0.9 * 8 * fastest, rel=0.1)


def test_with_fewer_slots_than_cascades_the_largest_demands_are_served() -> None:
    got = share(of_published(2, (1.0, 5.0, 2.0)), make_solver("highs"))
    assert [solution is not None for solution in got.solutions] == [False, True, True]
    assert sum(got.gpus(0).values()) == 0


def test_a_cascade_that_no_batch_serves_in_time_gets_nothing_and_the_others_share() -> None:
    cases = of_published(8, (2.0, 2.0))
    hopeless = replace(cases[0], light=())
    got = share((hopeless, cases[1]), make_solver("highs"))
    assert got.solutions[0] is None
    assert got.solutions[1] is not None and got.carried == 1
    assert share((), make_solver("highs")).solutions == ()
    assert share((hopeless,), make_solver("highs")).solutions == (None,)


def test_no_slot_at_all_is_no_exception() -> None:
    assert share(of_published(0, (1.0, 2.0)), make_solver("highs")).solutions == (None, None)


def test_a_cascade_alone_is_planned_as_without_sharing() -> None:
    for rate in (1.0, 10.0, 20.0):
        (case,) = of_published(16, (rate,))
        assert share([case], make_solver("highs")).solutions == (make_solver("exhaustive").solve(case),)


def test_a_program_too_large_to_be_proved_is_answered_all_the_same() -> None:
    kinds = {f"type-{place}": pace for place, pace in enumerate((0.5, 0.8, 1.0, 1.7))}
    fleet = tuple(Slot("node", number, list(kinds)[number % 4]) for number in range(64))
    cascades = [
        of_types("sdturbo", {gpu: pace * (1 + place / 10) for gpu, pace in kinds.items()}) for place in range(8)
    ]
    cases = [case_of(each, fleet, 4.0, 5.0, loss_points(each.curve())) for each in cascades]
    assert len(build(*cases).columns) >= LARGE
    got = share(cases, make_solver("highs"))
    assert got.carried == 1
    for place, pool in enumerate(cases[0].pools):
        used = [solution.light_on[place] + solution.heavy_on[place] for solution in got.solutions if solution]
        assert len(used) == 8 and sum(used) <= pool.slots
    for case, solution in zip(cases, got.solutions, strict=True):
        assert solution and 0.9 * solution.throughput("light") >= case.demand * (1 - 1e-6)
        assert solution.loss < 0.6  # all light is 1
