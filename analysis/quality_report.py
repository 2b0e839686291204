"""What a quality run found: the curve that the planner reads, a page that says where choosing pays, and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from models.curves import LOT, ORACLE, Point
from models.discriminator.evaluation_figures import draw_curve, save
from shared.files import write_text
from shared.tables import write_table

NAMES: Final = {
    "worth": "all attributes right",
    "reward": "mean score of a picture",
    "fid": "Frechet distance",
    "kid": "kernel distance",
}
COLUMNS: Final = ("selector", "heavy_share", "fid", "accuracy", "source")
_EDGES: Final = ("low", "high")


@dataclass(frozen=True)
class About:
    """What was measured, in words. `worth`: `accuracy` or `reward`, empty where single pictures were not judged."""

    cascade: str
    command: str
    prompts: int
    seeds: int
    worth: str
    features: str


def write_report(points: Sequence[Point], about: About, folder: Path) -> str:
    """Write `<cascade>.csv`, `quality.md`, `quality.svg` and `.png`; returns the page."""
    write_curve(points, about, folder / f"{about.cascade}.csv")
    metrics = [metric for metric in ("worth", "fid", "kid") if any(point.metric == metric for point in points)]
    if metrics:
        figure, axes = pyplot.subplots(1, len(metrics), figsize=(5.2 * len(metrics), 4.2), layout="constrained")
        for axis, metric in zip([axes] if len(metrics) == 1 else axes, metrics, strict=True):
            percent = 100 if (metric, about.worth) == ("worth", "accuracy") else 1
            name = _name(metric, about) + (", %" if percent == 100 else "")
            draw_curve(axis, [point for point in points if point.metric == metric], name, percent)
        figure.suptitle(f"{about.cascade}: {about.prompts:,} prompts, seeds of each: {about.seeds}; bands: 95 %")
        save(figure, folder / "quality")
    page = page_of(points, about, metrics)
    write_text(folder / "quality.md", page)
    return page


def write_curve(points: Sequence[Point], about: About, path: Path) -> None:
    """The table that the planner reads, with the intervals in further columns, which it passes over."""
    by_place: dict[tuple[str, float], dict[str, Point]] = {}
    for point in points:
        by_place.setdefault((point.selector, point.share), {})[point.metric] = point
    worth = [about.worth] if about.worth == "reward" else []
    intervals = [f"{metric}_{edge}" for metric in ("fid", "accuracy", "kid") for edge in _EDGES]
    header = (*COLUMNS, "kid", *worth, *intervals, "prompts", "seeds")
    write_table(path, header, [_row(key, found, about, header) for key, found in by_place.items()])


def _row(key: tuple[str, float], found: Mapping[str, Point], about: About, header: Sequence[str]) -> list[Any]:
    cells: dict[str, Any] = {"selector": key[0], "heavy_share": key[1], "source": about.command}
    cells |= {"prompts": about.prompts, "seeds": about.seeds}
    for metric, point in found.items():
        name = (about.worth or "accuracy") if metric == "worth" else metric
        cells[name] = round(point.found.value, 5)
        cells |= {f"{name}_{edge}": round(getattr(point.found, edge), 5) for edge in _EDGES}
    return [cells.get(column, "") for column in header]


def page_of(points: Sequence[Point], about: About, metrics: Sequence[str]) -> str:
    """The page: a table a metric, and what holds of each selector against the lot."""
    parts = [
        f"# Quality of the cascade {about.cascade}",
        f"    {about.command}",
        f"{about.prompts:,} prompts, seeds of each: {about.seeds}, drawn by both models through the pipeline. "
        f"Features: {about.features}. Intervals: 95 %, prompts resampled with all their seeds (KID: between blocks); "
        "a difference from the lot is of the same prompts.",
        "![Quality against the heavy share](quality.svg)" if metrics else "Nothing could be measured.",
    ]
    for metric in metrics:
        parts += [f"## {_name(metric, about)}", _table(points, metric), *_verdicts(points, metric)]
    if "worth" not in metrics:
        parts.append("Single pictures were not judged: there is no oracle, and what a choice is worth is unknown.")
    return "\n\n".join(parts) + "\n"


def _name(metric: str, about: About) -> str:
    return NAMES["reward" if (metric, about.worth) == ("worth", "reward") else metric]


def _table(points: Sequence[Point], metric: str) -> str:
    rows = [point for point in points if point.metric == metric]
    shares = sorted({point.share for point in rows})
    found = {(point.selector, point.share): point.found for point in rows}
    lines = ["| selector | " + " | ".join(f"{share:.0%}" for share in shares) + " |", "|---" * (len(shares) + 1) + "|"]
    for selector in dict.fromkeys(point.selector for point in rows):
        cells = [found[selector, share] for share in shares]
        lines.append(
            f"| {selector} | " + " | ".join(f"{c.value:.3f} ±{(c.high - c.low) / 2:.3f}" for c in cells) + " |"
        )
    return "\n".join(lines)


def _verdicts(points: Sequence[Point], metric: str) -> list[str]:
    """For each selector but the lot and the oracle, at which shares it is ahead, level or behind."""
    verdicts: list[str] = []
    for selector in dict.fromkeys(point.selector for point in points):
        inner = [p for p in points if (p.selector, p.metric) == (selector, metric) and 0 < p.share < 1]
        if selector in (LOT, ORACLE) or not inner:
            continue
        ahead = [point for point in inner if point.ahead.low > 0]
        behind = [point for point in inner if point.ahead.high < 0]
        level = [point for point in inner if point not in ahead and point not in behind]
        verdicts.append(f"**{selector}** " + "; it ".join(_said(ahead, level, behind)) + ".")
    return verdicts


def _said(ahead: Sequence[Point], level: Sequence[Point], behind: Sequence[Point]) -> list[str]:
    """Where it is what, what it is nowhere left out; but whether it beats the lot is always said."""
    said = [f"beats the lot at {_shares(ahead)}" if ahead else "beats the lot at no share"]
    if level:
        said.append(f"does not at {_shares(level)}, where the interval of the difference holds 0")
    if behind:
        said.append(f"is behind at {_shares(behind)}")
    return said


def _shares(points: Sequence[Point]) -> str:
    return ", ".join(f"{point.share:.0%} ({point.ahead.value:+.3f})" for point in points)
