"""Who looks at an open page of the dashboard: known by the key given in it, anybody where there is no keyring."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from nicegui import app as window
from nicegui import ui

from services.gateway.callers import Caller, Gatekeeper
from services.gateway.errors import ApiError

SECRET: Final = "secret"  # of the tab's memory, which this process alone holds


class Visitor:
    """One open page's visitor; make it while the page is built."""

    def __init__(self, gatekeeper: Gatekeeper) -> None:
        self._gatekeeper = gatekeeper
        self._secret: str | None = None

    def caller(self) -> Caller:
        """Who this is just now; raises ApiError 401 where a key is needed, or the one given was removed."""
        return self._gatekeeper.recognise(self._secret)

    @property
    def may_look(self) -> bool:
        """Whether the page may be shown."""
        try:
            self.caller()
        except ApiError:
            return False
        return True

    def remember(self) -> None:
        """Take the key that was given in this tab before a reload; the page must be connected."""
        self._secret = window.storage.tab.get(SECRET)

    def forget(self) -> None:
        """Leave: the tab's next page asks for a key."""
        window.storage.tab.pop(SECRET, None)
        ui.navigate.reload()

    def ask(self, welcome: Callable[[], Awaitable[None]]) -> None:
        """Ask for a key, again and again, and go on once it is known."""
        with ui.dialog().props("persistent") as dialog, ui.card().classes("login"):
            ui.html("<h3>This page needs an API key</h3>", sanitize=False)
            given = ui.input("API key", password=True).props("outlined dense autofocus").classes("w-full")
            said = ui.label().classes("muted")

            async def enter() -> None:
                self._secret = given.value.strip()
                try:
                    self.caller()
                except ApiError as wrong:
                    said.text = wrong.detail
                    return
                window.storage.tab[SECRET] = self._secret
                dialog.close()
                await welcome()

            given.on("keydown.enter", enter)
            ui.button("Enter", on_click=enter).props("unelevated no-caps text-color=ground")
        dialog.open()
