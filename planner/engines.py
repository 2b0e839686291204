"""Who solves a program: HiGHS, or Gurobi where a licence is found."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from planner.program import HALF, SLACK, Objective, Program

Values = tuple[float, ...] | None
Engine = Callable[[Program], Values]

ROOT: Final = Path(__file__).resolve().parent.parent
HIGHS_OPTIONS: Final[Mapping[str, object]] = {
    "output_flag": False,
    "threads": 1,
    "mip_rel_gap": 0.0,
    # Made for large programs: on ours they take half the time and find what the root relaxation finds.
    "mip_allow_restart": False,
    "mip_heuristic_effort": 0.0,
    "mip_heuristic_run_feasibility_jump": False,
    "mip_heuristic_run_rens": False,
    "mip_heuristic_run_rins": False,
    "mip_heuristic_run_root_reduced_cost": False,
}

LARGE: Final = 400  # columns: eight cascades on four GPU types take half a minute to prove what is found in seconds
FEW_NODES: Final = 100
MANY_NODES: Final = 1_000_000


class LicenceFailed(Exception):
    """Gurobi is not installed, or its licence is missing, expired, too small or out of reach."""


def find_licence(environment: Mapping[str, str], root: Path = ROOT) -> Path | None:
    """Gurobi's licence: GRB_LICENSE_FILE, then gurobi/gurobi.lic at the root, then Gurobi's own places."""
    if environment.get("GRB_LICENSE_FILE"):
        return Path(environment["GRB_LICENSE_FILE"])
    own = [Path(environment[name]) for name in ("GUROBI_HOME", "HOME") if environment.get(name)]
    own += [*sorted(Path("/opt").glob("gurobi*"), reverse=True), Path("/Library/gurobi")]
    places = [root / "gurobi", *own]
    return next((place / "gurobi.lic" for place in places if (place / "gurobi.lic").is_file()), None)


def highs(program: Program) -> Values:
    """Solve with HiGHS, one objective after the other; None where infeasible."""
    import highspy  # loaded late: it is slow to load, and most processes never solve

    model = highspy.Highs()
    for option, value in HIGHS_OPTIONS.items():
        model.setOptionValue(option, value)
    model.passModel(_highs_model(highspy, program))
    values: Values = None
    for objective in program.objectives:
        costs = np.zeros(len(program.columns))
        for place, cost in objective.terms:
            costs[place] = cost
        model.setOptionValue("mip_abs_gap", max(objective.gap, SLACK))
        model.changeColsCost(len(costs), np.arange(len(costs), dtype=np.int32), costs)
        if values is not None:
            model.setSolution(model.getSolution())  # the last optimum is a good start
        if not _found(highspy, model, len(program.columns)):
            return values
        values = tuple(model.getSolution().col_value)
        places, costs = np.array([p for p, _ in objective.terms], np.int32), np.array([c for _, c in objective.terms])
        model.addRow(-highspy.kHighsInf, _bound(objective, values), len(places), places, costs)
        for place in _settled(objective, values):
            model.changeColBounds(place, 0.0, 0.0)
    return values


def _found(highspy: Any, model: Any, columns: int) -> bool:
    """Run the model; whether it has an answer, which from LARGE on is the best of FEW_NODES nodes."""
    for nodes in [FEW_NODES] * (columns >= LARGE) + [MANY_NODES]:
        model.setOptionValue("mip_max_nodes", nodes)
        model.run()
        status = model.getModelStatus()
        if status == highspy.HighsModelStatus.kOptimal:
            return True
        if status == highspy.HighsModelStatus.kSolutionLimit and math.isfinite(model.getInfo().mip_gap):
            return True
        if status != highspy.HighsModelStatus.kSolutionLimit:
            return False
    return False


def _highs_model(highspy: Any, program: Program) -> Any:
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(program.columns), len(program.rows)
    model.col_cost_ = np.zeros(len(program.columns))
    model.col_lower_ = np.array([column.lower for column in program.columns])
    model.col_upper_ = np.array([column.upper for column in program.columns])
    model.row_lower_ = np.array([row.lower for row in program.rows])
    model.row_upper_ = np.array([row.upper for row in program.rows])
    kinds = highspy.HighsVarType
    model.integrality_ = [kinds.kInteger if column.integer else kinds.kContinuous for column in program.columns]
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.cumsum([0, *(len(row.terms) for row in program.rows)])
    model.a_matrix_.index_ = np.array([place for row in program.rows for place, _ in row.terms], np.int32)
    model.a_matrix_.value_ = np.array([value for row in program.rows for _, value in row.terms])
    return model


def _bound(objective: Objective, values: tuple[float, ...]) -> float:
    return sum(cost * values[place] for place, cost in objective.terms) + objective.tolerance


def _settled(objective: Objective, values: tuple[float, ...]) -> Iterator[int]:
    """Columns that stay zero from here on."""
    for group in objective.settles:
        if all(values[place] < HALF for place in group):
            yield from group


class Gurobi:
    """Solves with Gurobi; the environment is opened once, at the first program."""

    def __init__(self, licence: Path | None) -> None:
        self._licence = licence
        self._environment: Any = None

    def __call__(self, program: Program) -> Values:
        try:
            import gurobipy  # loaded late: it may not be installed
        except ImportError as wrong:
            raise LicenceFailed(wrong) from None
        try:
            self._environment = self._environment or self._open(gurobipy)
            return self._solve(gurobipy, program)
        except gurobipy.GurobiError as wrong:
            raise LicenceFailed(wrong) from None

    def _open(self, gurobipy: Any) -> Any:
        if self._licence:
            os.environ["GRB_LICENSE_FILE"] = str(self._licence)  # the one way Gurobi is told of a file
        environment = gurobipy.Env(empty=True)
        for name, value in (("OutputFlag", 0), ("Threads", 1), ("MIPGap", 0.0)):
            environment.setParam(name, value)
        environment.start()
        return environment

    def _solve(self, gurobipy: Any, program: Program) -> Values:
        with gurobipy.Model(env=self._environment) as model:
            columns = [
                model.addVar(c.lower, c.upper, vtype="I" if c.integer else "C", name=c.name) for c in program.columns
            ]
            for row in program.rows:
                total = _gurobi_sum(gurobipy, columns, row.terms)
                if row.lower > -math.inf:
                    model.addLConstr(total, ">", row.lower)
                if row.upper < math.inf:
                    model.addLConstr(total, "<", row.upper)
            values: Values = None
            for objective in program.objectives:
                total = _gurobi_sum(gurobipy, columns, objective.terms)
                model.setObjective(total)
                model.Params.MIPGapAbs = max(objective.gap, SLACK)
                model.optimize()
                if model.Status != gurobipy.GRB.OPTIMAL:
                    return values
                values = tuple(model.getAttr("X", columns))
                model.addLConstr(total, "<", _bound(objective, values))
                for place in _settled(objective, values):
                    columns[place].UB = 0.0
            return values


def _gurobi_sum(gurobipy: Any, columns: list[Any], terms: tuple[tuple[int, float], ...]) -> Any:
    return gurobipy.LinExpr([value for _, value in terms], [columns[place] for place, _ in terms])
