"""Policies beside each other on one trace and cascade, as SVG.

tradeoff.svg     quality against violations: one point a policy, and the bound
bars.svg         violations and quality, a bar a policy
published.svg    threshold, violations and quality over time, one line a policy, as the DiffServe paper draws them
over-time.svg    demand, then threshold, workers, violations and quality of each policy in a row of its own
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from analysis import over_time
from analysis.bound import Bound
from analysis.figures import (
    ALARM,
    FAINT,
    HEAVY,
    INK,
    LIGHT,
    WIDE_IN,
    Points,
    Words,
    as_svg,
    columns,
    drawing,
    dress,
    heavy_shares,
    rates,
    smooth,
    tick_columns,
)
from analysis.labels import Label, line_around, write_labels
from analysis.looks import OURS, look
from analysis.tiles import METRICS
from shared.catalog import Cascade
from shared.files import write_text
from shared.recording import Recording
from shared.summary import percent, quality_figure, selector, summarise

Runs = Mapping[str, Recording]
PERCENTS: Final = (0, 0.1, 1, 5, 20, 50, 100)
FEW_PERCENTS: Final = (0, 1, 10, 50, 100)
FEWEST_PERCENTS: Final = (0, 10, 50, 100)


def write_figures(runs: Runs, cascade: Cascade, folder: Path, bound: Bound | None = None) -> list[Path]:
    """Draw all figures, then write them into a folder, which is made; returns their paths. Raises OSError.

    `runs`: the recording of each policy, by name, of one trace, cascade and fleet.
    """
    drawn = {
        "tradeoff": draw_tradeoff(runs, cascade, bound),
        "bars": draw_bars(runs, cascade, bound),
        "published": draw_published(runs, cascade, bound),
        "over-time": draw_over_time(runs, cascade),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = {folder / f"{name}.svg": svg for name, svg in drawn.items()}
    for path, svg in paths.items():
        write_text(path, svg + "\n")
    return list(paths)


def draw_tradeoff(runs: Runs, cascade: Cascade, bound: Bound | None = None) -> str:
    """Quality against violations. The axis of violations is a root, so that a tenth of a percent can be seen."""
    with drawing("tradeoff"):
        figure = Figure(figsize=(WIDE_IN, 5))
        axis = figure.subplots()
        labels = []
        for name, found in _summaries(runs, cascade).items():
            value, missed = found["quality"]["value"], 100 * found["violation"]
            if value is None:
                continue
            style, ours = look(name), name == OURS
            axis.plot(missed, value, style.mark, color=style.colour, markersize=10 if ours else 7, mew=0, clip_on=False)
            text = f"{name}  {quality_figure(found['quality'], 'value')} · {percent(found['violation'])}"
            labels.append(Label(missed, value, text, style.colour if ours else INK, ours))
        _percents(axis.xaxis, PERCENTS)
        axis.set_xlim(0, 100)
        axis.margins(y=0.12)
        axis.set_xlabel("late or unanswered, % of the prompts offered; lower is better")
        axis.tick_params(length=0)
        axis.spines["left"].set_position(("outward", 10))  # most points lie at 0: none shall hide the figures
        figure.subplots_adjust(left=0.08, right=0.97, top=0.93, bottom=0.12)
        if bound:
            axis.update_datalim([(0, bound.best_quality)])
        boxes = write_labels(axis, labels)
        dress(axis, METRICS[cascade.metric], "", _level(partial(line_around, axis, boxes), bound, cascade))
        return as_svg(figure)


def draw_bars(runs: Runs, cascade: Cascade, bound: Bound | None = None) -> str:
    """Violations and quality of each policy; bars of quality begin at the best point of the cascade's curve."""
    found = _summaries(runs, cascade)
    with drawing("bars"):
        figure = Figure(figsize=(WIDE_IN, 0.9 + 0.3 * len(found)))
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(4, 5))
        for place, (name, summary) in enumerate(found.items()):
            _bar(left, place, name, 0.0, 100 * summary["violation"], percent(summary["violation"]))
        _percents(left.xaxis, FEW_PERCENTS)
        left.set_xlim(0, 150)
        left.set_yticks(range(len(found)), list(found))
        for label in left.get_yticklabels():
            label.set_weight("bold" if label.get_text() == OURS else "normal")
        left.invert_yaxis()
        dress(left, "Late or unanswered, %", "", [])
        _quality_bars(right, found, cascade, bound)
        for axis in (left, right):
            axis.tick_params(length=0)
            axis.spines[["left", "bottom"]].set_visible(False)
        height = figure.get_figheight()
        figure.subplots_adjust(left=0.12, right=0.98, top=1 - 0.3 / height, bottom=0.3 / height, wspace=0.06)
        return as_svg(figure)


