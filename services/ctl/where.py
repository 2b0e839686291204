"""`where`: which server holds a deployment."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console

from services.ctl.command import Commands, add_command
from shared.broker import Broker
from shared.cluster import hash_slot


def where(broker: Broker, _given: argparse.Namespace, console: Console) -> None:
    """The hash slot of the deployment's name, and the node that its connections lead to."""
    facts: Any = broker.client.info("cluster")
    kind = "a node of a cluster" if str(facts.get("cluster_enabled")) == "1" else "a server without a cluster"
    told = f"{broker.settings.deployment}: hash slot {hash_slot(broker.keys.due)}, on {broker.node()}, {kind}"
    console.print(told, soft_wrap=True, highlight=False)


def add(commands: Commands) -> None:
    """Add `where`."""
    add_command(commands, "where", where, looks=True)
