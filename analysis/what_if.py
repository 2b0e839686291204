"""What if there were other GPUs, or another deadline: one policy simulated over a grid of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from matplotlib.figure import Figure
from rich.table import Table

from analysis.bound import Bound, bound
from analysis.figures import ALARM, FAINT, HEAVY, INK, KEPT, LIGHT, WIDE_IN, as_svg, drawing, dress
from analysis.looks import OURS
from analysis.tiles import METRICS
from analysis.trial import Trial
from shared.catalog import Cascade
from shared.summary import percent, quality_figure, summarise

MARKS: Final = "osD^"
COLOURS: Final = (HEAVY, KEPT, LIGHT, ALARM)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a policy reaches on so many GPUs under a deadline, and what could be reached."""

    gpus: int
    deadline_s: float
    found: Mapping[str, Any]
    limit: Bound


def what_if(trial: Trial, gpus: Iterable[int], deadlines_s: Sequence[float], policy: str = OURS) -> list[Answer]:
    """Simulate the trial's trace on each number of GPUs under each deadline; raises SettingsError."""
    answers = []
    for number in gpus:
        for deadline_s in deadlines_s:
            other = replace(trial, gpus=number, deadline_s=deadline_s)
            limit = bound(other.arrivals, other.cascade, number, deadline_s)
            answers.append(Answer(number, deadline_s, summarise(other.run(policy), other.cascade), limit))
    return answers


def table(answers: Iterable[Answer]) -> Table:
    """A row an answer."""
    made = Table(title="What if")
    for head in ("GPUs", "deadline", "violation", "bound", "quality", "bound", "heavy share", "GPU s"):
        made.add_column(head, justify="right")
    for answer in answers:
        found, limit = answer.found, answer.limit
        best = {**found["quality"], "value": limit.best_quality}
        made.add_row(
            f"{answer.gpus}",
            f"{answer.deadline_s:g} s",
            percent(found["violation"]),
            percent(limit.violation),
            quality_figure(found["quality"], "value"),
            quality_figure(best, "value"),
            percent(found["heavy_share"]),
            f"{found['gpu_s_per_prompt']:.2f}",
        )
    return made


def draw_what_if(answers: Sequence[Answer], cascade: Cascade) -> str:
    """Violations and quality against the GPUs, a line a deadline, the bound of each dotted; `<svg>...</svg>`."""
    deadlines = sorted({answer.deadline_s for answer in answers})
    with drawing("what-if"):
        figure = Figure(figsize=(WIDE_IN, 3.4))
        left, right = figure.subplots(1, 2)
        for place, deadline_s in enumerate(deadlines):
            those = sorted((each for each in answers if each.deadline_s == deadline_s), key=lambda each: each.gpus)
            gpus = [each.gpus for each in those]
            style = {"color": COLOURS[place % len(COLOURS)], "marker": MARKS[place % len(MARKS)], "markersize": 5}
            missed = [100 * each.found["violation"] for each in those]
            left.plot(gpus, missed, label=f"{deadline_s:g} s", **style)
            right.plot(gpus, [each.found["quality"]["value"] for each in those], **style)
            best = [each.limit.best_quality for each in those]
            right.plot(gpus, best, color=style["color"], linewidth=1, linestyle=(0, (1, 1.5)))
        for axis in (left, right):
            axis.set_xlabel("GPUs")
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.tick_params(length=0)
            axis.grid(axis="y", color=FAINT, alpha=0.25, linewidth=0.6)
        left.set_ylim(0, max(1.0, left.get_ylim()[1]))
        left.legend(title="deadline", frameon=False, labelcolor=INK)
        dress(left, "Late or unanswered, %", "", [])
        dress(right, METRICS[cascade.metric], "", [("dotted: bound", INK)])
        figure.subplots_adjust(left=0.06, right=0.98, top=0.9, bottom=0.14, wspace=0.14)
        return as_svg(figure)
