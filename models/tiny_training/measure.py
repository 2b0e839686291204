"""Measures the finished cascade on the held-out captions and checks the judge that the measuring rests on."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from models.libraries import classifier_from
from models.scenes import SIDE, caption, held_out_scenes
from models.tiny_training import denoiser, discriminator
from models.tiny_training.data import pictures
from models.tiny_training.evaluation import (
    Bools,
    Floats,
    Opinion,
    Point,
    area_under_curve,
    by_kind,
    deferral_table,
    distance,
    opine,
)
from models.tiny_training.sampling import HEAVY, LIGHT, Pictures, as_pictures
from models.tiny_training.stages import Run, decoded, draw_held_out

COMMAND = "python -m models.train_tiny"


def measure(run: Run) -> None:
    """Writes into the work folder: `figures.json`, `scores.csv` and `quality.csv`."""
    real = opine(run.judge, as_pictures(pictures(run.held_out)), run.held_out)
    light = opine(run.judge, draw_held_out(run, "light"), run.held_out)
    heavy = opine(run.judge, draw_held_out(run, "heavy"), run.held_out)
    network = classifier_from(run.built / "discriminator")
    scores = discriminator.scores(network, draw_held_out(run, "light"))
    table = deferral_table(scores, light, heavy, real.features, run.seed)
    kinds = [scene.kind for scene in run.held_out]
    figures = {
        "command": f"{COMMAND} --seed {run.seed} --samples {run.samples}",
        "seed": run.seed,
        "heavy": {
            "samples": _trained(run),
            "steps": HEAVY.steps,
            "guidance": HEAVY.guidance,
            **_model(run, heavy, real),
        },
        "light": {**_light_note(run), "steps": LIGHT.steps, "guidance": LIGHT.guidance, **_model(run, light, real)},
        "captions": {"held_out": len(kinds), **{kind: kinds.count(kind) for kind in sorted(set(kinds))}},
        "judge": _check_judge(run, real),
        "discriminator": _skill(scores, light.right, np.array(kinds)),
        "table": [asdict(point) for point in table],
    }
    (run.work / "figures.json").write_text(json.dumps(_rounded(figures), indent=1) + "\n")
    _write_scores(run, scores, light, heavy)
    _write_quality(run.work / "quality.csv", table, str(figures["command"]))


def _model(run: Run, opinion: Opinion, real: Opinion) -> dict[str, Any]:
    return {
        "fid": distance(opinion.features, real.features),
        "attributes": {name: float(verdict.mean()) for name, verdict in opinion.verdicts.items()},
        "right_by_kind": by_kind(opinion.right, run.held_out),
    }


def _trained(run: Run) -> int:
    return run.samples // denoiser.SAMPLES_PER_STEP * denoiser.SAMPLES_PER_STEP


def _light_note(run: Run) -> dict[str, Any]:
    note: dict[str, Any] = json.loads((run.work / "light.json").read_text())
    return note


def _check_judge(run: Run, real: Opinion) -> dict[str, Any]:
    """The judge on pictures whose truth is known: real ones, decoded ones, and real ones under wrong captions."""
    drawn, through = as_pictures(pictures(run.held_out)), decoded(run, run.held_out)
    coded = opine(run.judge, through, run.held_out)
    others = held_out_scenes(len(run.held_out), run.seed + 2)
    elsewhere = opine(run.judge, as_pictures(pictures(others)), others)
    return {
        "right_on_real": float(real.right.mean()),
        "right_on_decoded": float(coded.right.mean()),
        "right_on_shuffled": float(opine(run.judge, drawn, run.held_out[1:] + run.held_out[:1]).right.mean()),
        "right_by_kind_decoded": by_kind(coded.right, run.held_out),
        "fid_of_other_real": distance(elsewhere.features, real.features),
        "fid_of_decoded": distance(coded.features, real.features),
        "decoder_psnr_db": _psnr(through, drawn),
    }


def _psnr(ours: Pictures, truth: Pictures) -> float:
    error = np.mean((ours.astype(np.float64) - truth) ** 2, axis=(1, 2, 3))
    return float(10 * np.log10(255**2 / error.mean()))


def _skill(scores: Floats, right: Bools, kinds: Any) -> dict[str, Any]:
    within = {str(kind): area_under_curve(scores[kinds == kind], right[kinds == kind]) for kind in np.unique(kinds)}
    return {"area_under_curve": area_under_curve(scores, right), "area_by_kind": within, "input_side": SIDE}


def _write_scores(run: Run, scores: Floats, light: Opinion, heavy: Opinion) -> None:
    with (run.work / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["caption", "score", "light_right", "heavy_right"])
        for scene, score, by_light, by_heavy in zip(run.held_out, scores, light.right, heavy.right, strict=True):
            writer.writerow([caption(scene), f"{score:.6f}", int(by_light), int(by_heavy)])


def _write_quality(path: Path, table: list[Point], source: str) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["selector", "heavy_share", "fid", "accuracy", "source"])
        for point in table:
            row = [point.selector, f"{point.heavy_share:.1f}", f"{point.fid:.4f}", f"{point.accuracy:.4f}", source]
            writer.writerow(row)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value
