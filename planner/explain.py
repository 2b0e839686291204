"""A plan in words: what it loads each stage with, which constraint binds, and how plans followed each other.

A constraint binds where easing it alone would make the quality better: the program is solved again with it eased.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Final

from rich.table import Table
from rich.text import Text

from planner.drafting import as_seen, no_plan
from planner.fleet import WAIT_SHARE
from planner.milp import TOLERANCE, Case, Solution, case_of, loss_points
from planner.solvers import make_solver
from shared.catalog import Cascade
from shared.measured import Curve
from shared.plans import Plan, Slot, View, restaffed
from shared.schema import STAGES, Stage

LONGER: Final = 1.25  # a deadline eased by less may not let the next batch size in


@dataclass(frozen=True, slots=True)
class Situation:
    """What a plan was made for; `view` has the slots, the pace and the ceilings; `demand` in prompts/s."""

    cascade: Cascade
    view: View
    demand: float
    deadline_s: float

    @property
    def curve(self) -> Curve:
        """Quality over the heavy share."""
        return self.cascade.curve()

    def case(self) -> Case:
        """The program's numbers."""
        cascade = as_seen(self.cascade, self.view)
        return case_of(cascade, self.view.slots, self.demand, self.deadline_s, loss_points(self.curve))

    def solve(self) -> Solution | None:
        """The program's answer; None where it has none."""
        case = self.case()
        return make_solver("exhaustive" if len(case.pools) == 1 else "highs").solve(case)


def with_one_more_slot(situation: Situation) -> Situation:
    """One more slot of the commonest GPU type."""
    gpus = Counter(slot.gpu for slot in situation.view.slots)
    gpu = gpus.most_common(1)[0][0] if gpus else situation.cascade.gpu
    more = Slot("one-more", 0, gpu)
    return replace(situation, view=replace(situation.view, slots=(*situation.view.slots, more)))


def with_more_time(situation: Situation) -> Situation:
    """A deadline that is longer by a quarter."""
    return replace(situation, deadline_s=situation.deadline_s * LONGER)


def with_both_models_everywhere(situation: Situation) -> Situation:
    """Every slot ready for both stages."""
    slots = tuple(replace(slot, stages=STAGES) for slot in situation.view.slots)
    return replace(situation, view=replace(situation.view, slots=slots))


def with_more_memory(situation: Situation) -> Situation:
    """Every profiled batch fits."""
    return replace(situation, view=replace(situation.view, ceilings={}))


def at_the_profiled_pace(situation: Situation) -> Situation:
    """No stage slower than its profile."""
    pace = {stage: min(1.0, pace) for stage, pace in situation.view.pace.items()}
    return replace(situation, view=replace(situation.view, pace=pace))


EASED: Final[Mapping[str, tuple[str, Callable[[Situation], Situation]]]] = {
    "the number of slots": ("with one more slot", with_one_more_slot),
    "the deadline": ("with a quarter more time", with_more_time),
    "which models are ready where": ("with both models ready on every slot", with_both_models_everywhere),
    "the GPUs' memory": ("with memory for every profiled batch", with_more_memory),
    "the measured pace": ("at the profiled pace", at_the_profiled_pace),
}


def binding_constraints(situation: Situation) -> list[str]:
    """A line for each constraint that binds, or one that says that none does."""
    now = situation.solve()
    lines = [] if now else [no_plan(situation.case())]
    for constraint, (eased, ease) in EASED.items():
        other = ease(situation)
        then = other.solve() if other != situation else None
        if then and now is None:
            lines.append(f"{constraint} binds: {eased} all of the demand would be drawn")
        elif then and now and then.loss < now.loss - TOLERANCE:
            gain = f"a heavy share of {then.heavy_share:.2f} in place of {now.heavy_share:.2f}"
            lines.append(f"{constraint} binds: {eased} {gain}, {_gain(situation.curve, now, then)}")
    return lines or ["nothing binds: the heavy share of best quality is carried in time"]


def _gain(curve: Curve, now: Solution, then: Solution) -> str:
    return f"{curve.metric} {curve.at(then.heavy_share):.2f} in place of {curve.at(now.heavy_share):.2f}"


def loads(plan: Plan, deadline_s: float) -> Iterator[str]:
    """What each stage draws and is sent, and what both take of the deadline."""
    sent: dict[Stage, float] = {
        "light": (1 - plan.heavy_direct) * plan.demand,
        "heavy": plan.heavy_load * plan.demand,
    }
    for stage in STAGES:
        drawn = plan.throughput(stage)
        busy = f", {sent[stage] / drawn:.0%} busy" if drawn > 0 else ""
        fleet = f"{plan.workers(stage)} x {plan.batch(stage)}"
        yield f"{stage}: {fleet} draw {drawn:.1f} prompts/s, planned for {sent[stage]:.1f}{busy}"
    light_s, heavy_s = ((1 + WAIT_SHARE) * plan.service_s(stage) for stage in STAGES)
    yield f"time: light {light_s:.2f} s + heavy {heavy_s:.2f} s, waits included, of {deadline_s:g} s"


def changes(plans: Sequence[Plan]) -> list[Plan]:
    """The first plan, and each whose workers or batches differ from the plan before it."""
    return list(compress(plans, restaffed(plans)))


def plans_table(plans: Sequence[Plan], title: str, when: Callable[[Plan], str], head: str = "second") -> Table:
    """A row a plan: when it was made, for what demand, what it says and why."""
    made = Table(title=title)
    for name in (head, "demand", "light", "heavy", "threshold", "heavy share"):
        made.add_column(name, justify="right")
    made.add_column("why")
    for plan in plans:
        fleet = (f"{plan.workers(stage)} x {plan.batch(stage)}" for stage in STAGES)
        figures = (f"{plan.threshold:.3f}", f"{plan.heavy_share:.2f}")
        made.add_row(when(plan), f"{plan.demand:.1f}/s", *fleet, *figures, Text(plan.why))
    return made
