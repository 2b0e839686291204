"""The dashboard at /: are deadlines met, why not, what did the planner do, what do the pictures look like.

NiceGUI brings the front end in its wheel: nothing is loaded from another host. Every open page has one timer, which
takes over what changed; of a chart only what is new travels, and less often.
"""

from __future__ import annotations

import random
from typing import Final

from fastapi import FastAPI, Request, Response
from nicegui import Client, ui
from nicegui import app as window
from starlette.routing import Match, Mount
from starlette.types import Receive, Scope, Send

from services.gateway import gallery as pictures
from services.gateway import histogram, timelines
from services.gateway import visitor as visiting
from services.gateway.admin import Steering
from services.gateway.dashboard import Dashboard, View
from services.gateway.gallery import Gallery
from services.gateway.plain import STYLE, full, login
from services.gateway.tryout import TOGGLE, Tryout
from services.gateway.visitor import Visitor, Visitors

REFRESH_S: Final = 1.0
WINDOWS: Final = {120.0: "2 min", 600.0: "10 min", 3600.0: "1 h"}
FIRST_WINDOW_S: Final = 600.0
MOST_PAGES: Final = 20  # open at once: `make bench` measures what they cost the API
MOST_UNOPENED: Final = 40  # fetched and not yet opened
ICON: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect x="3" y="3" width="17" height="17" rx="4" '
    'fill="#0b6fb8"/><rect x="12" y="12" width="17" height="17" rx="4" fill="#c4560a"/></svg>'
)


def install(app: FastAPI) -> None:
    """Serve the page at /, once in a process, after all else: `app.state` has desk, history and gatekeeper."""
    dashboard, visitors = Dashboard(app.state.desk, app.state.history, Gallery()), Visitors(app.state.gatekeeper)
    pictures.install(app, dashboard.gallery)
    visiting.install(app, visitors)
    window.state.dashboard, window.state.visitors = dashboard, visitors
    ui.run_with(app, dark=None, favicon=ICON, tailwind=False, binding_refresh_interval=None, show_welcome_message=False)
    app.router.routes[-1] = ThePage("/", app=window)


class ThePage(Mount):
    """Matches what belongs to the page: anything else stays unknown, and is said so as everywhere.

    Only for a known visitor, and where there is a place for him, NiceGUI builds a page, which takes memory until its
    browser has been away for a while.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a path is the page's."""
        path = scope.get("path", "")
        own = path in ("/", "/favicon.ico") or path.startswith("/_nicegui")
        return super().matches(scope) if own else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the page, or what stands in its place."""
        instead = self._instead(Request(scope)) if scope["type"] == "http" and scope["path"] == "/" else None
        await (instead(scope, receive, send) if instead else super().handle(scope, receive, send))

    def _instead(self, request: Request) -> Response | None:
        visitors: Visitors = window.state.visitors
        if not visitors.of(request.cookies).may_look:
            return login()
        if open_pages() >= MOST_PAGES:
            return full(MOST_PAGES)
        forget_unopened()
        return None


def open_pages() -> int:
    """Pages that a browser shows."""
    return sum(client.has_socket_connection for client in Client.instances.values())


def forget_unopened() -> None:
    """Let go of the oldest pages that no browser opened: programs fetch pages too. One that opens late loads again."""
    unopened = [client for client in Client.instances.values() if not client.has_socket_connection]
    for client in sorted(unopened, key=lambda client: client.created)[: len(unopened) - MOST_UNOPENED]:
        client.delete()


@ui.page("/")
async def page(request: Request) -> None:
    """One visitor's page."""
    visitors: Visitors = window.state.visitors
    await OpenPage(window.state.dashboard, visitors.of(request.cookies)).build()


class OpenPage:
    """One open page."""

    def __init__(self, dashboard: Dashboard, visitor: Visitor) -> None:
        self._dashboard = dashboard
        self._visitor = visitor
        self._sees_all = visitor.sees_all
        self._window_s = FIRST_WINDOW_S
        self._shown: View
        self._parts: dict[str, ui.html] = {}
        self._charts: dict[str, ui.echart] = {}

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
        self._shown = await self._dashboard.view(self._window_s)
        with ui.element("main"):
            self._build(self._shown)
        ui.context.client.on_connect(self._take_place)

    def _build(self, view: View) -> None:
        Tryout(self._dashboard.desk, self._dashboard.gallery, self._visitor)
        self._part(view, "verdict")
        self._part(view, "tiles")
        ui.html("<h2>Why not?</h2>", sanitize=False)
        self._part(view, "reasons")
        self._planner(view)
        ui.html("<h2>The fleet</h2>", sanitize=False)
        self._part(view, "fleet")
        for heading, name in (("What do the pictures look like?", "pictures"), ("Dead letters", "letters")):
            ui.html(f"<h2>{heading}</h2>", sanitize=False)
            if self._sees_all:
                self._part(view, name)
            else:
                ui.html(OTHERS, sanitize=False)
        # Pages that were opened together, as after a restart, shall not all be served at one moment.
        ui.timer(random.uniform(0.0, REFRESH_S), self._follow, once=True)

    def _follow(self) -> None:
        ui.timer(REFRESH_S, self._refresh)

    def _take_place(self) -> None:
        if open_pages() > MOST_PAGES:  # many were loaded at once
            ui.navigate.reload()

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
                self._chart(view, "timelines", timelines.HEIGHT_PX)
            with ui.element("div").classes("aside"):
                ui.html(
                    "<h3>Scores of light pictures <span>below the threshold they go on to heavy</span></h3>",
                    sanitize=False,
                )
                self._chart(view, "scores", histogram.HEIGHT_PX)
                ui.html("<h3>Changes of workers and batches</h3>", sanitize=False)
                self._part(view, "plans")
                ui.html("<h3>Orders</h3>", sanitize=False)
                Steering(self._dashboard.desk, self._visitor)
                self._part(view, "orders")
                if self._sees_all:
                    self._part(view, "deeds")

    def _chart(self, view: View, name: str, height_px: int) -> None:
        # Drawn as SVG, its colours are the page's variables, and follow it from light to dark.
        made = ui.echart(self._dashboard.chart(name, view.charts), renderer="svg")
        self._charts[name] = made.classes("chart").style(f"height: {height_px}px")

    async def _look_back(self, window_s: float) -> None:
        self._window_s = window_s
        await self._refresh()

    async def _refresh(self) -> None:
        if not self._visitor.may_look or self._visitor.sees_all != self._sees_all:  # the key was removed or changed
            ui.navigate.reload()
            return
        before, view = self._shown, await self._dashboard.view(self._window_s)
        if view is before:
            return
        self._shown = view
        for name, part in self._parts.items():
            if name in view.parts and view.parts[name] != before.parts.get(name):
                part.content = view.parts[name]
        if view.charts is not before.charts:
            for name, chart in self._charts.items():
                chart.run_chart_method(":setOption", view.charts.written[name])


LOOKS: Final[dict[str, bool | None]] = {"auto": None, "light": False, "dark": True}
OTHERS: Final = '<p class="muted">The prompts and pictures of others are for the keys of admins.</p>'
KEY: Final = """<p class="key">Blue: light. Orange: heavy. Solid: what happened. Dashed: what the plan foresaw.
Upright lines: new plans, faint where only the threshold moved.</p>"""
