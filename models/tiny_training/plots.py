"""The two pictures of the page about the tiny cascade: its curves, and what it draws."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from PIL import Image, ImageDraw, ImageFont

from models.scenes import Scene, caption
from models.tiny_training.sampling import Pictures
from models.tiny_training.stages import Run, draw_held_out

SELECTORS = {"discriminator": "tab:blue", "plain": "tab:orange", "lot": "tab:grey", "oracle": "tab:green"}
_COLUMNS = 10
_SHOWN = {"one": 6, "count": 4, "pair": 10, "three": 10}
_HARD_SHOWN = {"halves": 2, "relations": 2, "four": 3, "both": 3}
_FONT_SIZE, _ENLARGED, _GAP = 13, 128, 10
_PAPER = (238, 238, 238)


def plot(figures: dict[str, Any], path: Path) -> None:
    """Accuracy, what it is ahead of the lot's with its interval, and Frechet distance against the share drawn heavy."""
    figure, axes = pyplot.subplots(2, 3, figsize=(14, 8), layout="constrained")
    kinds = (("held_out", "table", "intervals", ""), ("hard", "hard_table", "hard_intervals", "hard "))
    for row, (counted, table, intervals, said) in zip(axes, kinds, strict=True):
        title = f"{figures['captions'][counted]:,} {said}held-out captions"
        _curves(row[0], figures[table], "accuracy", 100, f"{title}: all right, %")
        _ahead(row[1], figures[intervals])
        _curves(row[2], figures[table], "fid", 1, "Frechet distance (lower is better)")
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def _curves(axis: Any, table: Sequence[dict[str, Any]], column: str, scale: int, title: str) -> None:
    for selector, colour in SELECTORS.items():
        rows = [row for row in table if row["selector"] == selector]
        shares = [100 * row["heavy_share"] for row in rows]
        axis.plot(shares, [scale * row[column] for row in rows], "o-", markersize=3, color=colour, label=selector)
    _finished(axis, title)


def _ahead(axis: Any, intervals: Sequence[dict[str, Any]]) -> None:
    for selector in ("discriminator", "plain"):
        rows = [row for row in intervals if (row["selector"], row["over"]) == (selector, "lot")]
        shares = [100 * row["heavy_share"] for row in rows]
        low, middle, high = ([100 * row[name] for row in rows] for name in ("low", "difference", "high"))
        axis.plot(shares, middle, "o-", markersize=3, color=SELECTORS[selector], label=f"{selector} - lot")
        axis.fill_between(shares, low, high, color=SELECTORS[selector], alpha=0.2, linewidth=0)
    axis.axhline(0, color=SELECTORS["lot"], linewidth=1)
    _finished(axis, "ahead of the lot, points (95 % interval)")


def _finished(axis: Any, title: str) -> None:
    axis.set_title(title, fontsize=11)
    axis.set_xlabel("share drawn by the heavy model, %")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)


def grid(run: Run, path: Path) -> None:
    """Forty held-out captions, light above heavy; the first of each kind, not the best."""
    cells = _cells(run, run.held_out, _SHOWN, hard=False) + _cells(run, run.hard, _HARD_SHOWN, hard=True)
    rows = [_row(cells[start : start + _COLUMNS]) for start in range(0, len(cells), _COLUMNS)]
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), _PAPER)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    sheet.save(path, optimize=True)


Cell = tuple[str, Pictures, Pictures]


def _cells(run: Run, scenes: Sequence[Scene], shown: dict[str, int], *, hard: bool) -> list[Cell]:
    light, heavy = (draw_held_out(run, model, hard=hard) for model in ("light", "heavy"))
    first = [i for kind, count in shown.items() for i in [i for i, s in enumerate(scenes) if s.kind == kind][:count]]
    return [(caption(scenes[i]), light[i], heavy[i]) for i in first]


def _row(cells: Sequence[Cell]) -> Image.Image:
    """Captions over the light over the heavy pictures, as tall as the longest caption asks."""
    texts = ["\n".join(textwrap.wrap(text, 20)) for text, _, _ in cells]
    words = (_FONT_SIZE + 5) * max(text.count("\n") + 1 for text in texts) + _GAP // 2
    row = Image.new("RGB", (_GAP + len(cells) * (_ENLARGED + _GAP), words + 2 * _ENLARGED + 2 * _GAP), _PAPER)
    pen, font = ImageDraw.Draw(row), ImageFont.load_default(_FONT_SIZE)
    for place, (text, (_, light, heavy)) in enumerate(zip(texts, cells, strict=True)):
        left = _GAP + place * (_ENLARGED + _GAP)
        pen.multiline_text((left, _GAP // 2), text, fill="black", font=font, spacing=2)
        row.paste(_enlarged(light), (left, words))
        row.paste(_enlarged(heavy), (left, words + _ENLARGED + 2))
    return row


def _enlarged(picture: Pictures) -> Image.Image:
    return Image.fromarray(picture).resize((_ENLARGED, _ENLARGED), Image.Resampling.BICUBIC)
