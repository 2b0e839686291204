"""The page about the tiny cascade: its table, its plot, its picture grid and what can't be said in their favour."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from PIL import Image, ImageDraw, ImageFont

from models.scenes import KINDS, Scene, caption
from models.tiny_training.sampling import Pictures
from models.tiny_training.stages import Run, draw_held_out

SELECTORS = {"discriminator": "tab:blue", "lot": "tab:grey", "oracle": "tab:green"}
_ATTRIBUTES = ("ground", "count", "position", "colour", "shape", "size", "right")
_COLUMNS = 10
_SHOWN = {"one": 6, "count": 4, "pair": 10, "three": 10}
_FONT_SIZE, _ENLARGED, _GAP = 13, 128, 10
_PAPER = (238, 238, 238)
_WIDTH = 118


def report(run: Run) -> None:
    """Writes `README.md`, `deferral.png` and `grid.png` into the work folder, from what was measured there."""
    figures = json.loads((run.work / "figures.json").read_text())
    plot(figures, run.work / "deferral.png")
    grid(run, run.work / "grid.png")
    (run.work / "README.md").write_text(page(figures))


def plot(figures: dict[str, Any], path: Path) -> None:
    """Attribute accuracy and Frechet distance against the share drawn heavy, one line per selector."""
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, column, name in zip(
        axes, ("accuracy", "fid"), ("all attributes right, %", "Frechet distance"), strict=True
    ):
        scale = 100 if column == "accuracy" else 1
        for selector, colour in SELECTORS.items():
            rows = [row for row in figures["table"] if row["selector"] == selector]
            shares = [100 * row["heavy_share"] for row in rows]
            axis.plot(shares, [scale * row[column] for row in rows], "o-", markersize=4, color=colour, label=selector)
        axis.set_xlabel("share drawn by the heavy model, %")
        axis.set_ylabel(name + (" (higher is better)" if column == "accuracy" else " (lower is better)"))
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    figure.suptitle(f"Tiny cascade, {figures['captions']['held_out']:,} held-out captions")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def grid(run: Run, path: Path) -> None:
    """Thirty held-out captions, light above heavy; the first of each kind, not the best."""
    chosen = _first_of_each_kind(run.held_out)
    light, heavy = draw_held_out(run, "light"), draw_held_out(run, "heavy")
    rows = [
        _row([(caption(run.held_out[i]), light[i], heavy[i]) for i in chosen[start : start + _COLUMNS]])
        for start in range(0, len(chosen), _COLUMNS)
    ]
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), _PAPER)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    sheet.save(path, optimize=True)


def _row(cells: Sequence[tuple[str, Pictures, Pictures]]) -> Image.Image:
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


def _first_of_each_kind(scenes: Sequence[Scene]) -> list[int]:
    return [i for kind, count in _SHOWN.items() for i in [i for i, s in enumerate(scenes) if s.kind == kind][:count]]


def _enlarged(picture: Pictures) -> Image.Image:
    return Image.fromarray(picture).resize((_ENLARGED, _ENLARGED), Image.Resampling.BICUBIC)


def page(figures: dict[str, Any]) -> str:
    """The README, every number of it from `figures.json`."""
    heavy, light, judged = figures["heavy"], figures["light"], figures["judge"]
    filled = _PAGE.format(
        command=figures["command"],
        heavy_samples=f"{heavy['samples']:,}",
        light_samples=f"{light['samples']:,}",
        heavy=heavy,
        light=light,
        held_out=f"{figures['captions']['held_out']:,}",
        mix=", ".join(f"{figures['captions'][kind]:,} `{kind}`" for kind in KINDS),
        models=_models_table(heavy, light),
        table=_deferral_table(figures["table"]),
        real=_percent(judged["right_on_real"]),
        decoded=_percent(judged["right_on_decoded"]),
        shuffled=_percent(judged["right_on_shuffled"]),
        floor=f"{judged['fid_of_other_real']:.2f}",
        decoded_fid=f"{judged['fid_of_decoded']:.2f}",
        psnr=f"{judged['decoder_psnr_db']:.1f}",
        area=f"{figures['discriminator']['area_under_curve']:.2f}",
        area_by_kind=", ".join(f"{kind} {figures['discriminator']['area_by_kind'][kind]:.2f}" for kind in KINDS),
        verdicts=_verdicts(figures["table"]),
    )
    return "\n\n".join(_folded(paragraph) for paragraph in filled.strip().split("\n\n")) + "\n"


def _folded(paragraph: str) -> str:
    """Prose is folded, tables and commands stay as they are."""
    return paragraph if paragraph.startswith(("|", " ", "#", "!")) else textwrap.fill(paragraph, _WIDTH)


def _models_table(heavy: dict[str, Any], light: dict[str, Any]) -> str:
    rows = [("light", light), ("heavy", heavy)]
    head = "| model | " + " | ".join((*_ATTRIBUTES[:-1], "**all right**", *KINDS)) + " | Frechet |"
    rule = "|---" * (len(_ATTRIBUTES) + len(KINDS) + 2) + "|"
    lines = [
        f"| {name} | "
        + " | ".join(_percent(model["attributes"][a]) for a in _ATTRIBUTES)
        + " | "
        + " | ".join(_percent(model["right_by_kind"][kind]) for kind in KINDS)
        + f" | {model['fid']:.2f} |"
        for name, model in rows
    ]
    return "\n".join([head, rule, *lines])


def _deferral_table(table: Sequence[dict[str, Any]]) -> str:
    shares = sorted({row["heavy_share"] for row in table})
    found = {(row["selector"], row["heavy_share"]): row for row in table}
    lines = ["| selector | " + " | ".join(f"{share:.0%}" for share in shares) + " |", "|---" * (len(shares) + 1) + "|"]
    lines += [
        f"| {selector}, {name} | " + " | ".join(show(found[selector, share][column]) for share in shares) + " |"
        for column, name, show in (("accuracy", "all right", _percent), ("fid", "Frechet", "{:.2f}".format))
        for selector in SELECTORS
    ]
    return "\n".join(lines)


def _verdicts(table: Sequence[dict[str, Any]]) -> str:
    """Says, share by share, where the discriminator is ahead of the lot and where it is not."""
    found = {(row["selector"], row["heavy_share"]): row for row in table}
    shares = sorted({row["heavy_share"] for row in table})[1:-1]
    ahead = [s for s in shares if found["discriminator", s]["accuracy"] > found["lot", s]["accuracy"]]
    closer = [s for s in shares if found["discriminator", s]["fid"] < found["lot", s]["fid"]]
    return (
        f"In attributes right the discriminator is ahead of the lot at {_listed(ahead, shares)}; "
        f"in Frechet distance at {_listed(closer, shares)}."
    )


def _listed(some: Sequence[float], every: Sequence[float]) -> str:
    if not some:
        return "no share"
    return "every share" if len(some) == len(every) else ", ".join(f"{share:.0%}" for share in some)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


_PAGE = """# The tiny cascade

