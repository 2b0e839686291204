"""Draws what an evaluation found: ROC, reliability, agreement of seeds, deferral; as SVG and as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot

from models.curves import Point
from models.measures import Bin, Floats

COLOURS: Final = {"discriminator": "tab:blue", "lot": "tab:grey", "oracle": "tab:green"}
OTHERS: Final = ("tab:orange", "tab:purple", "tab:red", "tab:brown")


def write_figures(
    out: Path,
    rates: tuple[Floats, Floats],
    bins: Sequence[Bin],
    scores: Floats,
    curve: Sequence[Point],
    figures: Mapping[str, Any],
) -> None:
    """`evaluation.svg` and `evaluation.png`; `scores`: (seeds, prompts) of light pictures."""
    figure, axes = pyplot.subplots(2, 2, figsize=(10, 9), layout="constrained")
    _roc(axes[0, 0], rates, figures)
    _reliability(axes[0, 1], bins, figures)
    _agreement(axes[1, 0], scores, figures)
    if curve:
        draw_curve(axes[1, 1], curve, "all right, %", 100)
    else:
        axes[1, 1].text(0.5, 0.5, "no judge of single pictures", ha="center", va="center")
        axes[1, 1].set_axis_off()
    save(figure, out / "evaluation")


def draw_curve(axis: Any, points: Sequence[Point], name: str, scale: float = 1) -> None:
    """One metric against the heavy share, one line and one band of its interval a selector."""
    spare = iter(OTHERS)
    for selector in dict.fromkeys(point.selector for point in points):
        rows = [point for point in points if point.selector == selector]
        shares = [100 * point.share for point in rows]
        colour = COLOURS.get(selector) or next(spare, "black")
        low, high = ([scale * getattr(point.found, edge) for point in rows] for edge in ("low", "high"))
        axis.fill_between(shares, low, high, color=colour, alpha=0.15, linewidth=0)
        values = [scale * point.found.value for point in rows]
        axis.plot(shares, values, "o-", markersize=3, color=colour, label=selector)
    axis.set_xlabel("share drawn by the heavy model, %")
    axis.set_ylabel(name)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)


def save(figure: Any, stem: Path) -> None:
    """Write the figure beside `stem` as .svg and .png."""
    for ending in (".svg", ".png"):
        figure.savefig(stem.with_suffix(ending), dpi=110)
    pyplot.close(figure)


def _roc(axis: Any, rates: tuple[Floats, Floats], figures: Mapping[str, Any]) -> None:
    area = figures["area_real_against_light"]
    axis.plot(*rates, color=COLOURS["discriminator"])
    _diagonal(axis)
    axis.set_xlabel("light pictures taken for real")
    axis.set_ylabel("real pictures taken for real")
    axis.set_title(f"ROC, area {area.value:.3f} ({area.low:.3f} to {area.high:.3f})")


def _reliability(axis: Any, bins: Sequence[Bin], figures: Mapping[str, Any]) -> None:
    axis.plot([each.score for each in bins], [each.real for each in bins], "o-", color=COLOURS["discriminator"])
    axis.bar([each.score for each in bins], [each.weight for each in bins], width=0.04, alpha=0.3, color="tab:grey")
    _diagonal(axis)
    axis.set_xlabel("P(real), mean of a bin (bars: share of the pictures)")
    axis.set_ylabel("share that is real")
    axis.set_title(f"Reliability, calibration error {figures['calibration_error']:.3f}")


def _agreement(axis: Any, scores: Floats, figures: Mapping[str, Any]) -> None:
    known = figures["agreement_of_seeds"]
    if known is None:
        axis.hist(scores.ravel(), bins=np.linspace(0, 1, 31).tolist(), color=COLOURS["discriminator"])
        axis.set_xlabel("P(real) of light pictures")
        axis.set_ylabel("pictures")
        return
    axis.plot(scores[0], scores[1], ".", markersize=3, color=COLOURS["discriminator"])
    axis.set_xlabel("P(real), first seed of a prompt")
    axis.set_ylabel("P(real), second seed")
    axis.set_title(f"Agreement of seeds: correlation {known:.2f}")


def _diagonal(axis: Any) -> None:
    axis.plot([0, 1], [0, 1], "--", color="tab:grey", linewidth=1)
    axis.grid(alpha=0.3)
