"""The policies by name. Each is a function from a View to a Plan; a new one is a file and a row here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from planner.drafting import Policy, Setup
from planner.policies.clipper import clipper_heavy, clipper_light
from planner.policies.diffserve import diffserve
from planner.policies.hybrid import hybrid
from planner.policies.lot import by_lot
from planner.policies.pinned import pinned as pinned_to_a_file
from planner.policies.proteus import proteus
from planner.policies.quality import quality
from planner.policies.static import static
from planner.solvers import make_solver
from shared.catalog import Cascade
from shared.config import Resident
from shared.errors import SettingsError
from shared.plans import Plan, View

POLICIES: Final[Mapping[str, Callable[[Setup], Policy]]] = {
    "quality": quality,
    "diffserve": diffserve,
    "clipper-light": clipper_light,
    "clipper-heavy": clipper_heavy,
    "proteus": proteus,
    "static": static,
    "hybrid": hybrid,
    "random": by_lot,
    "pinned": pinned_to_a_file,
}
UNSOLVED: Final = frozenset(("clipper-light", "clipper-heavy", "proteus", "pinned"))  # no program, so no solver


def make_policy(
    name: str,
    cascade: Cascade,
    deadline_s: float,
    solver: str = "auto",
    dwell_s: float = 3.0,
    clock: Callable[[], float] = time.perf_counter,
    peak: float | None = None,
    pinned: Path | None = None,
    resident: Resident = True,
) -> Policy:
    """The policy of that name; its plans say who solved and in how many milliseconds of `clock`.

    `peak`: the most prompts/s to come, which `static` needs. `pinned`: the file with the plan of `pinned`.
    `resident`: where the models of a slot stay. Raises SettingsError for an unknown policy or solver, a cascade
    without a quality curve, or where the policy lacks its peak or its file.
    """
    if name not in POLICIES:
        raise SettingsError(f"policy: no {name!r}; there are {', '.join(POLICIES)}")
    setup = Setup(cascade, deadline_s, make_solver(solver), dwell_s, peak, pinned, resident)
    decide = POLICIES[name](setup)
    if name in UNSOLVED:
        return decide

    def policy(view: View) -> Plan:
        began = clock()
        plan = decide(view)
        if plan is view.plan:
            return plan
        return replace(plan, solver=setup.solver.name, solve_ms=round((clock() - began) * 1e3, 3))

    return policy
