"""The scores of a run's light pictures, with the thresholds that they were held against."""

from __future__ import annotations

from statistics import median
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from analysis.figures import FAINT, HEAVY, INK, LIGHT, WIDE_IN, as_svg, drawing, dress
from analysis.over_time import judgements
from shared.passages import escalated
from shared.recording import Recording

HEIGHT_IN: Final = 2.6
BINS: Final = 40


def scores(recording: Recording) -> list[float]:
    """The scores of all light pictures, ascending."""
    return sorted(outcome.score for outcome in recording.outcomes if outcome.score is not None)


def thresholds(recording: Recording) -> list[float]:
    """The threshold that each light picture was held against, ascending."""
    return sorted(plan.threshold for _, plan in judgements(recording))


def draw_scores(recording: Recording, width_in: float = WIDE_IN) -> str:
    """A histogram of the scores, of those escalated apart, with the thresholds; `<svg>...</svg>`."""
    with drawing(f"scores-{width_in}"):
        figure = Figure(figsize=(width_in, HEIGHT_IN))
        axis: Any = figure.subplots()
        _bars(axis, recording)
        words = [("answered light", LIGHT), ("escalated", HEAVY)]
        held = thresholds(recording)
        if held:
            low, middle, high = held[0], median(held), held[-1]
            axis.axvspan(low, high, color=FAINT, alpha=0.2, linewidth=0, zorder=0)
            axis.axvline(middle, color=INK, linewidth=1.4, zorder=3)
            words.append((f"median threshold {middle:.2f} ({low:.2f}\u2013{high:.2f})", INK))
        axis.set_xlim(0, 1)
        axis.set_xlabel("score of the light picture")
        axis.grid(axis="y", color=FAINT, alpha=0.25, linewidth=0.6)
        axis.tick_params(length=0)
        axis.yaxis.get_major_locator().set_params(integer=True)
        dress(axis, "Light pictures", "prompts", words)
        left, right, top, bottom = 0.58 / width_in, 1 - 0.12 / width_in, 1 - 0.3 / HEIGHT_IN, 0.45 / HEIGHT_IN
        figure.subplots_adjust(left=left, right=right, top=top, bottom=bottom)
        return as_svg(figure)


def _bars(axis: Any, recording: Recording) -> None:
    sorts: dict[bool, list[float]] = {True: [], False: []}
    for outcome in recording.outcomes:
        if outcome.score is not None:
            sorts[escalated(outcome)].append(outcome.score)
    edges = np.linspace(0, 1, BINS + 1)
    gone, kept = (np.histogram(sorts[went], edges)[0] for went in (True, False))
    width = 0.86 / BINS
    axis.bar(edges[:-1] + 0.5 / BINS, gone, width, color=HEAVY, zorder=2)
    axis.bar(edges[:-1] + 0.5 / BINS, kept, width, bottom=gone, color=LIGHT, zorder=2)
