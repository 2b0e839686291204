"""What the subcommands share: their shape."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from rich.console import Console

from shared.broker import Broker

# What a subcommand does; its parser sets it as `action`, `offline=True` where it needs no Redis, and
# `looks=True` where it changes nothing there.
Action = Callable[[Broker, argparse.Namespace, Console], None]
# The subparsers of the command line, which argparse has no public name for.
Commands = Any


def add_command(commands: Commands, name: str, action: Action, *, looks: bool = False) -> argparse.ArgumentParser:
    """A subcommand whose help is its action's docstring; the caller adds its arguments."""
    text = (action.__doc__ or "").strip()
    made: argparse.ArgumentParser = commands.add_parser(name, help=text.split("\n")[0], description=text)
    made.set_defaults(action=action, looks=looks)
    return made
