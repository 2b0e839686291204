"""`diffserve`: the published baseline (MLSys 2025, arXiv 2411.15381), as its artifact plans.

The highest threshold, which is the largest heavy share, on one slot fewer than there are; demand an
exponential average times 1.2; waits by Little's law taken from the deadline; a new plan every 5 s.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from planner.demand import averaged
from planner.drafting import Policy, Setup, all_light, draft, no_plan, paced
from planner.milp import case_of
from planner.spares import spread
from shared.plans import Plan, View

NAME: Final = "diffserve"
PERIOD_S: Final = 5.0
COM: Final = 2.1
COUNTS: Final = 20  # one-second counts in the average
MARGIN: Final = 1.2
HIGHEST_SHARE: Final = ((0.0, 1.0), (1.0, 0.0))  # a loss that only wants the share, and so the threshold, high


def diffserve(setup: Setup) -> Policy:
    """As published, except where it would stop planning: offered prompts are counted, not those in flight,
    an infeasible program gives the plan that all policies share, and two slots or fewer are all used."""

    def policy(view: View) -> Plan:
        if view.plan and view.plan.policy == NAME and 0 <= view.now - view.plan.made < PERIOD_S:
            return view.plan
        cascade = paced(setup.cascade, view.pace)
        counts = [float(min(count, 10**9)) for count in view.offered[-COUNTS:]]
        demand = averaged(counts, COM) * MARGIN if counts else 0.0
        left_s = setup.deadline_s - _queueing_s(view, demand)
        case = case_of(cascade, view.slots, demand, left_s, HIGHEST_SHARE, wait_share=0.0)
        case = replace(case, headroom=1.0, slots=case.slots - 1 if case.slots > 2 else case.slots)
        solution = setup.solver.solve(case)
        if solution is None:
            return draft(NAME, view, cascade, case, all_light(case, cascade), no_plan(case))
        # Any count of workers is an optimum of the published program once it carries the share.
        light, heavy = spread(case, solution)
        staffed = replace(solution, light_workers=light, heavy_workers=heavy)
        plan = draft(NAME, view, cascade, case, staffed, "highest threshold that the slots carry")
        return replace(plan, heavy_hold_s=0.0)  # its workers take what waits

    return policy


def _queueing_s(view: View, demand: float) -> float:
    """Queueing delay of both stages by Little's law: those who wait, over the rate at which they come."""
    if demand <= 0:
        return 0.0
    heavy_share = (view.plan.heavy_share if view.plan else 0.0) or 1.0
    light_s = view.waiting.get("light", 0) / demand
    return round(light_s + view.waiting.get("heavy", 0) / (demand * heavy_share), 1)
