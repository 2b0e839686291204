"""`quality`, the default: the best quality that the slots allow for the demand under the deadline."""

from __future__ import annotations

from typing import Final

from planner.demand import forecast
from planner.drafting import Policy, Setup, all_light, binding, draft, no_plan, paced
from planner.milp import TOLERANCE, Case, Solution, case_of, loss_points
from planner.spares import Counts, pressure, refit, spread
from shared.plans import Plan, View

NAME: Final = "quality"
RELIEF: Final = 0.1  # a fleet is rearranged at equal quality only where its busier stage gains this much


def quality(setup: Setup) -> Policy:
    """Solve the program each time; hold the worker counts still where that costs nothing.

    Counts change at most once in each period of `dwell_s` of the view's clock, unless the light stage can
    no longer carry the demand. The batches, the heavy share and the threshold follow every plan.
    """
    loss = loss_points(setup.cascade.curve())

    def policy(view: View) -> Plan:
        cascade = paced(setup.cascade, view.pace)
        before = (view.plan.light_workers, view.plan.heavy_workers) if view.plan else None
        case = case_of(cascade, view.slots, forecast(view.offered).planned, setup.deadline_s, loss, before)
        needed = setup.solver.solve(case)
        if needed is None:
            return draft(NAME, view, cascade, case, all_light(case, cascade), no_plan(case))
        held = view.plan is not None and _same_period(view.now, view.plan, setup.dwell_s)
        staffed = _staff(case, needed, held)
        return draft(NAME, view, cascade, case, staffed, binding(case, staffed))

    return policy


def _same_period(now: float, plan: Plan, dwell_s: float) -> bool:
    # Cutting time into periods needs no memory of the last change, which a restarted planner would not have.
    return plan.policy == NAME and dwell_s > 0 and now // dwell_s == plan.made // dwell_s


def _staff(case: Case, needed: Solution, held: bool) -> Solution:
    """Staff all slots: as in the plan in force while that is as good or must be held, else anew."""
    wanted = spread(case, needed)
    if case.counts is not None and _still_fits(case, case.counts, wanted):
        kept = refit(case, case.counts)
        if kept and (held or _as_good(case, needed, kept, wanted)):
            return kept
    return refit(case, wanted) or needed


def _still_fits(case: Case, counts: Counts, wanted: Counts) -> bool:
    return sum(counts) == sum(wanted) and counts[0] <= case.light_slots and counts[1] <= case.heavy_slots


def _as_good(case: Case, needed: Solution, kept: Solution, wanted: Counts) -> bool:
    if kept.loss > needed.loss + TOLERANCE:
        return False
    counts = (kept.light_workers, kept.heavy_workers)
    return pressure(case, needed, counts) <= pressure(case, needed, wanted) + RELIEF