def draw_published(runs: Runs, cascade: Cascade, bound: Bound | None = None) -> str:
    """Threshold, violations and quality over time, all policies in each panel."""
    with drawing("published"):
        figure = Figure(figsize=(WIDE_IN, 7.6))
        axes = figure.subplots(3, 1, sharex=True)
        for name, run in runs.items():
            style = look(name)
            line = {"color": style.colour, "linewidth": style.width, "linestyle": style.dashes, "where": "post"}
            line["zorder"] = 3 if name == OURS else 2
            if selector(run.plans) != "lot":
                axes[0].step(*tick_columns(run, "threshold"), **line)
            axes[1].step(*columns(_in_percent(over_time.violations(run))), **line)
            axes[2].step(*columns(over_time.steps(over_time.qualities(run, cascade))), **line)
            axes[2].plot([], [], color=style.colour, linewidth=style.width, linestyle=style.dashes, label=name)
        _percents(axes[1].yaxis, FEW_PERCENTS)
        dress(axes[0], "Threshold", "", [])
        dress(axes[1], "Late or unanswered, %", "", [("of the prompts offered in 5 s", FAINT)])
        dress(axes[2], METRICS[cascade.metric], "", _level(axes[2].axhline, bound, cascade))
        for axis in axes:
            axis.tick_params(length=0)
            axis.grid(axis="y", color=FAINT, alpha=0.25, linewidth=0.6)
        axes[-1].set_xlim(0, _seconds(runs))
        axes[-1].set_xlabel("seconds since the first prompt")
        across = math.ceil(len(runs) / math.ceil(len(runs) / 7))
        figure.legend(loc="upper left", bbox_to_anchor=(0.05, 1), ncols=across, frameon=False, labelcolor=INK)
        figure.subplots_adjust(left=0.06, right=0.98, top=0.89, bottom=0.07, hspace=0.24)
        return as_svg(figure)


def draw_over_time(runs: Runs, cascade: Cascade) -> str:
    """Demand above, then a row a policy: threshold and heavy share, workers, violations, quality on equal axes."""
    panels: Sequence[tuple[Callable[[Any, Recording, Cascade], None], str, str]] = (
        (_draw_cascade, "threshold", "heavy share"),
        (_draw_workers, "light workers", "heavy workers"),
        (_draw_violations, "late or unanswered, %", ""),
        (_draw_quality, METRICS[cascade.metric].split(",")[0], ""),
    )
    colours = ((INK, HEAVY), (LIGHT, HEAVY), (ALARM, ""), (INK, ""))
    height = 2.7 + 0.95 * len(runs)
    with drawing("over-time"):
        figure = Figure(figsize=(12, height))
        # The empty row keeps the figures under the demand from the words above the panels.
        grid = figure.add_gridspec(len(runs) + 2, 4, height_ratios=[1.3, 0.15, *[1.0] * len(runs)])
        demand = figure.add_subplot(grid[0, :])
        _draw_demand(demand, runs)
        demand.set_xlim(0, _seconds(runs))
        rows = [[figure.add_subplot(grid[row + 2, column]) for column in range(4)] for row in range(len(runs))]
        for axes, run in zip(rows, runs.values(), strict=True):
            for axis, (panel, *_) in zip(axes, panels, strict=True):
                panel(axis, run, cascade)
                axis.grid(axis="y", color=FAINT, alpha=0.25, linewidth=0.6)
                axis.set_xlim(0, _seconds(runs))
                axis.tick_params(length=0, labelbottom=axes is rows[-1], labelsize=8)
        for place, (_, first, second) in enumerate(panels):
            _share_scale([axes[place] for axes in rows])
            words = [(word, colour) for word, colour in zip((first, second), colours[place], strict=True) if word]
            dress(rows[0][place], "", "", words)
            rows[-1][place].set_xlabel("seconds")
        for axes, name in zip(rows, runs, strict=True):
            axes[0].set_ylabel(name, labelpad=24, color=look(name).colour, weight="bold")
            axes[0].yaxis.label.set(rotation=0, ha="right", va="center")
        top, bottom = 1 - 0.3 / height, 0.5 / height
        figure.subplots_adjust(left=0.145, right=0.99, top=top, bottom=bottom, hspace=0.32, wspace=0.2)
        return as_svg(figure)


