"""The people's command in this process: quicker than one of its own, and its errors can be caught."""

from __future__ import annotations

import io

from rich.console import Console

from services.ctl.__main__ import options
from shared.broker import Broker

WIDTH = 200


def ctl(broker: Broker, *words: str) -> str:
    """What the command prints; raises what its process would end with."""
    given = options().parse_args(words)
    page = io.StringIO()
    given.action(broker, given, Console(file=page, width=WIDTH))
    return page.getvalue()
