"""Histogram of the light pictures' scores, cut by the threshold."""

from __future__ import annotations

from typing import Final

from services.gateway.charts import (
    COLOUR,
    FOOT_PX,
    INK,
    LEFT_PX,
    RIGHT_PX,
    SMALL_PX,
    Options,
    base,
    figures_axis,
    ground_axis,
    mark_line,
    merged,
    tooltip,
)
from services.gateway.snapshot import Snapshot

BINS: Final = 25
HEIGHT_PX: Final = 170
NAMES: Final = [f"score {place / BINS:.2f} to {(place + 1) / BINS:.2f}" for place in range(BINS)]
# Bars stand on an axis of bins, the threshold on one of scores over it.
FRAME: Final[Options] = {
    **base(),
    "grid": {"left": LEFT_PX, "right": RIGHT_PX, "top": 24, "bottom": FOOT_PX},
    "tooltip": tooltip(trigger="item", formatter="{b}: {c}"),
    "xAxis": [
        ground_axis("category", labels=False, data=NAMES),
        ground_axis("value", min=0, max=1, position="bottom", splitNumber=5),
    ],
    "yAxis": figures_axis(whole=True),
    "series": [
        {"type": "bar", "barCategoryGap": "12%", "itemStyle": {"opacity": 0.75}},
        {"type": "line", "xAxisIndex": 1, "data": []},
    ],
}


def histogram(snapshot: Snapshot) -> Options:
    """Scores lie in [0, 1]; what lies below the threshold goes on to heavy."""
    made: Options = merged(FRAME, news(snapshot))
    return made


def news(snapshot: Snapshot) -> Options:
    """What one look changes, for the frame's places."""
    threshold = snapshot.plan.threshold if snapshot.plan else None
    return {"series": [{"data": _bars(snapshot.scores, threshold)}, {"markLine": _cut(threshold)}]}


def counts(scores: tuple[float, ...]) -> list[int]:
    """How many scores lie in each of BINS equal parts of [0, 1]; a score of 1 in the last."""
    found = [0] * BINS
    for score in scores:
        found[min(BINS - 1, max(0, int(score * BINS)))] += 1
    return found


def _bars(scores: tuple[float, ...], threshold: float | None) -> list[Options]:
    limit = -1.0 if threshold is None else threshold
    colours = (COLOUR["heavy" if (place + 0.5) / BINS < limit else "light"] for place in range(BINS))
    return [
        {"value": count, "itemStyle": {"color": colour}} for count, colour in zip(counts(scores), colours, strict=True)
    ]


def _cut(threshold: float | None) -> Options:
    # Beside the line at the edges, where the figures of the axis stand.
    side = "left" if (threshold or 0.0) < 0.2 else "right" if (threshold or 0.0) > 0.8 else "center"
    text = {
        "show": True,
        "align": side,
        "formatter": f"threshold {threshold or 0.0:.2f}",
        "color": INK,
        "fontSize": SMALL_PX,
    }
    line = {"color": INK, "type": "solid", "width": 1.5}
    data: list[Options] = [] if threshold is None else [{"xAxis": round(threshold, 4)}]
    return mark_line(data, label=text, lineStyle=line)
