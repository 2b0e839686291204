"""The policies by name. Each is a function from a View to a Plan; a new one is a file and a row here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from planner.drafting import Policy, Setup
from planner.policies.diffserve import diffserve
from planner.policies.quality import quality
from planner.solvers import make_solver
from shared.catalog import Cascade
from shared.errors import SettingsError
from shared.plans import Plan, View

POLICIES: Final[Mapping[str, Callable[[Setup], Policy]]] = {"quality": quality, "diffserve": diffserve}


def make_policy(
    name: str,
    cascade: Cascade,
    deadline_s: float,
    solver: str = "auto",
    dwell_s: float = 3.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Policy:
    """The policy of that name; its plans say who solved and in how many milliseconds of `clock`.

    Raises SettingsError for an unknown policy or solver, or a cascade without a quality curve.
    """
    if name not in POLICIES:
        raise SettingsError(f"policy: no {name!r}; there are {', '.join(POLICIES)}")
    setup = Setup(cascade, deadline_s, make_solver(solver), dwell_s)
    decide = POLICIES[name](setup)

    def policy(view: View) -> Plan:
        began = clock()
        plan = decide(view)
        if plan is view.plan:
            return plan
        return replace(plan, solver=setup.solver.name, solve_ms=round((clock() - began) * 1e3, 3))

    return policy
