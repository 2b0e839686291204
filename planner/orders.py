"""How a planner obeys what people ordered (`shared/orders.py`): pure, around any policy.

Drained nodes leave the view. Pinned counts go into it as slots that can run one stage only, so that the policy
fits batches and threshold to them; what it leaves idle is staffed all the same. A pinned threshold replaces the plan's.
A pause puts the plan in force in the policy's place: its counts, batches and threshold stay, and slots that come and
go are placed under them. What an order changed, and where it can't be met, is said in the plan's `why`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from planner.deferral import deferral
from planner.drafting import Policy, as_seen
from planner.placement import place
from shared.catalog import Cascade
from shared.orders import Orders
from shared.plans import Plan, View
from shared.schema import STAGES, Stage

BY_ORDER: Final = "; by order: "
Counts = Mapping[Stage, int]


def without_drained(view: View, orders: Orders) -> View:
    """The view without the slots of drained nodes."""
    if not orders.drained:
        return view
    return replace(view, slots=tuple(slot for slot in view.slots if slot.node not in orders.drained))


def obeying(policy: Policy, orders: Orders, cascade: Cascade) -> Policy:
    """The policy under orders; itself where none stands that concerns its plans."""
    if not (orders.paused or orders.pinned):
        return policy

    def obedient(view: View) -> Plan:
        counts = _counts(view, orders)
        fixed = _fixed(view, counts) if counts else view
        plan = view.plan if orders.paused and view.plan is not None else policy(fixed)
        said, stays = list[str](), plan is view.plan
        if counts and not (stays and all(plan.workers(stage) == count for stage, count in counts.items())):
            plan = _staffed(plan, counts, fixed, cascade)
        pins = {stage: pin for stage in STAGES if (pin := orders.workers(stage)) is not None}
        said += [_met(stage, counts[stage], pin) for stage, pin in pins.items()]
        if orders.threshold is not None:
            if not (stays and plan.threshold == orders.threshold):
                plan = _at_threshold(plan, orders.threshold, view, cascade)
            said.append(f"threshold {orders.threshold:g}{_overload(plan)}")
        return replace(plan, why=plan.why.partition(BY_ORDER)[0] + BY_ORDER + ", ".join(said)) if said else plan

    return obedient


def _counts(view: View, orders: Orders) -> Counts:
    """Workers by stage where a count is pinned, as far as there are slots, light first; the rest to the other stage."""
    if orders.light_workers is None and orders.heavy_workers is None:
        return {}
    slots = sum(1 for slot in view.slots if slot.stages)
    able = {stage: sum(stage in slot.stages for slot in view.slots) for stage in STAGES}
    light = orders.light_workers if orders.light_workers is not None else max(1, slots - (orders.heavy_workers or 0))
    light = min(light, able["light"])
    heavy = orders.heavy_workers if orders.heavy_workers is not None else slots
    return {"light": light, "heavy": min(heavy, able["heavy"], slots - light)}


def _fixed(view: View, counts: Counts) -> View:
    """The view with only the slots that so many workers use, each able to run the one stage it is placed on."""
    wanted = Plan("pinned", 0.0, counts["light"], counts["heavy"], 1, 1, 0.0, 0.0)
    assignment = place(wanted, view.slots, view.plan.assignment if view.plan else {}).assignment
    slots = (replace(slot, stages=(assignment[slot.name],)) for slot in view.slots if slot.name in assignment)
    return replace(view, slots=tuple(slots))


def _staffed(plan: Plan, counts: Counts, fixed: View, cascade: Cascade) -> Plan:
    """The plan with these counts; any slot will do, so its seconds are those of the GPUs it is placed on."""
    plan = replace(plan, light_workers=counts["light"], heavy_workers=counts["heavy"], light_on={}, heavy_on={})
    if len({slot.gpu for slot in fixed.slots}) <= 1:
        return plan
    paced = as_seen(cascade, fixed)
    light_s, heavy_s = (_service_s(plan, stage, fixed, paced) for stage in STAGES)
    return replace(plan, light_service_s=light_s, heavy_service_s=heavy_s)


def _service_s(plan: Plan, stage: Stage, fixed: View, cascade: Cascade) -> float:
    """Seconds per batch of the stage in the harmonic mean over its slots, so that `throughput` is theirs together."""
    known = cascade.profiles[stage]
    gpus = [slot.gpu if slot.gpu in known else cascade.gpu for slot in fixed.slots if slot.stages == (stage,)]
    if not gpus:
        return plan.service_s(stage)
    return len(gpus) / sum(1 / cascade.service_s(stage, plan.batch(stage), gpu) for gpu in gpus)


def _met(stage: Stage, count: int, pin: int) -> str:
    return f"{count} {stage} workers" if count == pin else f"{count} of {pin} {stage} workers, more have no slot"


def _at_threshold(plan: Plan, threshold: float, view: View, cascade: Cascade) -> Plan:
    """The plan with this threshold, and nothing that escalates beyond it; at 1 everything escalates."""
    share = 1.0 if threshold >= 1 else deferral(view.scores, cascade.scores).share_below(threshold)
    pinned = replace(plan, threshold=threshold, tie_share=float(threshold >= 1), heavy_share=share)
    return replace(pinned, eager_threshold=0.0, eager_share=0.0)


def _overload(plan: Plan) -> str:
    """Says so where the heavy stage can't draw what the plan sends it: the light pictures stand in for the rest."""
    wanted, drawn = plan.heavy_load * plan.demand, plan.throughput("heavy")
    if plan.heavy_load > 0 and not plan.heavy_workers:
        return ", but nobody draws heavy"
    return f", but heavy draws {drawn:.1f} of {wanted:.1f} prompts/s" if wanted > drawn else ""
