"""`plan`: the plan in force, the ones before it, and which constraint binds."""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from planner.explain import Situation, binding_constraints, loads, plans_table
from planner.policies import UNSOLVED
from services.ctl.command import Commands, add_command
from shared.broker import Broker
from shared.catalog import load_cascade
from shared.errors import CascadeError, PlanUnreadable
from shared.messages import Fields
from shared.observer import Observer
from shared.plans import Plan, View
from shared.schema import STAGES, Stage
from shared.words import at

SHOWN: Final = 10
CLOCK: Final = len("23:59:59")
WIDEST: Final = len("threshold")  # of the columns with figures


def plan(broker: Broker, given: argparse.Namespace, console: Console) -> None:
    """The plan in force; with --history the ones before it, with --explain which constraint binds, in words."""
    if given.history:
        rows = Observer(broker).latest(broker.keys.plans, given.history)
        console.print(_history(list(_readable(fields for _, fields in rows))))
        return
    in_force = broker.plan()
    if in_force is None:
        raise CascadeError("no plan is in force: does a planner run, and is a worker ready?")
    lines = _explained(broker, in_force) if given.explain else []
    console.print(_about(in_force))
    for words in broker.orders().words():
        console.print(Text(f"by order: {words}"))
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _readable(rows: Iterable[Fields]) -> Iterator[Plan]:
    """The plans among the entries; what was written by hand and is none is passed over."""
    for fields in rows:
        with suppress(PlanUnreadable):
            yield Plan.from_wire(fields)


def _history(plans: Sequence[Plan]) -> Table:
    """A row a plan, narrow enough that 80 columns leave room for the reasons."""
    since = f", made since {at(plans[0].made)}" if plans else ""
    made = plans_table(plans, f"the last {len(plans)} plans{since}", lambda each: at(each.made)[-CLOCK:], "made")
    made.title_justify, made.box, made.pad_edge = "left", None, False
    for column in made.columns[:-1]:
        column.max_width = WIDEST
    return made


def _about(plan: Plan) -> Table:
    table = Table("field", "value", show_header=False)
    shown = {"version": f"{plan.version}, made {at(plan.made)} by {plan.policy}", "why": plan.why}
    shown |= {stage: f"{plan.workers(stage)} workers, batches of {plan.batch(stage)}" for stage in STAGES}
    shown["threshold"] = f"{plan.threshold:.4f}: {plan.heavy_share:.0%} of the light pictures escalate"
    shown["demand"] = f"{plan.demand:.1f} prompts/s planned for"
    shown["solver"] = f"{plan.solver}, {plan.solve_ms:.1f} ms" if plan.solver else ""
    shown["slots"] = _slots(plan)
    for name, value in shown.items():
        if value:
            table.add_row(name, Text(value))
    return table


def _slots(plan: Plan) -> str:
    """How many slots of each node run each stage."""
    nodes: dict[str, Counter[Stage]] = defaultdict(Counter)
    for name, stage in plan.assignment.items():
        nodes[name.rpartition(":")[0]][stage] += 1
    return "\n".join(
        f"{node}: {', '.join(f'{count} {stage}' for stage, count in sorted(counts.items(), reverse=True))}"
        for node, counts in sorted(nodes.items())
    )


def _explained(broker: Broker, in_force: Plan) -> list[str]:
    """What loads the plan, and what binds it on the slots that are there now."""
    settings, observer = broker.settings, Observer(broker)
    cascade = load_cascade(settings.cascade)
    deadline_s = settings.deadline_s or cascade.deadline_s
    lines = list(loads(in_force, deadline_s))
    if in_force.policy in UNSOLVED:
        return [*lines, f"the policy {in_force.policy} solves no program: {in_force.why}"]
    drained = broker.orders().drained
    slots = tuple(slot for slot in observer.slots() if slot.node not in drained)
    models: dict[Stage, str] = {stage: model.name for stage, model in cascade.models.items()}
    ceilings = observer.ceilings(models, {slot.gpu for slot in slots})
    view = View(in_force.made, (), slots, pace=_pace(broker, observer), ceilings=ceilings)
    return lines + binding_constraints(Situation(cascade, view, in_force.demand, deadline_s))


def _pace(broker: Broker, observer: Observer) -> dict[Stage, float]:
    """The pace that the newest plan was made with."""
    for _, fields in observer.latest(broker.keys.plans, 1):
        try:
            seen = json.loads(fields.get(b"view", b"{}")).get("pace", {})
            return {stage: float(seen[stage]) for stage in STAGES if stage in seen}
        except (ValueError, TypeError, AttributeError):  # written by hand
            return {}
    return {}


def add(commands: Commands) -> None:
    """Add `plan`."""
    made = add_command(commands, "plan", plan, looks=True)
    made.add_argument(
        "--history", type=int, nargs="?", const=SHOWN, metavar="N", help="the last N plans, each with its reason"
    )
    made.add_argument("--explain", action="store_true", help="which constraint binds, in words")