def _draw_demand(axis: Any, runs: Runs) -> None:
    run = runs.get(OURS) or next(iter(runs.values()))
    offered = rates(run)
    axis.fill_between(*columns(offered), step="post", color=FAINT, alpha=0.4, linewidth=0)
    axis.plot(*columns(smooth(offered)), color=INK, linewidth=1.6)
    axis.set_ylim(bottom=0)
    axis.tick_params(length=0, labelsize=8)
    dress(axis, "Demand", "prompts/s", [("offered, and its mean over 5 s", INK)])


def _draw_cascade(axis: Any, run: Recording, cascade: Cascade) -> None:  # noqa: ARG001
    axis.step(*columns(heavy_shares(run)), where="post", color=HEAVY, linewidth=1.2)
    if selector(run.plans) != "lot":  # by lot, the threshold decides nothing
        axis.step(*tick_columns(run, "threshold"), where="post", color=INK, linewidth=1.2)
    axis.set_ylim(-0.04, 1.04)


def _draw_workers(axis: Any, run: Recording, cascade: Cascade) -> None:  # noqa: ARG001
    for stage, colour in (("light", LIGHT), ("heavy", HEAVY)):
        axis.step(*tick_columns(run, f"{stage}_workers"), where="post", color=colour, linewidth=1.2)


def _draw_violations(axis: Any, run: Recording, cascade: Cascade) -> None:  # noqa: ARG001
    points = _in_percent(over_time.violations(run))
    axis.fill_between(*columns(points), step="post", color=ALARM, alpha=0.25, linewidth=0)
    axis.step(*columns(points), where="post", color=ALARM, linewidth=1.2)
    _percents(axis.yaxis, FEWEST_PERCENTS)
    axis.set_ylim(0, 100)


def _draw_quality(axis: Any, run: Recording, cascade: Cascade) -> None:
    axis.step(*columns(over_time.steps(over_time.qualities(run, cascade))), where="post", color=INK, linewidth=1.2)


def _bar(axis: Any, place: int, name: str, start: float, end: float, text: str) -> None:
    style, ours = look(name), name == OURS
    axis.barh(place, end - start, left=start, height=0.62, color=style.colour, alpha=1 if ours else 0.7)
    where = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 8.5}
    axis.annotate(text, (max(start, end), place), weight="bold" if ours else "normal", **where)


def _quality_bars(axis: Any, found: Mapping[str, dict[str, Any]], cascade: Cascade, bound: Bound | None) -> None:
    known = {name: summary["quality"] for name, summary in found.items() if summary["quality"]["value"] is not None}
    if not known:
        return
    curve = cascade.curve()
    pick = min if curve.lower_is_better else max
    best = pick(value for _, value in curve.points)
    for place, name in enumerate(found):
        if name in known:
            _bar(axis, place, name, best, known[name]["value"], quality_figure(known[name], "value"))
    values = [best, *(quality["value"] for quality in known.values())]
    room = 0.16 * (max(values) - min(values) or 1.0)
    axis.set_xlim(min(values), max(values) + room)
    words = [("from the curve's best", FAINT), *_level(axis.axvline, bound, cascade)]
    dress(axis, METRICS[cascade.metric].split(",")[0], "", words)


def _level(draw: Callable[..., Any], bound: Bound | None, cascade: Cascade) -> Words:
    """The bound as a dotted line, and its name for the head of the panel."""
    if bound is None:
        return []
    draw(bound.best_quality, color=INK, linewidth=1, linestyle=(0, (1, 1.5)))
    best = quality_figure({"metric": cascade.metric, "value": bound.best_quality}, "value")
    return [(f"dotted: clairvoyant bound {best}", INK)]


def _percents(axis: Any, ticks: Sequence[float]) -> None:
    """A root scale: zero can be shown, and small figures can be told apart beside large ones."""
    scale = axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale
    scale("function", functions=(lambda share: abs(share) ** 0.5, lambda root: root**2))
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])


def _share_scale(axes: Sequence[Any]) -> None:
    limits = [axis.get_ylim() for axis in axes]
    for axis in axes:
        axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def _in_percent(points: Points) -> Points:
    return [(time, 100 * share) for time, share in over_time.steps(points)]


def _summaries(runs: Runs, cascade: Cascade) -> dict[str, dict[str, Any]]:
    return {name: summarise(run, cascade) for name, run in runs.items()}


def _seconds(runs: Runs) -> float:
    return max([1.0, *(run.end - run.start for run in runs.values())])
