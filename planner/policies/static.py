"""`static`: the plan for the peak, solved once; what the load does changes nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Final

from planner.drafting import Policy, Setup, all_light, binding, draft, no_plan
from planner.milp import case_of, loss_points
from planner.spares import refit, spread
from shared.errors import SettingsError
from shared.plans import Plan, Slot, View

NAME: Final = "static"
FLEETS_KEPT: Final = 256


def static(setup: Setup) -> Policy:
    """Best quality at `peak_per_s`, with profiles and scores as recorded; solved again only for another fleet.

    Slots come one by one when a deployment starts and go when a node dies: a plan for other slots would be none.
    """
    peak = setup.peak_per_s
    if peak is None or not 0 < peak < math.inf:
        raise SettingsError("peak_per_s: the policy `static` is solved for the peak; give it in prompts/s")
    loss = loss_points(setup.cascade.curve())

    @lru_cache(maxsize=FLEETS_KEPT)
    def solved(slots: tuple[Slot, ...]) -> Plan:
        case = case_of(setup.cascade, slots, peak, setup.deadline_s, loss)
        needed = setup.solver.solve(case)
        nothing_seen = View(0.0, (), slots)
        if needed is None:
            return draft(NAME, nothing_seen, setup.cascade, case, all_light(case, setup.cascade), no_plan(case))
        staffed = refit(case, spread(case, needed).staff) or needed
        why = f"solved once for a peak of {peak:g} prompts/s: {binding(case, staffed)}"
        return draft(NAME, nothing_seen, setup.cascade, case, staffed, why)

    return lambda view: replace(solved(view.slots), made=view.now)
