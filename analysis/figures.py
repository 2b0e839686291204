"""A run over time, as SVG text that takes its colours from the page it stands in."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, pairwise
from statistics import median
from typing import Any, Final

import matplotlib
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea

from shared.catalog import Cascade
from shared.ledger import WINDOW_S
from shared.recording import Recording
from shared.schema import STAGES

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
HEIGHT_IN: Final = 10.5
MANY_DOTS: Final = 5_000  # beyond it dots become pixels: the page must stay light
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


def draw(recording: Recording, cascade: Cascade, width_in: float = WIDE_IN) -> str:
    """Demand, threshold, workers, queues and latency over one time axis; `<svg>...</svg>`."""
    panels: tuple[Callable[[Any, Recording, Cascade], None], ...] = (
        draw_demand,
        draw_threshold,
        draw_workers,
        draw_waiting,
        draw_latency,
    )
    with drawing(f"run-{width_in}"):
        figure = Figure(figsize=(width_in, HEIGHT_IN))
        axes = figure.subplots(len(panels), 1, sharex=True, height_ratios=(3, 3, 2.2, 2.2, 3.4))
        for panel, axis in zip(panels, axes, strict=True):
            panel(axis, recording, cascade)
            axis.grid(axis="y", color=FAINT, alpha=0.25, linewidth=0.6)
            axis.tick_params(length=0)
        axes[-1].set_xlim(0, max(recording.end - recording.start, 1.0))
        axes[-1].set_xlabel("seconds since the first prompt")
        figure.align_ylabels()
        left, right, top, bottom = 0.58 / width_in, 1 - 0.12 / width_in, 1 - 0.25 / HEIGHT_IN, 0.45 / HEIGHT_IN
        figure.subplots_adjust(left=left, right=right, top=top, bottom=bottom, hspace=0.26)
        return as_svg(figure)


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


def draw_demand(axis: Any, recording: Recording, cascade: Cascade) -> None:
    """Prompts per second: offered, planned for, and the spans in which all-heavy could not take them."""
    offered = rates(recording)
    axis.fill_between(*columns(offered), step="post", color=FAINT, alpha=0.4, linewidth=0)
    axis.plot(*columns(smooth(offered)), color=INK, linewidth=1.6)
    axis.step(*tick_columns(recording, "demand"), where="post", color=LIGHT, linewidth=1.6, linestyle=(0, (4, 1.5)))
    words = [("offered", INK), ("planned for", LIGHT)]
    limit = heavy_limit(recording, cascade)
    if limit:
        words.append((f"all heavy: {limit:.1f}/s", ALARM))
        axis.axhline(limit, color=ALARM, linewidth=1, linestyle=(0, (1, 1.5)))
        for begin, end in spans_above(smooth(offered), limit):
            axis.axvspan(begin, end, color=ALARM, alpha=0.1, linewidth=0)
    axis.set_ylim(bottom=0)
    dress(axis, "Demand", "prompts/s", words)


def draw_threshold(axis: Any, recording: Recording, cascade: Cascade) -> None:  # noqa: ARG001
    """The plan's threshold beside the heavy share of what was answered, in windows of 5 s."""
    axis.step(*tick_columns(recording, "threshold"), where="post", color=INK, linewidth=1.6)
    axis.step(*columns(heavy_shares(recording)), where="post", color=HEAVY, linewidth=1.6)
    axis.set_ylim(-0.03, 1.03)
    dress(axis, "Cascade", "score, share", [("threshold", INK), ("heavy share", HEAVY)])


def draw_workers(axis: Any, recording: Recording, cascade: Cascade) -> None:  # noqa: ARG001
    """Ready workers per stage."""
    for stage, colour in zip(STAGES, (LIGHT, HEAVY), strict=True):
        axis.step(*tick_columns(recording, f"{stage}_workers"), where="post", color=colour, linewidth=1.6)
    _count_up(axis)
    dress(axis, "Workers", "ready", [("light", LIGHT), ("heavy", HEAVY)])