A light and a heavy text-to-image model and a discriminator, small enough for two CPU cores and this repository, real
enough to test everything with: `light/` and `heavy/` load through `StableDiffusionPipeline.from_pretrained(folder)`,
`discriminator/` through `EfficientNetForImageClassification.from_pretrained(folder)`. They draw the captioned scenes
of `models/scenes.py`, 64 x 64. Trained from a seed, resumable after a kill, by

    {command}

Both are the same denoiser: heavy after {heavy_samples} samples, {heavy[steps]} DDIM steps, guidance
{heavy[guidance]:g}; light a snapshot after {light_samples} samples, {light[steps]} steps, no guidance.

![thirty held-out captions, light above heavy](grid.png)

## Measured

On {held_out} distinct captions that were never trained on ({mix}; there are no more of the first two). A judge, a
classifier trained on real scenes only (`attributes/`), reads ground, colour, shape, size, count and position off each
picture; *all right* asks for all of them but the size. It finds {real} % of real scenes right, {decoded} % of real
scenes drawn through the decoder, and {shuffled} % of real scenes under another scene's caption. Shares in percent:

{models}

The Frechet distance is between the judge's features for the drawn and for the real scenes of the same captions, in
units of a feature's variance: its numbers compare with each other and with no published FID. Real scenes of other
captions stand at {floor}; real scenes of the same captions, drawn through the decoder ({psnr} dB), at {decoded_fid}.

## Who should be drawn heavy

![accuracy and Frechet distance against the share drawn heavy](deferral.png)

{table}

The lot is the mean of twenty; the oracle knows which model gets which caption right. {verdicts}

What to keep in mind: one seed each. What fails is nearly always a shape; the judge must name one even where it
wavers between two, and is kinder than a person to lumpy ones. The discriminator does not see the caption, so a
clean picture of the wrong thing passes; its area under the curve is {area}, but within a kind of caption
{area_by_kind}: part of its skill is to see which kind was asked for. The Frechet distance rewards a faithful
mixture, not the right choice. `scores.csv` holds each held-out caption with its score (P(real) of the light
picture) and what each model got right; `figures.json` holds every number above.
"""
