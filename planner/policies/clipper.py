"""`clipper-light`, `clipper-heavy`: one model for every prompt, after Clipper (NSDI 2017). No cascade, no choice.

All slots draw with that model, in the largest batch that meets the deadline; workers take what waits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from planner.demand import forecast
from planner.drafting import NO_LOSS, Policy, Setup, all_light, as_seen, draft
from planner.fleet import WAIT_SHARE, Choice, choices_of
from planner.milp import Case, case_of
from shared.plans import Plan, View
from shared.schema import Stage

SENT_HEAVY: Final = {"light": 0.0, "heavy": 1.0}


def clipper_light(setup: Setup) -> Policy:
    """Every prompt is drawn by the light model, and that is the answer."""
    return _clipper(setup, "light")


def clipper_heavy(setup: Setup) -> Policy:
    """Every prompt goes straight to the heavy model, without a light picture. All light where none can run heavy."""
    return _clipper(setup, "heavy")


def _clipper(setup: Setup, stage: Stage) -> Policy:
    name = f"clipper-{stage}"

    def policy(view: View) -> Plan:
        cascade = as_seen(setup.cascade, view)
        case = case_of(cascade, view.slots, forecast(view.offered).planned, setup.deadline_s, NO_LOSS)
        choices = choices_of(cascade, stage, case.pools, WAIT_SHARE)
        able = _able(case, stage, choices[0])
        largest = max(
            (choice for choice in choices if choice.latency_on(able) <= case.deadline_s),
            key=lambda choice: choice.batch,
            default=choices[0],
        )
        if not any(able):
            return draft(name, view, cascade, case, all_light(case, cascade), _why_not(case, stage))
        light, nobody = all_light(case, cascade), (0,) * len(able)
        staffed = {
            "light": replace(light, light_on=able, light=largest),
            "heavy": replace(light, light_on=nobody, heavy_on=able, heavy=largest),
        }
        plan = draft(name, view, cascade, case, staffed[stage], f"every prompt is drawn {stage}, whatever the demand")
        # Nobody looks at a picture, so what is heavy was chosen as if by lot.
        return replace(plan, heavy_direct=SENT_HEAVY[stage], lot=stage == "heavy")

    return policy


def _able(case: Case, stage: Stage, smallest: Choice) -> tuple[int, ...]:
    """Slots of each pool that can run the stage; none where the GPU is too slow even for the smallest batch."""
    pairs = zip(case.pools, smallest.latencies, strict=True)
    return tuple(pool.limit(stage) if latency_s <= case.deadline_s else 0 for pool, latency_s in pairs)


def _why_not(case: Case, stage: Stage) -> str:
    if not case.slots:
        return "no slot is there"
    if not sum(pool.limit(stage) for pool in case.pools):
        return f"no slot can run {stage}"
    return f"no {stage} batch meets the deadline of {case.deadline_s:g} s"
