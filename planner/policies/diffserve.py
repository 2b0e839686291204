"""`diffserve`: the published baseline (MLSys 2025, arXiv 2411.15381), as its artifact plans.

The highest threshold, which is the largest heavy share, on one slot fewer than there are; demand an
exponential average times 1.2; waits by Little's law taken from the deadline; a new plan every 5 s.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from planner.demand import averaged
from planner.drafting import Policy, Setup, all_light, as_seen, draft, no_plan
from planner.milp import Case, case_of
from planner.spares import spread
from shared.catalog import Cascade
from shared.plans import Plan, View

NAME: Final = "diffserve"
TICK_S: Final = 1.0
PERIOD_S: Final = 5.0  # one tick in five makes a plan
COM: Final = 2.1
COUNTS: Final = 20  # one-second counts in the average
MARGIN: Final = 1.2
HIGHEST_SHARE: Final = ((0.0, 1.0), (1.0, 0.0))  # a loss that only wants the share, and so the threshold, high


def diffserve(setup: Setup) -> Policy:
    """As published, except where it would stop planning: offered prompts are counted, not those in flight,
    an infeasible program gives the plan that all policies share, and two slots or fewer are all used."""

    def policy(view: View) -> Plan:
        # By the clock, not by the age of the plan in force: one that came out the same again was not put in force.
        if view.plan and view.plan.policy == NAME and view.now % PERIOD_S >= TICK_S:
            return view.plan
        cascade = as_seen(setup.cascade, view)
        counts = [float(min(count, 10**9)) for count in view.offered[-COUNTS:]]
        demand = averaged(counts, COM) * MARGIN if counts else 0.0
        queueing_s = _queueing_s(view, demand)
        case = _published(cascade, view, demand, setup.deadline_s - queueing_s)
        solution = setup.solver.solve(case)
        if solution is None:
            # Queues leave no time for any batch: the answer is the largest throughput, not the smallest batch.
            whole = _published(cascade, view, demand, setup.deadline_s)
            why = no_plan(whole) if setup.solver.solve(whole) is None else f"queues of {queueing_s:g} s: all light"
            return draft(NAME, view, cascade, whole, all_light(whole, cascade), why)
        # Any count of workers is an optimum of the published program once it carries the share.
        plan = draft(NAME, view, cascade, case, spread(case, solution), "highest threshold that the slots carry")
        return replace(plan, heavy_hold_s=0.0)  # its workers take what waits

    return policy


def _published(cascade: Cascade, view: View, demand: float, left_s: float) -> Case:
    """The published program: no headroom, no wait in the deadline but the measured one, one slot kept back."""
    case = case_of(cascade, view.slots, demand, left_s, HIGHEST_SHARE, wait_share=0.0)
    return replace(case, headroom=1.0, slots=case.slots - 1 if case.slots > 2 else case.slots)


def _queueing_s(view: View, demand: float) -> float:
    """Queueing delay of both stages by Little's law: those who wait, over the rate at which they come."""
    if demand <= 0:
        return 0.0
    heavy_share = (view.plan.heavy_share if view.plan else 0.0) or 1.0
    light_s = view.waiting.get("light", 0) / demand
    return round(light_s + view.waiting.get("heavy", 0) / (demand * heavy_share), 1)
