"""Which solver solves: licences, and who gives way to whom."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from planner.engines import find_licence
from planner.solvers import make_solver
from shared.errors import SettingsError
from tests.random_cases import cases, found, mixed_cases

ANY_LICENCE = {"GRB_LICENSE_FILE": ""}


def test_exhaustive_search_gives_way_to_highs_before_several_gpu_types(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("cascade"), "propagate", True)
    solver = make_solver("exhaustive")
    for case, right in [*mixed_cases()[:5], *cases()[:5]]:
        assert found(case, solver.solve(case)) == right
    assert solver.name == "highs"
    assert len(caplog.records) == 1


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
    for case, right in cases()[:5]:
        assert found(case, solver.solve(case)) == right
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
