"""What the dashboard's charts share: ECharts options as plain data, their colours the page's CSS variables.

A chart is a frame, which never changes and which a page is given once, and what one look has to say.

Colour says the stage (light, heavy; ink: both), a solid line what happened, a dashed one what the plan foresaw,
a filled area what is in hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shared.schema import Stage

Options = dict[str, Any]

INK, MUTED, FAINT, LINE, PANEL = "var(--ink)", "var(--muted)", "var(--faint)", "var(--line)", "var(--panel)"
ALARM: Final = "var(--alarm)"
COLOUR: Final[Mapping[Stage, str]] = {"light": "var(--light)", "heavy": "var(--heavy)"}
SMALL_PX: Final = 11
# Named, not inherited: ECharts measures text before it draws it.
FONT: Final = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
LEFT_PX, RIGHT_PX, FOOT_PX = 44, 14, 24  # room for the figures of the axes
# ECharts writes all decimals unless told; an expression that the browser evaluates.
FIGURES: Final = r"v => v == null ? '\u2013' : Number(v).toLocaleString('en', {maximumFractionDigits: 2})"


def base() -> Options:
    """What holds for every chart. Without animation, for it would never rest."""
    return {"animation": False, "textStyle": {"fontFamily": FONT}}


def tooltip(**more: Any) -> Options:
    """A tooltip in the page's colours."""
    return {
        "backgroundColor": PANEL,
        "borderColor": LINE,
        "padding": [6, 10],
        "confine": True,
        "textStyle": {"color": INK, "fontSize": 12},
        **more,
    }


def figures_axis(*, whole: bool = False, top: float | None = None) -> Options:
    """An upright axis from zero with a few faint lines; `whole`: its figures are counts."""
    return {
        "type": "value",
        "min": 0,
        "max": top,
        "splitNumber": 2,
        "minInterval": 1 if whole else 0,
        "axisLabel": {"color": MUTED, "fontSize": SMALL_PX},
        "splitLine": {"lineStyle": {"color": LINE}},
    }


def ground_axis(kind: str, *, labels: bool = True, **more: Any) -> Options:
    """The axis on the ground, of a kind that ECharts knows."""
    return {
        "type": kind,
        "axisLine": {"lineStyle": {"color": LINE}},
        "axisTick": {"show": False},
        "splitLine": {"show": False},
        "axisLabel": {"show": labels, "color": MUTED, "fontSize": SMALL_PX, "hideOverlap": True},
        **more,
    }


def mark_line(data: list[Options], **more: Any) -> Options:
    """Lines across a plot, which no pointer meets."""
    return {"silent": True, "symbol": "none", "animation": False, "label": {"show": False}, "data": data, **more}


def merged(frame: Any, news: Any) -> Any:
    """Options with newer ones laid over them, place by place, as ECharts' setOption does; both stay as they are."""
    if isinstance(frame, dict) and isinstance(news, dict):
        both = {name: merged(frame[name], news[name]) for name in frame.keys() & news.keys()}
        return {**frame, **news, **both}
    if isinstance(frame, list) and isinstance(news, list) and len(frame) == len(news):
        return [merged(*pair) for pair in zip(frame, news, strict=True)]
    return news
