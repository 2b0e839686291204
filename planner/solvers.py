"""Who solves the program: Gurobi, HiGHS, or exhaustive search over the batch pairs.

All three give the same solution of a case: the objectives leave one optimum, and a test holds them
together. Exhaustive search is exact because a case holds one GPU type (or its slowest).
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np

from planner.milp import TOLERANCE, Case, Choice, Points, Solution, best_share, build, decode, finish, order_steps
from planner.program import Objective, Program
from shared.errors import SettingsError

Values = tuple[float, ...] | None
Engine = Callable[[Program], Values]

ROOT: Final = Path(__file__).resolve().parent.parent
SLACK: Final = 1e-6  # feasibility tolerance of the solvers, so that search rounds as they do
CASES_KEPT: Final = 512
HIGHS_OPTIONS: Final[Mapping[str, object]] = {
    "output_flag": False,
    "threads": 1,
    "mip_rel_gap": 0.0,
    "mip_abs_gap": SLACK,
    # Made for large programs: on ours they take half the time and find what the root relaxation finds.
    "mip_allow_restart": False,
    "mip_heuristic_effort": 0.0,
    "mip_heuristic_run_feasibility_jump": False,
    "mip_heuristic_run_rens": False,
    "mip_heuristic_run_rins": False,
    "mip_heuristic_run_root_reduced_cost": False,
}

_log = logging.getLogger("cascade")


class Solver:
    """Solves cases and remembers their solutions: a case that comes back is not solved again.

    `name` says who solves now: Gurobi gives way to HiGHS, with one log line, where its licence fails.
    """

    def __init__(self, name: str, answer: Callable[[Case], Solution | None]) -> None:
        self.name = name
        self._answer = answer
        self.solve = lru_cache(maxsize=CASES_KEPT)(self._solve)

    def _solve(self, case: Case) -> Solution | None:
        """The solution, or None where no number of workers meets demand and deadline."""
        if not (case.light and case.light_slots):
            return None
        try:
            return self._answer(case)
        except _LicenceFailed as wrong:
            self.name, self._answer = "highs", _by_program(highs)
            _log.warning("Gurobi is not to be had, HiGHS solves instead", extra={"reason": str(wrong)})
            return self._answer(case)


class _LicenceFailed(Exception):
    """Gurobi is not installed, or its licence is missing, expired, too small or out of reach."""


def make_solver(name: str = "auto", environment: Mapping[str, str] = os.environ, root: Path = ROOT) -> Solver:
    """The solver of that name; raises SettingsError for an unknown one.

    `auto` takes Gurobi where a licence is found, HiGHS otherwise; `gurobi` makes do with the licence
    bundled with gurobipy, which is for evaluation only.
    """
    licence = find_licence(environment, root)
    if name == "auto":
        name = "gurobi" if licence else "highs"
    if name == "gurobi":
        return Solver(name, _by_program(_Gurobi(licence)))
    answers = {"highs": _by_program(highs), "exhaustive": exhaustive}
    if name not in answers:
        raise SettingsError(f"solver: {name!r} is none of auto, gurobi, {', '.join(answers)}")
    return Solver(name, answers[name])


def _by_program(engine: Engine) -> Callable[[Case], Solution | None]:
    def answer(case: Case) -> Solution | None:
        values = engine(build(case))
        return None if values is None else decode(case, values)

    return answer


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
        model.changeColsCost(len(costs), np.arange(len(costs), dtype=np.int32), costs)
        model.run()
        if model.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return values
        values = tuple(model.getSolution().col_value)
        places, costs = np.array([p for p, _ in objective.terms], np.int32), np.array([c for _, c in objective.terms])
        model.addRow(-highspy.kHighsInf, _bound(objective, values), len(places), places, costs)
    return values


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


class _Gurobi:
    """Solves with Gurobi; the environment is opened once, at the first program."""

    def __init__(self, licence: Path | None) -> None:
        self._licence = licence
        self._environment: Any = None

    def __call__(self, program: Program) -> Values:
        try:
            import gurobipy  # loaded late: it may not be installed
        except ImportError as wrong:
            raise _LicenceFailed(wrong) from None
        try:
            self._environment = self._environment or self._open(gurobipy)
            return self._solve(gurobipy, program)
        except gurobipy.GurobiError as wrong:
            raise _LicenceFailed(wrong) from None

    def _open(self, gurobipy: Any) -> Any:
        if self._licence:
            os.environ["GRB_LICENSE_FILE"] = str(self._licence)  # the one way Gurobi is told of a file
        environment = gurobipy.Env(empty=True)
        for name, value in (("OutputFlag", 0), ("Threads", 1), ("MIPGap", 0.0), ("MIPGapAbs", SLACK)):
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
                model.optimize()
                if model.Status != gurobipy.GRB.OPTIMAL:
                    return values
                values = tuple(model.getAttr("X", columns))
                model.addLConstr(total, "<", _bound(objective, values))
            return values


def _gurobi_sum(gurobipy: Any, columns: list[Any], terms: tuple[tuple[int, float], ...]) -> Any:
    return gurobipy.LinExpr([value for _, value in terms], [columns[place] for place, _ in terms])


def exhaustive(case: Case) -> Solution | None:
    """Try every pair of batch sizes with the fewest workers that serve; None where infeasible."""
    roomiest = [_most_heavy(case, *pair) for pair in batch_pairs(case)]
    if not roomiest:
        return None
    bound = min(solution.loss for solution in roomiest) + TOLERANCE
    share = _least_share(case.loss, bound)
    heavy_step, light_step = order_steps(case)
    best: tuple[tuple[float, ...], Solution] | None = None
    for light_workers, light, heavy in batch_pairs(case):
        heavy_workers = max(1, workers_for(share * case.demand, heavy, case.headroom)) if heavy else 0
        if heavy_workers > _room(case, light_workers) or (heavy is None and share > SLACK):
            continue
        counts = (light_workers, heavy_workers)
        switches = sum(abs(now - before) for now, before in zip(counts, case.counts or counts, strict=True))
        order = light_step * (case.light.index(light) + 1) + light_workers
        order += heavy_step * (case.heavy.index(heavy) + 1) if heavy else 0
        key = (float(sum(counts)), float(switches), order)
        if best is None or key < best[0]:
            best = key, finish(case, *counts, light, heavy)
    return best[1] if best else None


def batch_pairs(case: Case) -> Iterator[tuple[int, Choice, Choice | None]]:
    """Batch pairs that meet the deadline, with the fewest light workers that carry the demand."""
    for light, heavy in product(case.light, (None, *case.heavy)):
        latency_s = light.latency_s + (heavy.latency_s if heavy else 0.0)
        workers = max(1, workers_for(case.demand, light, case.headroom))
        if latency_s <= case.deadline_s + SLACK and workers <= min(case.slots, case.light_slots):
            yield workers, light, heavy


def workers_for(rate: float, choice: Choice, headroom: float) -> int:
    """The fewest workers whose full batches draw `rate` prompts/s with headroom to spare."""
    return math.ceil(rate / (headroom * choice.throughput) - SLACK)


def _room(case: Case, light_workers: int) -> int:
    return min(case.heavy_slots, case.slots - light_workers)


def _most_heavy(case: Case, light_workers: int, light: Choice, heavy: Choice | None) -> Solution:
    return finish(case, light_workers, _room(case, light_workers) if heavy else 0, light, heavy)


def _least_share(loss: Points, bound: float) -> float:
    """The smallest heavy share whose loss is within the bound."""
    before = loss[0]
    if before[1] <= bound:
        return before[0]
    for after in loss[1:]:
        if after[1] <= bound:
            return before[0] + (after[0] - before[0]) * (before[1] - bound) / (before[1] - after[1])
        before = after
    return best_share(loss, 1.0)[0]
