"""Steering the planner from the dashboard: pins and the pause, for who has an admin's key, each with an audit entry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nicegui import ui

from services.gateway.callers import Caller
from services.gateway.desk import Desk
from services.gateway.errors import ApiError
from services.gateway.visitor import Visitor
from shared import orders
from shared.connection import CommandRefused, Unreachable
from shared.errors import SettingsError
from shared.orders import Order

READ_ONLY: Final = """<p class="muted">Read-only: with the key of an admin the threshold and the worker counts can be
pinned here, and the planner paused. <code>python -m services.ctl --http-keys FILE key add NAME --admin</code> makes
one, for a gateway that is started with <code>--http-keys FILE</code>.</p>"""
GIVE: Final = '<p class="muted"><a href="/login">Give another key</a></p>'


class Steering:
    """The controls; make them where they shall stand."""

    def __init__(self, desk: Desk, visitor: Visitor) -> None:
        self._desk, self._visitor = desk, visitor
        if not visitor.caller().admin:
            ui.html(READ_ONLY, sanitize=False)
            if visitor.caller().identity:
                ui.html(GIVE, sanitize=False)
            return
        with ui.element("div").classes("steer"):
            self._threshold = ui.number("threshold", min=0, max=1, step=0.01, format="%.3f").props("outlined dense")
            self._light = ui.number("light workers", min=1, step=1, precision=0).props("outlined dense")
            self._heavy = ui.number("heavy workers", min=0, step=1, precision=0).props("outlined dense")
            self._button("Pin", self._pin)
            self._button("Unpin all", orders.unpin)
            self._button("Pause the planner", orders.pause)
            self._button("Resume", orders.resume)

    def _button(self, label: str, make: Callable[[], Order]) -> None:
        async def press() -> None:
            await self._give(make)

        ui.button(label, on_click=press).props("outline no-caps")

    def _pin(self) -> Order:
        light, heavy = (None if field.value is None else int(field.value) for field in (self._light, self._heavy))
        return orders.pin(threshold=self._threshold.value, light_workers=light, heavy_workers=heavy)

    async def _give(self, make: Callable[[], Order]) -> None:
        """Give an order in the visitor's name, if he still may."""
        try:
            order, caller = make(), self._visitor.caller()
            if not caller.admin:
                raise ApiError(403, "this takes the key of an admin")
            changed = await self._desk.ask(self._desk.broker.order, order, signature(caller))
        except SettingsError as wrong:
            ui.notify(str(wrong), type="warning")
        except ApiError as wrong:
            ui.notify(wrong.detail, type="warning")
        except (*Unreachable, CommandRefused) as wrong:
            ui.notify(f"Redis does not answer: {wrong}", type="negative")
        else:
            ui.notify(order.what if changed else "It stands so already.")


def signature(caller: Caller) -> str:
    """How the audit names who ordered something on the page."""
    return f"{caller.name} (dashboard)"
