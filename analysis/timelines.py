"""A run over one time axis, with a mark at each new plan: are deadlines met, why not, what did the planner do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from matplotlib.figure import Figure

from analysis.figures import (
    ALARM,
    FAINT,
    HEAVY,
    INK,
    KEPT,
    LIGHT,
    WIDE_IN,
    Points,
    as_svg,
    columns,
    drawing,
    dress,
    heavy_limit,
    rates,
    smooth,
    spans_above,
    tick_columns,
)
from analysis.over_time import escalations, mean_batches, steps
from planner.explain import changes
from shared.catalog import Cascade
from shared.recording import Recording
from shared.schema import Stage

HEIGHT_IN: Final = 13.2
MANY_DOTS: Final = 5_000  # beyond it dots become pixels: the page must stay light
MARKS: Final = {"any": 0.04, "fleet": 0.13}  # of a panel's height: marks of plans must not be taken for lines
COLOURS: Final[dict[Stage, str]] = {"light": LIGHT, "heavy": HEAVY}
PLANNED: Final = (0, (4, 1.5))  # dashes of what was planned, beside what was
NAMES: Final = [("light", LIGHT), ("heavy", HEAVY)]


def draw(recording: Recording, cascade: Cascade, width_in: float = WIDE_IN) -> str:
    """Latency, demand, queues, workers, escalation and batches over one time axis; `<svg>...</svg>`."""
    panels: tuple[Callable[[Any, Recording, Cascade], None], ...] = (
        draw_latency,
        draw_demand,
        draw_queues,
        draw_workers,
        draw_escalation,
        draw_batches,
    )
    with drawing(f"run-{width_in}"):
        figure = Figure(figsize=(width_in, HEIGHT_IN))
        axes = figure.subplots(len(panels), 1, sharex=True, height_ratios=(3.4, 3, 2.6, 2.4, 3, 2.4))
        for panel, axis in zip(panels, axes, strict=True):
            panel(axis, recording, cascade)
            mark_plans(axis, recording)
            axis.grid(axis="y", color=FAINT, alpha=0.25, linewidth=0.6)
            axis.tick_params(length=0)
        axes[-1].set_xlim(0, max(recording.end - recording.start, 1.0))
        axes[-1].set_xlabel("seconds since the first prompt")
        figure.align_ylabels()
        left, right, top, bottom = 0.58 / width_in, 1 - 0.12 / width_in, 1 - 0.25 / HEIGHT_IN, 0.45 / HEIGHT_IN
        figure.subplots_adjust(left=left, right=right, top=top, bottom=bottom, hspace=0.26)
        return as_svg(figure)


def mark_plans(axis: Any, recording: Recording) -> None:
    """A short tick at the bottom of a panel at each new plan, a longer one where workers or batches changed."""
    for kind, plans in (("any", recording.plans), ("fleet", changes(recording.plans))):
        times = [plan.made - recording.start for plan in plans]
        axis.vlines(times, 0, MARKS[kind], transform=axis.get_xaxis_transform(), color=INK, alpha=0.6, linewidth=0.9)


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


def draw_demand(axis: Any, recording: Recording, cascade: Cascade) -> None:
    """Prompts per second: offered, planned for, and the spans in which all-heavy could not take them."""
    offered = rates(recording)
    axis.fill_between(*columns(offered), step="post", color=FAINT, alpha=0.4, linewidth=0)
    axis.plot(*columns(smooth(offered)), color=INK, linewidth=1.6)
    axis.step(*tick_columns(recording, "demand"), where="post", color=KEPT, linewidth=1.6, linestyle=PLANNED)
    words = [("offered", INK), ("planned for", KEPT)]
    limit = heavy_limit(recording, cascade)
    if limit:
        words.append((f"all heavy: {limit:.1f}/s", ALARM))
        axis.axhline(limit, color=ALARM, linewidth=1, linestyle=(0, (1, 1.5)))
        for begin, end in spans_above(smooth(offered), limit):
            axis.axvspan(begin, end, color=ALARM, alpha=0.1, linewidth=0)
    axis.set_ylim(bottom=0)
    dress(axis, "Demand", "prompts/s", words)


def draw_queues(axis: Any, recording: Recording, cascade: Cascade) -> None:  # noqa: ARG001
    """Prompts that wait for each stage, and those in the hands of its workers."""
    for stage, colour in COLOURS.items():
        axis.plot(*tick_columns(recording, f"waiting_{stage}"), color=colour, linewidth=1.6)
        running = tick_columns(recording, f"running_{stage}")
        axis.plot(*running, color=colour, linewidth=1.1, linestyle=(0, (1, 1.2)))
    _count_up(axis)
    dress(axis, "Waiting", "prompts", [*NAMES, ("dotted: in flight", INK)])


def draw_workers(axis: Any, recording: Recording, cascade: Cascade) -> None:  # noqa: ARG001
    """Workers ready per stage, and how many the plan wants."""
    for stage, colour in COLOURS.items():
        wanted = planned(recording, f"{stage}_workers")
        axis.step(*columns(wanted), where="post", color=colour, linewidth=1.1, linestyle=PLANNED)
        axis.step(*tick_columns(recording, f"{stage}_workers"), where="post", color=colour, linewidth=1.6)
    _count_up(axis)
    dress(axis, "Workers ready", "workers", [*NAMES, ("dashed: wanted", INK)])


def draw_escalation(axis: Any, recording: Recording, cascade: Cascade) -> None:  # noqa: ARG001
    """The plan's threshold, and the share of the light pictures that went on to heavy, predicted and measured."""
    axis.step(*tick_columns(recording, "threshold"), where="post", color=INK, linewidth=1.6)
    predicted = planned(recording, "heavy_share")
    axis.step(*columns(predicted), where="post", color=HEAVY, linewidth=1.1, linestyle=PLANNED)
    axis.step(*columns(steps(escalations(recording))), where="post", color=HEAVY, linewidth=1.6)
    axis.set_ylim(-0.03, 1.03)
    dress(axis, "Escalation", "score, share", [("threshold", INK), ("escalated", HEAVY), ("dashed: predicted", HEAVY)])


