"""How fast a run's machines were beside the committed profile: the planner measures it, and its plans hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, mode
from typing import Any, Final

from shared.catalog import Cascade
from shared.plans import Plan
from shared.recording import Recording
from shared.schema import STAGES, Stage

SLOWER: Final = 1.25  # times the profile's seconds: less is the planner's resolution and a machine's mood
UNPACED: Final = frozenset(("pinned", "static"))  # policies that plan with the profile, whatever was measured
UNSHARED: Final = frozenset(("clipper-light", "clipper-heavy"))  # ... that plan no share of prompts to go heavy


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds for a batch of a stage, as the plans held it and as profiled; `batch` is the size planned most often."""

    batch: int
    measured_s: float
    profiled_s: float

    @property
    def ratio(self) -> float:
        """Measured over profiled seconds: 2 on machines half as fast."""
        return self.measured_s / self.profiled_s


def pace(plans: Sequence[Plan], cascade: Cascade, stage: Stage, gpu: str | None = None) -> Pace | None:
    """The stage's pace, the median over the plans; None where none tells. `gpu`: the type (default: the cascade's)."""
    found = [each for plan in plans if (each := _of_plan(plan, cascade, stage, gpu)) is not None]
    if not found:
        return None
    ratio, batch = median(each.ratio for each in found), mode(each.batch for each in found)
    profiled_s = median(each.profiled_s for each in found if each.batch == batch)
    return Pace(batch, ratio * profiled_s, profiled_s)


def paces(recording: Recording, cascade: Cascade) -> dict[Stage, Pace]:
    """Of each stage of a run, where its plans tell."""
    gpu = recording.settings.get("gpu")
    return {stage: found for stage in STAGES if (found := pace(recording.plans, cascade, stage, gpu)) is not None}


def slower(summary: Mapping[str, Any]) -> str:
    """That a run's machine lags behind the profile, and what follows, in one line; empty where it does not.

    Empty too for the summary of a run recorded before there was a pace in it.
    """
    found = {stage: Pace(**values) for stage, values in summary.get("pace", {}).items()}
    late = [
        f"{each.measured_s:.2f} s for a {stage} batch of {each.batch} (profile: {each.profiled_s:.2f} s)"
        for stage, each in found.items()
        if each.ratio > SLOWER
    ]
    if not late:
        return ""
    follows = "" if summary["policy"] in UNSHARED else "; so fewer prompts may go heavy"
    return f"This machine is slower than the models' profile, or busy: {', '.join(late)}{follows}."


def _of_plan(plan: Plan, cascade: Cascade, stage: Stage, gpu: str | None) -> Pace | None:
    """None where the plan does not follow the pace or nobody draws the stage.

    None too for slots of several GPU types: their seconds are those of no profile.
    """
    batch, measured_s = plan.batch(stage), plan.service_s(stage)
    if plan.policy in UNPACED or not plan.workers(stage):
        return None
    if batch <= 0 or measured_s <= 0 or plan.on(stage):
        return None
    # As it is planned: a type that was never profiled counts as the cascade's own.
    known = gpu if gpu in cascade.profiles[stage] else None
    return Pace(batch, measured_s, cascade.service_s(stage, batch, known))
