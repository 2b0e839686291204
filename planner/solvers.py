"""The solvers by name: Gurobi, HiGHS, or exhaustive search over the batch pairs.

All three give the same solution of a case: the objectives leave one optimum, and a test holds them together.

Of fleets beyond 256 slots with several types or cascades, answers lie within a gap (`formulation`) and may differ.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

from planner.engines import ROOT, Engine, Gurobi, LicenceFailed, Values, find_licence, highs
from planner.formulation import build, decode
from planner.milp import Case, Solution
from planner.program import Program
from planner.search import exhaustive
from shared.errors import SettingsError

CASES_KEPT: Final = 512

_log = logging.getLogger("cascade")


class Solver:
    """Solves cases and remembers their solutions: a case that comes back is not solved again.

    `name` says who solves now. Gurobi gives way to HiGHS where its licence fails, exhaustive search where it
    meets GPUs of several types, for which it is not exact; each says so in one log line.
    """

    def __init__(self, name: str, engine: Engine = highs) -> None:
        self.name = name
        self._engine = engine
        self.solve = lru_cache(maxsize=CASES_KEPT)(self._solve)

    def run(self, program: Program) -> Values:
        """The values of a program's columns, or None where it is infeasible."""
        if self.name == "exhaustive":
            self._give_way("exhaustive search is for one cascade and one GPU type")
        try:
            return self._engine(program)
        except LicenceFailed as wrong:
            self._give_way(f"Gurobi is not to be had: {wrong}")
            return self._engine(program)

    def _solve(self, case: Case) -> Solution | None:
        """The solution, or None where no number of workers meets demand and deadline."""
        if not (case.light and case.light_slots):
            return None
        if self.name == "exhaustive" and len(case.pools) == 1:
            return exhaustive(case)
        values = self.run(build(case))
        return None if values is None else decode(case, values)

    def _give_way(self, reason: str) -> None:
        self.name, self._engine = "highs", highs
        _log.warning("HiGHS solves instead", extra={"reason": reason})


def make_solver(name: str = "auto", environment: Mapping[str, str] = os.environ, root: Path = ROOT) -> Solver:
    """The solver of that name; raises SettingsError for an unknown one.

    `auto` takes Gurobi where a licence is found, HiGHS otherwise; `gurobi` makes do with the licence
    bundled with gurobipy, which is for evaluation only.
    """
    licence = find_licence(environment, root)
    if name == "auto":
        name = "gurobi" if licence else "highs"
    engines: dict[str, Engine] = {"gurobi": Gurobi(licence), "highs": highs, "exhaustive": highs}
    if name not in engines:
        raise SettingsError(f"solver: {name!r} is none of auto, {', '.join(engines)}")
    return Solver(name, engines[name])
