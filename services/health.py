"""Whether a service is well, for health checks: exit code 0, or 1 and a line that says why not.

    python -m services.health live agent       its loop turns; asks nobody, so that a head that is away costs no node
    python -m services.health healthy agent    its loop turns, and Redis serves it
    python -m services.health ready            each slot of this node has a worker that can draw: its models are loaded

The first two read what the service's loop leaves in the folder CASCADE_BEATS (control, keeper and agent do).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from shared.beat import ailing, stale

FOLDER: Final = "CASCADE_BEATS"
SERVICES: Final = ("agent", "control", "keeper")
OF_A_LOOP: Final[Mapping[str, Callable[[Path, str], str]]] = {"live": stale, "healthy": ailing}


def of_a_loop(kind: str, service: str, environment: Mapping[str, str]) -> str:
    """Why a service is not `live` or `healthy`; empty where it is."""
    folder = environment.get(FOLDER, "")
    if not folder:
        return f"{FOLDER} is not set: name the folder that it has in the environment of the {service}"
    return OF_A_LOOP[kind](Path(folder), service)


def of_this_node() -> str:
    """Why this node cannot draw on all its slots; empty where it can."""
    # Only here: the other checks run every few seconds and must not load what it takes to talk to Redis.
    from shared.broker import Broker
    from shared.config import load
    from shared.connection import CommandRefused, Unreachable
    from shared.errors import CascadeError
    from shared.observer import Observer

    try:
        settings = load()
        observer = Observer(Broker(settings))
        workers = observer.about(observer.worker_names(settings.node))
    except (CascadeError, CommandRefused, *Unreachable) as wrong:
        return f"node: {wrong}"
    able = {about.get("slot") for about in workers if about.get("ready") == "1"}
    errors = [about["error"] for about in workers if about.get("error") and about.get("ready") != "1"]
    if len(able) >= settings.slots:
        return ""
    return f"{settings.node}: {len(able)} of {settings.slots} slots can draw{': ' + errors[0] if errors else ''}"


def main() -> int:
    """Say why not, if not."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("kind", choices=[*OF_A_LOOP, "ready"])
    options.add_argument("service", nargs="?", choices=SERVICES)
    given = options.parse_args()
    if given.kind != "ready" and given.service is None:
        options.error(f"{given.kind}: of which service? one of {', '.join(SERVICES)}")
    trouble = of_this_node() if given.kind == "ready" else of_a_loop(given.kind, given.service, os.environ)
    if trouble:
        sys.stdout.write(f"{trouble}\n")
    return int(bool(trouble))


if __name__ == "__main__":
    sys.exit(main())
