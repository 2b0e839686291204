"""Pages of the dashboard without a script: strangers, and those for whom no place is left, cost next to nothing."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from fastapi import Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES: Final = Path(__file__).parent / "templates"
STYLE: Final = Path(__file__).parent / "page.css"
# Asked for anew each time, and shown in nobody else's page.
ALONE: Final = {"Cache-Control": "no-store", "X-Frame-Options": "DENY"}


def templates() -> Environment:
    """The dashboard's templates; everything in them is escaped."""
    return Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)


def login(said: str = "") -> Response:
    """Asks for a key; `said`: what was wrong with the last one."""
    return HTMLResponse(_page(said, asks=True), headers=ALONE)


def full(pages: int) -> Response:
    """No place is left."""
    said = f"{pages} dashboards are open, and more would slow the pictures down: close one and load this page again."
    return HTMLResponse(_page(said, asks=False), 503, ALONE)


@cache
def _style() -> Markup:
    return Markup(STYLE.read_text())


def _page(said: str, *, asks: bool) -> str:
    return templates().get_template("plain.html").render(style=_style(), said=said, asks=asks)
