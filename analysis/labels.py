"""Names beside points, none upon another: points that stand close share a column of names, in the order of heights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox

from analysis.figures import FAINT

GAP: Final = 10.0  # pixels between a point and its name
APART: Final = 15.0  # pixels from one name of a column to the next


@dataclass(frozen=True, slots=True)
class Label:
    """A name for the point (x, y) of the data."""

    x: float
    y: float
    text: str
    colour: str
    bold: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """A written name: its text, the size it takes, and its point, in pixels."""

    text: Any
    width: float
    x: float
    y: float


def write_labels(axis: Any, labels: Sequence[Label]) -> list[Bbox]:
    """Write the names into a laid-out axis; returns the boxes they take, in pixels."""
    axis.autoscale_view()
    axis.set_autoscale_on(False)  # a line to a name must not move the points
    renderer = FigureCanvasAgg(axis.get_figure()).get_renderer()
    frame = axis.get_window_extent(renderer)
    written = [_write(axis, label, renderer) for label in labels]
    widest = max((name.width for name in written), default=0.0)
    boxes = []
    for column in columns_of(written, widest, frame.x1):
        left = _left(column, widest, frame)
        heights = spread([name.y for name in column], APART, frame.y0 + APART / 2, frame.y1 - APART / 2)
        for name, height in zip(column, heights, strict=True):
            start = left if left > name.x else left + widest - name.width
            boxes.append(Bbox.from_extents(start, height - APART / 2, start + name.width, height + APART / 2))
            name.text.set_position(_data(axis, start, height))
            _lead(axis, name, start - 2 if left > name.x else start + name.width + 2, height)
    return boxes


def line_around(axis: Any, boxes: Iterable[Bbox], height: float, **style: Any) -> None:
    """A line across the axis at a height of the data, broken where a name stands."""
    level = axis.transData.transform((0, height))[1]
    frame = axis.bbox
    begin = frame.x0
    for box in [*sorted((box for box in boxes if box.y0 <= level <= box.y1), key=lambda box: box.x0), None]:
        end = box.x0 - GAP / 2 if box else frame.x1
        if end > begin:
            axis.plot([_data(axis, begin, level)[0], _data(axis, end, level)[0]], [height, height], **style)
        begin = max(begin, box.x1 + GAP / 2) if box else end


def columns_of(names: Iterable[Placed], widest: float, edge: float) -> list[list[Placed]]:
    """Names that share a column, each in the order of heights: no two columns need the same room.

    A column stands right of its points, but for the last, which stands left of them where the edge is too near.
    """
    columns: list[list[Placed]] = []
    for name in sorted(names, key=lambda name: name.x):
        if columns and name.x - columns[-1][-1].x <= widest + 3 * GAP:
            columns[-1].append(name)
        else:
            columns.append([name])
    while len(columns) > 1 and columns[-1][-1].x + GAP + widest > edge:
        if columns[-1][0].x - columns[-2][-1].x > 2 * widest + 4 * GAP:
            break
        last = columns.pop()
        columns[-1] += last
    return [sorted(column, key=lambda name: name.y) for column in columns]


def _left(column: Sequence[Placed], widest: float, frame: Bbox) -> float:
    """Where a column begins: right of its points, else left of them, else at the right edge, over some of them."""
    right, left = max(name.x for name in column) + GAP, min(name.x for name in column) - GAP - widest
    if right + widest <= frame.x1:
        return right
    return left if left >= frame.x0 else float(frame.x1 - widest)


def spread(wanted: Sequence[float], apart: float, low: float, high: float) -> list[float]:
    """Heights from low to high, each at least `apart` above the one before, as near as can be to the ascending wanted.

    Least squares under an order: neighbours that are too close share their mean (pool adjacent violators).
    """
    blocks: list[list[float]] = []
    for place, height in enumerate(wanted):
        blocks.append([height - place * apart])
        while len(blocks) > 1 and _mean(blocks[-2]) > _mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    highest = high - (len(wanted) - 1) * apart
    levels = [max(low, min(_mean(block), highest)) for block in blocks for _ in block]
    return [level + place * apart for place, level in enumerate(levels)]


def _write(axis: Any, label: Label, renderer: Any) -> Placed:
    weight = "bold" if label.bold else "normal"
    text = axis.text(label.x, label.y, label.text, color=label.colour, weight=weight, fontsize=8.5, va="center")
    x, y = axis.transData.transform((label.x, label.y))
    return Placed(text, text.get_window_extent(renderer).width, x, y)


def _lead(axis: Any, name: Placed, x: float, y: float) -> None:
    """A faint line from the point to its name, where that does not stand beside it."""
    if abs(y - name.y) > APART / 3 or abs(x - name.x) > 2 * GAP:
        (x0, y0), (x1, y1) = _data(axis, name.x, name.y), _data(axis, x, y)
        axis.plot([x0, x1], [y0, y1], color=FAINT, linewidth=0.7, zorder=1)


def _data(axis: Any, x: float, y: float) -> tuple[float, float]:
    there = axis.transData.inverted().transform((x, y))
    return float(there[0]), float(there[1])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
