"""What all figures share: SVG text that takes its colours from the page it stands in, and a run as points over time."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, pairwise
from typing import Any, Final

import matplotlib
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea

from shared.catalog import Cascade
from shared.ledger import WINDOW_S
from shared.pace import pace
from shared.recording import Recording

# Drawn in these stand-ins, then renamed to the page's variables, so that one drawing serves a light and
# a dark page. The values behind the commas serve where the SVG stands alone: readable on white and black,
# and told apart by the colour-blind (after Okabe and Ito).
INK: Final = "#010101"
FAINT: Final = "#020202"
LIGHT: Final = "#030303"
HEAVY: Final = "#040404"
KEPT: Final = "#050505"
ALARM: Final = "#060606"
VARIABLES: Final = {
    INK: "var(--ink, #777)",
    FAINT: "var(--faint, #999)",
    LIGHT: "var(--light, #2a8fd0)",
    HEAVY: "var(--heavy, #d97706)",
    KEPT: "var(--kept, #0f9d76)",
    ALARM: "var(--alarm, #d6455d)",
}

WIDE_IN: Final = 9.0
NARROW_IN: Final = 4.2
SMOOTH_S: Final = 5.0  # a demand shorter than this is met by the queue and is no overload

_STYLE: Final = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "path.simplify": True,
}
_NOTHING: Final = {"Creator": None, "Date": None, "Format": None, "Type": None}

Points = list[tuple[float, float]]
Words = Sequence[tuple[str, str]]


@contextmanager
def drawing(name: str) -> Iterator[None]:
    """The style of all figures. `name` is the drawing's own: two on one page must not share their ids."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        yield


def as_svg(figure: Figure) -> str:
    """The figure as `<svg>...</svg>` in the page's colours; to be called while `drawing`."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata=_NOTHING)
    return _colour_by_page(text.getvalue())


def rates(recording: Recording) -> Points:
    """Prompts offered per second between successive ticks, each at the begin of its interval."""
    return [
        (before.time_s - recording.start, (after.offered - before.offered) / (after.time_s - before.time_s))
        for before, after in pairwise(recording.ticks)
        if after.time_s > before.time_s
    ]


def smooth(points: Points, over_s: float = SMOOTH_S) -> Points:
    """The mean of the points that lie within half of `over_s` seconds to either side."""
    near = [[rate for other, rate in points if abs(other - time) <= over_s / 2] for time, _ in points]
    return [(time, sum(rates) / len(rates)) for (time, _), rates in zip(points, near, strict=True)]


def heavy_limit(recording: Recording, cascade: Cascade) -> float:
    """Prompts per second that all slots would take if all drew heavy at the best batch in time; 0 if unknown.

    The profile is corrected by what the plans held a heavy batch to take, for they know the live pace.
    """
    fleets = (max(len(plan.assignment), plan.light_workers + plan.heavy_workers) for plan in recording.plans)
    slots = max(fleets, default=0)
    known = pace(recording.plans, cascade, "heavy")
    ratio = known.ratio if known else 1.0
    seconds = {batch: ratio * cascade.service_s("heavy", batch) for batch in cascade.batches("heavy")}
    in_time = [batch / needed for batch, needed in seconds.items() if needed <= recording.deadline_s]
    return slots * max(in_time, default=0.0)


def spans_above(points: Points, limit: float) -> Points:
    """Begin and end, in seconds, of each stretch in which the points lie above the limit."""
    ends = [*(time for time, _ in points[1:]), *(time for time, _ in points[-1:])]
    stretches = groupby(zip(points, ends, strict=True), key=lambda item: item[0][1] > limit)
    kept = [list(items) for above, items in stretches if above]
    return [(items[0][0][0], items[-1][1]) for items in kept]


def heavy_shares(recording: Recording) -> Points:
    """Heavy share of the answered prompts by the time they were published, in windows of WINDOW_S seconds."""
    ends: dict[int, list[bool]] = {}
    for outcome in recording.outcomes:
        if outcome.answered:
            window = int((outcome.published - recording.start) // WINDOW_S)
            ends.setdefault(window, []).append(outcome.end == "heavy")
    shares = [(window * WINDOW_S, sum(ends[window]) / len(ends[window])) for window in sorted(ends)]
    # A step is drawn up to the next point: without this one the last window would not be seen.
    return [*shares, *((time + WINDOW_S, share) for time, share in shares[-1:])]


def tick_columns(recording: Recording, name: str) -> tuple[list[float], list[float]]:
    """Seconds since the start, and a field of the ticks at each."""
    return columns([(tick.time_s - recording.start, getattr(tick, name)) for tick in recording.ticks])


def columns(points: Points) -> tuple[list[float], list[float]]:
    """All x and all y."""
    return [x for x, _ in points], [y for _, y in points]


def dress(axis: Any, title: str, unit: str, words: Words) -> None:
    """Unit at the axis; the title with the names of the lines, each in its line's colour, above the panel."""
    axis.set_ylabel(unit)
    head = TextArea(title, textprops={"weight": "bold", "color": INK})
    named = [TextArea(word, textprops={"color": colour}) for word, colour in words]
    row = HPacker(children=[head, *named], pad=0, sep=10, align="baseline")
    place = {"bbox_to_anchor": (0, 1.01), "bbox_transform": axis.transAxes, "borderpad": 0}
    axis.add_artist(AnchoredOffsetbox(loc="lower left", child=row, frameon=False, pad=0, **place))


def _colour_by_page(svg: str) -> str:
    """Cut the prolog, name the colours, and drop ids that nothing refers to but that would occur twice."""
    svg = svg[svg.index("<svg") :]
    for stand_in, variable in VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    return re.sub(r'<g id="[^"]*"', "<g", svg).strip()
