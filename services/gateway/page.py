"""The dashboard at /: are deadlines met, why not, what did the planner do, what do the pictures look like.

NiceGUI brings the front end in its wheel: nothing is loaded from another host. Every open page has one timer, which
takes over what changed; the parts are made once for each look of the history, however many pages are open.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, HTTPException
from nicegui import Client, ui
from nicegui import app as window
from starlette.routing import Match, Mount
from starlette.types import Scope

from services.gateway import gallery as pictures
from services.gateway import histogram as scores
from services.gateway import timelines as times
from services.gateway.admin import Steering, standing
from services.gateway.callers import Gatekeeper
from services.gateway.charts import Options
from services.gateway.desk import Desk
from services.gateway.gallery import Gallery
from services.gateway.history import History
from services.gateway.panels import Panels
from services.gateway.snapshot import Snapshot
from services.gateway.tryout import TOGGLE, Tryout
from services.gateway.visitor import Visitor
from shared.connection import CommandRefused, Unreachable

REFRESH_S: Final = 1.0
GALLERY_S: Final = 5.0
WINDOWS: Final = {120.0: "2 min", 600.0: "10 min", 3600.0: "1 h"}
FIRST_WINDOW_S: Final = 600.0
MOST_PAGES: Final = 200  # open at once, reloaded ones included for a while: each costs some memory here
TAB_KEPT_S: Final = 12 * 3600.0
DEEDS: Final = 5
STYLE: Final = Path(__file__).with_suffix(".css")
ICON: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect x="3" y="3" width="17" height="17" rx="4" '
    'fill="#0b6fb8"/><rect x="12" y="12" width="17" height="17" rx="4" fill="#c4560a"/></svg>'
)


@dataclass(frozen=True, slots=True)
class View:
    """All that an open page shows of one look."""

    snapshot: Snapshot
    parts: dict[str, str]
    timelines: Options
    scores: Options


class Dashboard:
    """What all open pages share."""

    def __init__(self, app: FastAPI) -> None:
        self.desk: Desk = app.state.desk
        self.history: History = app.state.history
        self.gatekeeper: Gatekeeper = app.state.gatekeeper
        self.gallery = Gallery()
        self._panels = Panels(self.desk.deadline_s, self.gallery.address)
        self._views: dict[float, View] = {}
        self._hung: dict[str, str] = {}
        self._hung_s = 0.0

    def view(self, window_s: float) -> View:
        """What to show of the last seconds; the same object until the history has looked again. Waits for Redis."""
        snapshot = self.history.snapshot(window_s)
        known = self._views.get(window_s)
        if known is None or known.snapshot is not snapshot:
            parts = self._panels.render(snapshot) | self._ordered() | self._pictures(snapshot)
            deadline_s = self.desk.deadline_s
            known = View(snapshot, parts, times.timelines(snapshot, deadline_s), scores.histogram(snapshot))
            self._views[window_s] = known
        return known

    def _pictures(self, snapshot: Snapshot) -> dict[str, str]:
        # Pictures that change with every look are none that anybody looks at.
        if not self._hung or snapshot.time_s - self._hung_s >= GALLERY_S:
            self._hung, self._hung_s = self._panels.pictures(snapshot), snapshot.time_s
        return self._hung

    def _ordered(self) -> dict[str, str]:
        try:
            given, deeds = self.desk.broker.orders(), self.desk.observer.deeds(DEEDS)
        except (*Unreachable, CommandRefused):  # the verdict says so
            return {}
        return self._panels.orders(standing(given), deeds)


def install(app: FastAPI) -> None:
    """Serve the page at /, once in a process, after all else: `app.state` has desk, history and gatekeeper."""
    dashboard = Dashboard(app)
    pictures.install(app, dashboard.gallery)
    window.state.dashboard = dashboard
    window.storage.max_tab_storage_age = TAB_KEPT_S
    ui.run_with(app, dark=None, favicon=ICON, tailwind=False, binding_refresh_interval=None, show_welcome_message=False)
    app.router.routes[-1] = ThePage("/", app=window)


class ThePage(Mount):
    """Matches what belongs to the page: anything else stays unknown, and is said so as everywhere."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a path is the page's."""
        path = scope.get("path", "")
        own = path in ("/", "/favicon.ico") or path.startswith("/_nicegui")
        return super().matches(scope) if own else (Match.NONE, {})


@ui.page("/")
async def page() -> None:
    """One visitor's page."""
    if len(Client.instances) > MOST_PAGES:
        raise HTTPException(503, "too many pages are open")
    dashboard: Dashboard = window.state.dashboard
    await OpenPage(dashboard).build()


