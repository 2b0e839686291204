"""`status`: what a deployment does, as a table that follows it."""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from services.ctl.command import Commands, add_command
from shared.broker import Broker
from shared.census import in_words, strangers
from shared.figures import Figures, figures
from shared.ledger import Tally
from shared.lookout import LOOK_S, Lookout, Reading, place_of
from shared.messages import ENDS, Outcome
from shared.orders import Orders
from shared.schema import STAGES
from shared.words import at, most

WINDOW_S: Final = 60.0
OUTCOMES: Final = 20_000  # of the window; more would not be a person's deployment, and would fill the memory


def status(broker: Broker, given: argparse.Namespace, console: Console) -> None:
    """What the deployment does, every second until interrupted; once with --once, and where no terminal looks on."""
    lookout = Lookout(broker)
    found, _ = lookout.past(OUTCOMES, broker.now() - WINDOW_S)
    recent = deque(found, maxlen=OUTCOMES)
    first = shown(lookout.reading(), recent, broker.orders())
    if given.once or not console.is_terminal:
        console.print(first)
        return
    with Live(first, console=console, auto_refresh=False) as live:
        while True:
            time.sleep(LOOK_S)
            reading = lookout.reading()
            recent.extend(lookout.outcomes())
            while recent and recent[0].finished < reading.time_s - WINDOW_S:
                recent.popleft()
            live.update(shown(reading, recent, broker.orders()), refresh=True)


def shown(reading: Reading, recent: Sequence[Outcome], orders: Orders) -> Group:
    """One look; `recent` are the outcomes of the last minute."""
    found = figures(Tally.of(recent), WINDOW_S)
    return Group(*_head(reading, found), _stages(reading), _ends(reading, found), *_fleet(reading, orders))


def _head(reading: Reading, recent: Figures) -> Iterator[Text]:
    yield Text(f"{at(reading.time_s)}  {reading.open} open, {reading.dead} dead letters")
    if recent.ended:
        yield Text(f"of the {recent.ended:,} that ended in the last minute {most(recent.on_time)} were on time")
        yield Text("none answered" if recent.p50_s is None else f"p50 {recent.p50_s:.2f} s, p99 {recent.p99_s:.2f} s")
    else:
        yield Text("nothing ended in the last minute")
    if plan := reading.plan:
        made = f"plan {plan.version} by {plan.policy} for {plan.demand:.1f} prompts/s"
        yield Text(f"{made}: threshold {plan.threshold:.4f}, heavy share {plan.heavy_share:.2f}\n{plan.why}")
    else:
        yield Text("no plan is in force: does a planner run, and is a worker ready?")
    if (planned := reading.planned_for) and (strange := strangers(reading.workers, reading.nodes, planned.models)):
        yield Text(in_words(strange, planned))


def _stages(reading: Reading) -> Table:
    table = Table("stage", "waiting", "in flight", "wanted", "ready", "loading", "batch")
    for stage in STAGES:
        backlog, plan = reading.backlog[stage], reading.plan
        wanted = (plan.workers(stage), plan.batch(stage)) if plan else (0, 0)
        counts = (backlog.waiting, backlog.running, wanted[0], reading.ready(stage), reading.loading(stage), wanted[1])
        table.add_row(stage, *map(str, counts))
    return table


def _ends(reading: Reading, recent: Figures) -> Table:
    names = ("offered", "refused", *ENDS)
    table = Table("prompts", *names)
    table.add_row("in all", *(f"{reading.totals.get(name, 0):,.0f}" for name in names))
    table.add_row("a second", "", "", *(f"{recent.per_s(end):.2f}" for end in ENDS))
    return table


def _fleet(reading: Reading, orders: Orders) -> Iterator[RenderableType]:
    table = Table("node", "slot", "stage", "model", "state", "last error")
    for worker in sorted(reading.workers, key=lambda worker: (*place_of(worker), worker.get("stage", ""))):
        state = "draws" if reading.draws(worker) else "ready" if worker.get("ready") == "1" else "loads"
        row = [worker.get(name, "") for name in ("node", "slot", "stage", "model")]
        drained = " (drained)" if worker.get("node") in orders.drained else ""
        table.add_row(*map(Text, [*row, state + drained, worker.get("error", "")]))
    yield table if reading.workers else Text("no worker lives")
    yield from (Text(f"by order: {words}") for words in orders.words())


def add(commands: Commands) -> None:
    """Add `status`."""
    add_command(commands, "status", status, looks=True).add_argument(
        "--once", action="store_true", help="one look, and end"
    )
