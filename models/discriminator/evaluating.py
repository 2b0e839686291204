"""How good a discriminator is: does it tell real from drawn, does P(real) mean what it says, whom does it send on.

The last is the question that matters, and the first does not answer it. So where single pictures can be judged, the
share of right pictures is measured against the share sent on, beside a random control and an oracle.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from models.bars import Say
from models.curves import Drawn, Point, Stage, worth_curves
from models.discriminator.classifier import AT_ONCE
from models.discriminator.drawing import draw, real_scenes
from models.discriminator.evaluation_figures import write_figures
from models.discriminator.examples import Squares, square
from models.discriminator.scorers import Scorer
from models.judges import SceneJudge
from models.measures import (
    Bools,
    Floats,
    agreement,
    area_under_curve,
    area_with_interval,
    calibration_error,
    log_loss,
    reliability,
    roc,
)
from shared.catalog import Cascade
from shared.tables import write_table

SEED_STEP: Final = 1_000_000  # between the seeds of one prompt, so that no two prompts share one
_EDGE: Final = 1e-6


@dataclass(frozen=True)
class Looked:
    """Scores of light pictures (seeds, prompts) and of real ones; what is right where single pictures are judged."""

    light: Floats
    real: Floats
    light_right: Bools | None = None
    heavy_right: Bools | None = None


def look(
    cascade: Cascade, scorer: Scorer, prompts: Sequence[str], seeds: int, real: Sequence[Path], work: Path, say: Say,
    judge: SceneJudge | None,
) -> Looked:  # fmt: skip
    """Draw the prompts `seeds` times by both models and score the light pictures; raises what drawing raises.

    `real`: real pictures; without, the scenes that the prompts describe.
    """
    rows: list[list[Any]] = [[], [], []]
    for number in range(seeds):
        first = number * SEED_STEP
        light = [square(path) for path in draw(cascade, "light", prompts, work / "light", say, first)]
        rows[0].append(scored(scorer, light, prompts))
        if judge is not None:
            heavy = [square(path) for path in draw(cascade, "heavy", prompts, work / "heavy", say, first)]
            rows[1].append(judge.look(np.stack(light), prompts)[0])
            rows[2].append(judge.look(np.stack(heavy), prompts)[0])
    truth = [square(path) for path in real] or (list(real_scenes(cascade, judge, prompts)) if judge else [])
    of_real = scored(scorer, truth, [""] * len(truth) if real else prompts)
    right = [np.stack(each) if each else None for each in rows[1:]]
    return Looked(np.stack(rows[0]), of_real, *right)


def scored(scorer: Scorer, pictures: Sequence[Squares], prompts: Sequence[str]) -> Floats:
    """The score of each picture; those of unlike sizes one by one."""
    scores: list[float] = []
    step = AT_ONCE if len({picture.shape for picture in pictures}) == 1 else 1
    for first in range(0, len(pictures), step):
        batch = np.stack(pictures[first : first + step])
        tensor = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255
        scores += scorer(tensor, prompts[first : first + step])
    return np.asarray(scores)


def evaluate(looked: Looked, out: Path, seed: int = 0) -> dict[str, Any]:
    """Write figures.json, tables as CSV and the figures as SVG and PNG into `out`; returns the figures."""
    out.mkdir(parents=True, exist_ok=True)
    light = looked.light.ravel()
    scores = np.concatenate([looked.real, light])
    real = np.repeat([True, False], [len(looked.real), len(light)])
    false, true = roc(scores, real)
    bins = reliability(scores, real)
    margins = np.log(np.clip(scores, _EDGE, 1 - _EDGE) / np.clip(1 - scores, _EDGE, 1))
    curve = _deferral(looked, seed)
    figures: dict[str, Any] = {
        "pictures": {"real": len(looked.real), "light": len(light), "seeds": len(looked.light)},
        "area_real_against_light": area_with_interval(scores, real, seed),
        "log_loss": log_loss(margins, real),
        "calibration_error": calibration_error(bins),
        "agreement_of_seeds": agreement(looked.light.T) if len(looked.light) > 1 else None,
        **_of_single_pictures(looked, seed),
        "behind_or_level_with_lot": [
            f"{point.share:.0%}" for point in _inner(curve, "discriminator") if point.ahead.low <= 0
        ],
    }
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    write_table(out / "roc.csv", ("false", "true"), zip(false, true, strict=True))
    write_table(out / "reliability.csv", ("score", "real", "weight"), bins)
    if curve:
        columns = ("selector", "heavy_share", "right", "low", "high", "ahead_of_lot", "ahead_low", "ahead_high")
        write_table(out / "deferral.csv", columns, [(p.selector, p.share, *p.found, *p.ahead) for p in curve])
    write_figures(out, (false, true), bins, looked.light, curve, figures)
    return figures


def _deferral(looked: Looked, seed: int) -> list[Point]:
    if looked.light_right is None or looked.heavy_right is None:
        return []
    light, heavy = (Stage(each.astype(np.float64)) for each in (looked.light_right, looked.heavy_right))
    return worth_curves(Drawn({"discriminator": looked.light}, light, heavy), seed)


def _of_single_pictures(looked: Looked, seed: int) -> dict[str, Any]:
    """What is known where single pictures are judged: whether a right one scores above a wrong one.

    Within a prompt the same is asked of pictures of that prompt alone: of two seeds, one right and one wrong.
    """
    if looked.light_right is None or looked.heavy_right is None:
        return {"single_pictures": "not judged: no judge for this cascade"}
    right = looked.light_right
    mixed = [prompt for prompt in range(right.shape[1]) if 0 < right[:, prompt].sum() < len(right)]
    within = [area_under_curve(looked.light[:, prompt], right[:, prompt]) for prompt in mixed]
    return {
        "right": {"light": float(right.mean()), "heavy": float(looked.heavy_right.mean())},
        "area_right_against_wrong": area_with_interval(looked.light.ravel(), right.ravel(), seed),
        "area_within_a_prompt": float(np.mean(within)) if within else None,
        "prompts_with_right_and_wrong": len(mixed),
        "agreement_of_rightness": agreement(right.T.astype(float)) if len(right) > 1 else None,
    }


def _inner(curve: Sequence[Point], selector: str) -> list[Point]:
    return [point for point in curve if point.selector == selector and 0 < point.share < 1]