class OpenPage:
    """One open page."""

    def __init__(self, dashboard: Dashboard) -> None:
        self._dashboard = dashboard
        self._visitor = Visitor(dashboard.gatekeeper)
        self._window_s = FIRST_WINDOW_S
        self._shown: View | None = None
        self._parts: dict[str, ui.html] = {}
        self._room: ui.element

    async def build(self) -> None:
        """Head and style, then the page itself, once it is known who looks."""
        desk = self._dashboard.desk
        ui.page_title(f"{desk.settings.deployment}: dashboard")
        ui.add_css(STYLE.read_text())
        dark = ui.dark_mode(None)
        with ui.element("header").classes("top"):
            models = " before ".join(desk.cascade.models[stage].name for stage in ("light", "heavy"))
            ui.label(desk.settings.deployment).classes("brand")
            ui.label(f"cascade {desk.cascade.name}: {models}").classes("about")
            looks = {"auto": "Auto", "light": "Light", "dark": "Dark"}
            ui.toggle(looks, value="auto", on_change=lambda given: dark.set_value(LOOKS[given.value])).props(
                f'{TOGGLE} aria-label="colours"'
            )
        self._room = ui.element("main")
        if not self._visitor.may_look:
            await ui.context.client.connected()
            self._visitor.remember()
        if self._visitor.may_look:
            await self._enter()
        else:
            self._visitor.ask(self._enter)

    async def _enter(self) -> None:
        view = await self._dashboard.desk.ask(self._dashboard.view, self._window_s)
        with self._room:
            Tryout(self._dashboard.desk, self._dashboard.gallery, self._visitor)
            self._part(view, "verdict")
            self._part(view, "tiles")
            ui.html("<h2>Why not?</h2>", sanitize=False)
            self._part(view, "reasons")
            self._planner(view)
            ui.html("<h2>The fleet</h2>", sanitize=False)
            self._part(view, "fleet")
            ui.html("<h2>What do the pictures look like?</h2>", sanitize=False)
            self._part(view, "pictures")
            ui.html("<h2>Dead letters</h2>", sanitize=False)
            self._part(view, "letters")
            ui.timer(REFRESH_S, self._refresh)
        self._shown = view

    def _part(self, view: View, name: str) -> None:
        # The template escapes what people wrote, so the browser need not clean it again.
        self._parts[name] = ui.html(view.parts.get(name, ""), sanitize=False).props(f'id="{name}"')

    def _planner(self, view: View) -> None:
        with ui.element("div").classes("heads"):
            ui.html("<h2>What did the planner do?</h2>", sanitize=False)
            ui.toggle(dict(WINDOWS), value=self._window_s, on_change=lambda given: self._look_back(given.value)).props(
                f'{TOGGLE} aria-label="time shown"'
            ).classes("window")
        self._part(view, "plan")
        with ui.element("div").classes("planner"):
            with ui.element("div"):
                ui.html(KEY, sanitize=False)
                self._timelines = _chart(view.timelines, times.HEIGHT_PX)
            with ui.element("div").classes("aside"):
                ui.html(
                    "<h3>Scores of light pictures <span>below the threshold they go on to heavy</span></h3>",
                    sanitize=False,
                )
                self._scores = _chart(view.scores, scores.HEIGHT_PX)
                ui.html("<h3>Changes of workers and batches</h3>", sanitize=False)
                self._part(view, "plans")
                ui.html("<h3>Orders</h3>", sanitize=False)
                Steering(self._dashboard.desk, self._visitor)
                self._part(view, "orders")

    async def _look_back(self, window_s: float) -> None:
        self._window_s = window_s
        await self._refresh()

    async def _refresh(self) -> None:
        if not self._visitor.may_look:  # the key was removed
            ui.navigate.reload()
            return
        view = await self._dashboard.desk.ask(self._dashboard.view, self._window_s)
        if view is self._shown:
            return
        self._shown = view
        for name, part in self._parts.items():
            part.content = view.parts.get(name, part.content)
        for chart, options in ((self._timelines, view.timelines), (self._scores, view.scores)):
            chart.options.clear()
            chart.options.update(options)
            chart.update()


LOOKS: Final[dict[str, bool | None]] = {"auto": None, "light": False, "dark": True}
KEY: Final = """<p class="key">Blue: light. Orange: heavy. Solid: what happened. Dashed: what the plan foresaw.
Upright lines: new plans, faint where only the threshold moved.</p>"""


def _chart(options: Options, height_px: int) -> Any:
    # Drawn as SVG, its colours are the page's variables, and follow it from light to dark.
    return ui.echart(dict(options), renderer="svg").classes("chart").style(f"height: {height_px}px")
