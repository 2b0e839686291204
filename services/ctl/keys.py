"""`key add NAME | list | remove NAME`: who may use the gateway."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from services.ctl.command import Action, Commands, add_command
from shared.broker import Broker
from shared.errors import SettingsError
from shared.keyring import Keyring, read_keyring, write_keyring
from shared.schema import BATCH, CLASSES, NORMAL, URGENT


def add_key(broker: Broker, given: argparse.Namespace, console: Console) -> None:
    """Make a key and show its secret, this once: only a digest of it is kept. A gateway knows it within a second."""
    path = _file(broker)
    keyring = read_keyring(path) if path.exists() else Keyring()
    grown, secret = keyring.added(given.name, given.rate, given.priority, admin=given.admin)
    write_keyring(path, grown)
    console.out(secret, highlight=False)


def list_keys(broker: Broker, _given: argparse.Namespace, console: Console) -> None:
    """A table of the keys, without their secrets, which nobody knows."""
    table = Table("name", "prompts/s", "priority", "admin")
    for name, key in read_keyring(_file(broker)).keys.items():
        rate = "any" if key.rate_per_s is None else f"{key.rate_per_s:g}"
        table.add_row(name, rate, str(key.priority), "yes" if key.admin else "")
    console.print(table if table.row_count else "no keys")


def remove_key(broker: Broker, given: argparse.Namespace, console: Console) -> None:
    """Take a key away. A gateway turns its bearer away within a second."""
    path = _file(broker)
    write_keyring(path, read_keyring(path).removed(given.name))
    console.out(f"{given.name} is removed", highlight=False)


def _file(broker: Broker) -> Path:
    path = broker.settings.http_keys
    if path is None:
        raise SettingsError("http_keys: name the file of the keys, with --http-keys FILE or CASCADE_HTTP_KEYS")
    return path


KEYS: Final[Mapping[str, Action]] = {"add": add_key, "list": list_keys, "remove": remove_key}


def add(commands: Commands) -> None:
    """Add `key` and its verbs."""
    made = commands.add_parser("key", help="who may use the gateway: add NAME | list | remove NAME")
    made.set_defaults(offline=True)
    verbs = made.add_subparsers(dest="verb", required=True, metavar="verb")
    for name, action in KEYS.items():
        verb = add_command(verbs, name, action)
        if name in ("add", "remove"):
            verb.add_argument("name", help="whose key: letters, digits, - _ and .")
        if name == "add":
            verb.add_argument("--rate", type=float, help="prompts a second (default: as many as the door takes)")
            urgency = f"class of its prompts, and the most urgent it may ask for: {URGENT} urgent, {NORMAL} normal, "
            verb.add_argument("--priority", type=int, choices=CLASSES, default=NORMAL, help=f"{urgency}{BATCH} batch")
            verb.add_argument("--admin", action="store_true", help="it may pin and pause the planner")
