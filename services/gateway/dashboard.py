"""What all open pages of the dashboard share: each look is turned into HTML and charts once, off the event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.gateway import histogram, timelines
from services.gateway.charts import Options, merged
from services.gateway.desk import Desk
from services.gateway.gallery import Gallery
from services.gateway.history import History
from services.gateway.panels import Panels
from services.gateway.snapshot import Snapshot
from shared.connection import CommandRefused, Unreachable

CHARTS_S: Final = 5.0  # between two states of the charts, which are most of what a page is sent
GALLERY_S: Final = 5.0  # pictures that change with every look are none that anybody looks at
DEEDS: Final = 5
FRAMES: Final = ("timelines", "scores")


@dataclass(frozen=True, slots=True)
class Charts:
    """The charts of one look, by name: `news` lies over a frame, `written` is the same as JSON."""

    time_s: float
    news: Mapping[str, Options]
    written: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class View:
    """All that an open page shows of one look; `looks` says of which."""

    looks: int
    parts: Mapping[str, str]
    charts: Charts


class Dashboard:
    """Makes the views; one per gateway."""

    def __init__(self, desk: Desk, history: History, gallery: Gallery) -> None:
        self.desk = desk
        self.gallery = gallery
        self._history = history
        self._frames: dict[str, Options] = {"timelines": timelines.frame(desk.deadline_s), "scores": histogram.FRAME}
        self._panels = Panels(desk.deadline_s, gallery.address)
        self._views: dict[float, View] = {}
        self._hung: dict[str, str] = {}
        self._hung_s = 0.0
        # Whoever waits for a view waits here, and not in a thread that others need.
        self._turn = asyncio.Lock()

    async def view(self, window_s: float) -> View:
        """What to show of the last seconds; the same object until the history has looked again."""
        async with self._turn:
            known = self._views.get(window_s)
            if known is None or known.looks != self._history.looks:
                known = await self.desk.ask(self._view, window_s, known)
                self._views[window_s] = known
            return known

    def chart(self, name: str, charts: Charts) -> Options:
        """A chart as a page that opens is given it."""
        made: Options = merged(self._frames[name], charts.news[name])
        return made

    def _view(self, window_s: float, before: View | None) -> View:
        looks, snapshot = self._history.looks, self._history.snapshot(window_s)
        parts = self._panels.render(snapshot) | self._ordered() | self._pictures(snapshot)
        charts = before.charts if before else None
        if charts is None or not 0 <= snapshot.time_s - charts.time_s < CHARTS_S:
            charts = _charts(snapshot)
        return View(looks, parts, charts)

    def _pictures(self, snapshot: Snapshot) -> dict[str, str]:
        if not self._hung or not 0 <= snapshot.time_s - self._hung_s < GALLERY_S:
            self._hung, self._hung_s = self._panels.pictures(snapshot), snapshot.time_s
        return self._hung

    def _ordered(self) -> dict[str, str]:
        try:
            return self._panels.orders(self.desk.broker.orders(), self.desk.observer.deeds(DEEDS))
        except (*Unreachable, CommandRefused):  # the verdict says so
            return {}


def _charts(snapshot: Snapshot) -> Charts:
    news = {"timelines": timelines.news(snapshot), "scores": histogram.news(snapshot)}
    return Charts(snapshot.time_s, news, {name: json.dumps(each, separators=(",", ":")) for name, each in news.items()})
