"""`drain`, `undrain`, `pin`, `unpin`, `pause`, `resume`, `audit`: what people order, and who ordered it."""

from __future__ import annotations

import argparse
import getpass
import os
import socket
import time
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.ctl.command import Commands, add_command
from shared import orders
from shared.broker import Broker
from shared.errors import CascadeError
from shared.observer import Observer
from shared.orders import PINS, Order
from shared.words import at

LOOK_S: Final = 0.2
WITHIN_S: Final = 120.0  # longer than most batches
SHOWN: Final = 50


def drain(broker: Broker, given: argparse.Namespace, console: Console) -> None:
    """Let a node's workers finish what they hold and give them nothing more; says when nothing is left in its hands."""
    observer = Observer(broker)
    known = _nodes(broker, observer)
    if given.node not in known:
        raise CascadeError(f"there is no node {given.node!r}; there are {', '.join(sorted(known)) or 'none'}")
    _order(broker, console, orders.drain(given.node))
    if not observer.leads("control"):
        console.print("no planner leads: the node is drained once one does")
    others = {slot.node for slot in observer.slots()} - broker.orders().drained
    if not others:
        console.print("no other node has a slot: nothing is drawn until one is undrained")
    if not given.no_wait:
        _wait_until_empty(broker, observer, given.node, given.within_s)
        console.print(Text(f"nothing is left in the hands of {given.node}"))


def undrain(broker: Broker, given: argparse.Namespace, console: Console) -> None:
    """Plan for a drained node again."""
    _order(broker, console, orders.undrain(given.node))


def pin(broker: Broker, given: argparse.Namespace, console: Console) -> None:
    """Put a threshold or counts of workers in place of the planner's."""
    pins = orders.pin(threshold=given.threshold, light_workers=given.light_workers, heavy_workers=given.heavy_workers)
    _order(broker, console, pins)


def unpin(broker: Broker, given: argparse.Namespace, console: Console) -> None:
    """Leave threshold or counts to the planner again; all where none is named."""
    _order(broker, console, orders.unpin(*given.names))


def pause(broker: Broker, _given: argparse.Namespace, console: Console) -> None:
    """Keep the plan in force, whatever the load, until `resume`."""
    _order(broker, console, orders.pause())


def resume(broker: Broker, _given: argparse.Namespace, console: Console) -> None:
    """Let the planner plan again."""
    _order(broker, console, orders.resume())


def audit(broker: Broker, given: argparse.Namespace, console: Console) -> None:
    """What stands ordered, and who ordered what, newest last."""
    standing = broker.orders().words()
    console.print(Text("; ".join(standing) or "nothing is ordered: the planner decides"))
    table = Table("when", "who", "what")
    for deed in (deeds := Observer(broker).deeds(given.count)):
        table.add_row(*map(Text, (at(deed.at), deed.who, deed.what)))
    if deeds:
        console.print(table)


def _order(broker: Broker, console: Console, order: Order) -> None:
    changed = broker.order(order, _who())
    console.print(Text(order.what if changed else f"{order.what}: it stands so already"))


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have a number and no name
        user = f"user {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _nodes(broker: Broker, observer: Observer) -> set[str]:
    """Every node of which something is known: a worker, a place in the plan, or that it is drained."""
    plan = broker.plan()
    planned = {name.rpartition(":")[0] for name in (plan.assignment if plan else ())}
    return planned | {worker["node"] for worker in observer.workers()} | set(broker.orders().drained)


def _wait_until_empty(broker: Broker, observer: Observer, node: str, within_s: float) -> None:
    """Wait until the plan has left the node and its workers hold neither prompts nor slots."""
    end = time.monotonic() + within_s
    while True:
        plan = broker.plan()
        planned = sum(name.rpartition(":")[0] == node for name in (plan.assignment if plan else ()))
        prompts, slots = observer.in_hands(node)
        if not (planned or prompts or slots):
            return
        if time.monotonic() > end:
            left = f"{prompts} prompts, {slots} slots held, {planned} slots in the plan"
            raise CascadeError(f"{node} was not empty after {within_s:g} s: {left}; it stays drained")
        time.sleep(LOOK_S)


def add(commands: Commands) -> None:
    """Add the orders and the audit."""
    made = add_command(commands, "drain", drain)
    made.add_argument("node")
    made.add_argument("--no-wait", action="store_true", help="do not wait until nothing is left in its hands")
    made.add_argument("--within-s", type=float, default=WITHIN_S, help="seconds to wait (default: %(default)s)")
    add_command(commands, "undrain", undrain).add_argument("node")
    made = add_command(commands, "pin", pin)
    made.add_argument("--threshold", type=float, help="in [0, 1]: scores below it escalate")
    made.add_argument("--light-workers", type=int)
    made.add_argument("--heavy-workers", type=int)
    made = add_command(commands, "unpin", unpin)
    made.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PINS))
    add_command(commands, "pause", pause)
    add_command(commands, "resume", resume)
    made = add_command(commands, "audit", audit, looks=True)
    made.add_argument("--count", type=int, default=SHOWN, help="how many entries (default: %(default)s)")
