"""`quality`, the default: the best quality that the slots allow for the demand under the deadline."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from planner.deferral import deferral
from planner.demand import forecast
from planner.drafting import Policy, Setup, all_light, as_seen, binding, draft, no_plan
from planner.fleet import Staff
from planner.milp import TOLERANCE, Case, Solution, best_share, case_of, loss_points
from planner.policies.clipper import clipper_heavy
from planner.spares import pressure, refit, spread
from shared.catalog import Cascade
from shared.plans import Plan, View

NAME: Final = "quality"
RELIEF: Final = 0.1  # a fleet is rearranged at equal quality only where its busier stage gains this much


def quality(setup: Setup) -> Policy:
    """Solve the program each time; hold the worker counts still where that costs nothing.

    Counts that changed stand for the dwell, unless the light stage can no longer carry the demand.
    The batches, the heavy share and the threshold follow every plan. Where no slot can run light, for want of its
    weights or of its workers, every new prompt goes straight to heavy: late or unanswered would be worse. Those that
    wait for light by then stay there: a light worker that comes back draws them, else they are dropped when due.
    """
    heavy_alone = clipper_heavy(setup)
    loss = loss_points(setup.cascade.curve())

    def policy(view: View) -> Plan:
        cascade = as_seen(setup.cascade, view)
        case = case_of(cascade, view.slots, forecast(view.offered).planned, setup.deadline_s, loss, view.plan)
        if not case.light_slots and (heavy := heavy_alone(view)).heavy_workers:
            return replace(heavy, policy=NAME, why=f"{no_plan(case)}: heavy draws every new prompt")
        needed = setup.solver.solve(case)
        if needed is None:
            return draft(NAME, view, cascade, case, all_light(case, cascade), no_plan(case))
        dwell_s = setup.dwell_on(view.slots)
        held = view.plan is not None and view.plan.policy == NAME and view.now - view.plan.staffed < dwell_s
        staffed = _staff(case, needed, held)
        return eager(draft(NAME, view, cascade, case, staffed, binding(case, staffed)), view, cascade, case)

    return policy


def eager(plan: Plan, view: View, cascade: Cascade, case: Case) -> Plan:
    """The plan with what may escalate while the heavy stage has room: up to the heavy share of best quality.

    The heavy share of the plan carries headroom and a burst; without this the mean load would leave GPUs idle.
    """
    share, _ = best_share(case.loss, 1.0)
    threshold, _ = deferral(view.scores, cascade.scores).threshold_for(share)
    return replace(plan, eager_threshold=threshold, eager_share=share)


def _staff(case: Case, needed: Solution, held: bool) -> Solution:
    """Staff all slots: as in the plan in force while that is as good or must be held, else anew."""
    wanted = spread(case, needed).staff
    if case.counts is not None and _still_fits(case, case.counts, wanted):
        kept = refit(case, case.counts)
        if kept and (held or _as_good(case, needed, kept, wanted)):
            return kept
    return refit(case, wanted) or needed


def _still_fits(case: Case, staff: Staff, wanted: Staff) -> bool:
    if sum(map(sum, staff)) != sum(map(sum, wanted)):
        return False
    return all(
        light <= pool.light_slots and heavy <= pool.heavy_slots and light + heavy <= pool.slots
        for light, heavy, pool in zip(*staff, case.pools, strict=True)
    )


def _as_good(case: Case, needed: Solution, kept: Solution, wanted: Staff) -> bool:
    if kept.loss > needed.loss + TOLERANCE:
        return False
    return pressure(case, needed, kept.staff) <= pressure(case, needed, wanted) + RELIEF
