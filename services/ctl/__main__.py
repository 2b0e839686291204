"""What people ask of a running deployment.

    python -m services.ctl status [--once]                  what it does, every second
    python -m services.ctl where                            which server of a cluster holds the deployment
    python -m services.ctl plan [--history N] [--explain]   what was planned, and which constraint binds
    python -m services.ctl submit "a red cat" [--wait] [--open] [--out FILE]
    python -m services.ctl watch ID | cancel ID
    python -m services.ctl drain NODE | undrain NODE
    python -m services.ctl pin [--threshold T] [--light-workers N] [--heavy-workers N] | unpin [NAME ...]
    python -m services.ctl pause | resume | audit
    python -m services.ctl deadletters list | show ID | retry ID | purge
    python -m services.ctl --http-keys FILE key add NAME [--rate R] [--priority P] [--admin] | list | remove NAME

Whatever was ordered stands until it is taken back. What a person can mend is one line and exit code 2.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Final

from rich.console import Console

from services.ctl import keys, letters, orders, plans, prompts, status, where
from services.ctl.command import Commands
from shared.broker import Broker
from shared.config import load, parser
from shared.connection import CommandRefused, Unreachable
from shared.errors import CascadeError
from shared.process import guarded

# Each adds its subcommands.
COMMANDS: Final[tuple[Callable[[Commands], None], ...]] = (
    status.add,
    plans.add,
    prompts.add,
    orders.add,
    letters.add,
    keys.add,
    where.add,
)


def options() -> argparse.ArgumentParser:
    """The command line."""
    made = parser(__doc__ or "", ["redis_url", "deployment", "cascade", "deadline_s", "http_keys"])
    made.prog = "python -m services.ctl"
    commands = made.add_subparsers(dest="command", required=True, metavar="command")
    for add in COMMANDS:
        add(commands)
    return made


def main() -> int:
    """Do one thing and end."""
    given = options().parse_args()
    broker = Broker(load(given))
    if not getattr(given, "offline", False):
        broker.check(groups=not getattr(given, "looks", False))
    try:
        given.action(broker, given, Console())
    except (*Unreachable, CommandRefused) as wrong:
        raise CascadeError(f"Redis at {broker.address}: {wrong}") from None
    return 0


if __name__ == "__main__":
    guarded(main)