def draw_waiting(axis: Any, recording: Recording, cascade: Cascade) -> None:  # noqa: ARG001
    """Prompts that wait for each stage."""
    for stage, colour in zip(STAGES, (LIGHT, HEAVY), strict=True):
        axis.plot(*tick_columns(recording, f"waiting_{stage}"), color=colour, linewidth=1.6)
    _count_up(axis)
    dress(axis, "Waiting", "prompts", [("for light", LIGHT), ("for heavy", HEAVY)])


def draw_latency(axis: Any, recording: Recording, cascade: Cascade) -> None:  # noqa: ARG001
    """A dot per answered prompt at its publication, with the deadline and the run's p50 and p99."""
    ledger = recording.tally.ledger(recording.offered)
    dots: dict[str, Points] = {LIGHT: [], HEAVY: [], KEPT: []}
    for outcome in recording.outcomes:
        if outcome.answered:
            colour = HEAVY if outcome.end == "heavy" else KEPT if outcome.why == "deadline" else LIGHT
            dots[colour].append((outcome.published - recording.start, outcome.latency_s))
    many = len(ledger.latencies_s) > MANY_DOTS
    for (colour, points), mark, size in zip(dots.items(), "o^s", (2.4, 3, 4), strict=True):
        axis.plot(*columns(points), mark, color=colour, markersize=size, alpha=0.75, mew=0, rasterized=many)
    # The names stand side by side: on a quiet run all three lines may lie close together.
    _level(axis, recording.deadline_s, ALARM, f"deadline {recording.deadline_s:g} s", 0)
    for percent, at in ((50, 0.75), (99, 1)):
        if ledger.latencies_s:
            _level(axis, ledger.latency_s(percent), INK, f"p{percent} {ledger.latency_s(percent):.2f} s", at)
    axis.set_ylim(0, max([1.1 * recording.deadline_s, *(1.03 * each for each in ledger.latencies_s[-1:])]))
    dress(axis, "Latency", "seconds", [("● light", LIGHT), ("▲ heavy", HEAVY), ("■ kept light", KEPT)])


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
    pace = median(
        [
            plan.heavy_service_s / cascade.service_s("heavy", plan.heavy_batch)
            for plan in recording.plans
            if plan.heavy_batch > 0 and plan.heavy_service_s > 0
        ]
        or [1.0]
    )
    seconds = {batch: pace * cascade.service_s("heavy", batch) for batch in cascade.batches("heavy")}
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


def _count_up(axis: Any) -> None:
    """Whole numbers from zero, with room below and above, where a line on the frame would be cut in half."""
    top = max([1.0, *(max(line.get_ydata(), default=0) for line in axis.lines)])
    axis.set_ylim(-0.04 * top, 1.08 * top)
    axis.yaxis.get_major_locator().set_params(integer=True)


def dress(axis: Any, title: str, unit: str, words: Words) -> None:
    """Unit at the axis; the title with the names of the lines, each in its line's colour, above the panel."""
    axis.set_ylabel(unit)
    head = TextArea(title, textprops={"weight": "bold", "color": INK})
    named = [TextArea(word, textprops={"color": colour}) for word, colour in words]
    row = HPacker(children=[head, *named], pad=0, sep=10, align="baseline")
    place = {"bbox_to_anchor": (0, 1.01), "bbox_transform": axis.transAxes, "borderpad": 0}
    axis.add_artist(AnchoredOffsetbox(loc="lower left", child=row, frameon=False, pad=0, **place))


def _level(axis: Any, height: float, colour: str, label: str, at: float) -> None:
    """A dotted line with its name; `at` is the name's place from left (0) to right (1)."""
    axis.axhline(height, color=colour, linewidth=1, linestyle=(0, (1, 1.5)))
    place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "bottom"}
    axis.annotate(
        label, (at, height), (3 if at == 0 else 0, 1.5), color=colour, fontsize=8, ha="right" if at else "left", **place
    )


def _colour_by_page(svg: str) -> str:
    """Cut the prolog, name the colours, and drop ids that nothing refers to but that would occur twice."""
    svg = svg[svg.index("<svg") :]
    for stand_in, variable in VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    return re.sub(r'<g id="[^"]*"', "<g", svg).strip()