def draw_batches(axis: Any, recording: Recording, cascade: Cascade) -> None:  # noqa: ARG001
    """Mean batch of each stage, and the batch that the plan set."""
    for stage, colour in COLOURS.items():
        wanted = planned(recording, f"{stage}_batch")
        axis.step(*columns(wanted), where="post", color=colour, linewidth=1.1, linestyle=PLANNED)
        axis.step(*columns(steps(mean_batches(recording, stage))), where="post", color=colour, linewidth=1.6)
    _count_up(axis)
    dress(axis, "Mean batch", "prompts", [*NAMES, ("dashed: planned", INK)])


def planned(recording: Recording, name: str) -> Points:
    """A figure of the plan in force from each plan on, to the end of the run."""
    points = [(plan.made - recording.start, float(getattr(plan, name))) for plan in recording.plans]
    return [*points, *((recording.end - recording.start, value) for _, value in points[-1:])]


def _count_up(axis: Any) -> None:
    """Whole numbers from zero, with room below and above, where a line on the frame would be cut in half."""
    top = max([1.0, *(max(line.get_ydata(), default=0) for line in axis.lines)])
    axis.set_ylim(-0.04 * top, 1.08 * top)
    axis.yaxis.get_major_locator().set_params(integer=True)


def _level(axis: Any, height: float, colour: str, label: str, at: float) -> None:
    """A dotted line with its name; `at` is the name's place from left (0) to right (1)."""
    axis.axhline(height, color=colour, linewidth=1, linestyle=(0, (1, 1.5)))
    place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "bottom"}
    axis.annotate(
        label, (at, height), (3 if at == 0 else 0, 1.5), color=colour, fontsize=8, ha="right" if at else "left", **place
    )
