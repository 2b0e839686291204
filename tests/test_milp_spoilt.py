"""A program that is wrong in one place gives a wrong plan, and the comparison with the oracle shows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from planner import formulation
from planner.engines import highs
from planner.formulation import build, decode
from planner.milp import Case
from planner.program import HEAVIEST, Objective, Program, Row, folded
from planner.search import exhaustive
from tests.random_cases import Cases, Found, cases, found, mixed_cases


def goes_wrong(spoil: Callable[[Program], Program], among: Cases) -> bool:
    """Whether HiGHS answers any of the cases wrongly once their program is spoilt."""
    return any(answer(spoil(build(case)), case) != right for case, right in among())


def answer(program: Program, case: Case) -> Found:
    values = highs(program)
    return None if values is None else found(case, decode(case, values))


def drop_row(name: str) -> Callable[[Program], Program]:
    return lambda program: replace(program, rows=tuple(row for row in program.rows if not row.name.startswith(name)))


def flip(row: Row) -> Row:
    return replace(row, lower=-row.upper, upper=-row.lower)


def flip_row(name: str) -> Callable[[Program], Program]:
    return lambda program: replace(program, rows=tuple(flip(r) if r.name.startswith(name) else r for r in program.rows))


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


@pytest.mark.parametrize("name", [*ROWS, "workers only at the batch used"])
@pytest.mark.parametrize("among", [cases, mixed_cases])
def test_a_dropped_constraint_is_found_out(among: Cases, name: str) -> None:
    assert goes_wrong(drop_row(name), among)


@pytest.mark.parametrize("name", ["one batch of heavy", "left", "slots of"])
def test_a_constraint_that_matters_with_several_gpu_types_is_found_out(name: str) -> None:
    assert goes_wrong(drop_row(name), mixed_cases)


def test_a_dropped_segment_is_found_out_where_the_loss_is_not_convex() -> None:
    # Straight lines past the hump promise a loss that no share within reach of these workers has.
    hump = [replace(case, loss=((0.0, 0.5), (0.5, 1.0), (1.0, 0.0))) for case, _ in cases()[:60]]
    for name in ("one segment", "weights beside the segment"):
        spoil = drop_row(name)
        assert any(answer(spoil(build(case)), case) != found(case, exhaustive(case)) for case in hump)


@pytest.mark.parametrize("name", ROWS[:5])
@pytest.mark.parametrize("among", [cases, mixed_cases])
def test_a_wrong_sign_is_found_out(among: Cases, name: str) -> None:
    assert goes_wrong(flip_row(name), among)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("among", [cases, mixed_cases])
def test_a_broken_objective_is_found_out(among: Cases, place: int) -> None:
    assert goes_wrong(drop_objective(place), among)
    assert goes_wrong(reverse_objective(place), among)


@pytest.mark.parametrize("name", ["workers", "switches", "heavy batch", "light batch", "light on 0", "heavy on 0"])
def test_every_objective_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(objectives: Sequence[Objective]) -> tuple[Objective, ...]:
        kept = [objective for objective in objectives if objective.name != name]
        assert len(kept) < len(objectives) or name == "switches"
        return folded(kept)

    monkeypatch.setattr(formulation, "folded", without)
    assert goes_wrong(lambda program: program, mixed_cases)


def test_folded_objectives_keep_their_order_and_large_ones_stay_apart() -> None:
    small = [Objective(name, ((place, 1.0),), 0.5, 9) for place, name in enumerate("abc")]
    (one,) = folded(small)
    assert dict(one.terms) == {0: 100.0, 1: 10.0, 2: 1.0}
    large = [replace(objective, span=HEAVIEST) for objective in small]
    assert folded(large) == tuple(large)
