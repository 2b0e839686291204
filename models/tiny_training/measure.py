"""Measures the finished cascade on the held-out captions and checks the judge that the measuring rests on."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from models.libraries import classifier_from
from models.scenes import HARD_KINDS, KINDS, SIDE, Scene, caption, held_out_scenes
from models.tiny_training import captioned, deferral, discriminator
from models.tiny_training.data import pictures
from models.tiny_training.deferral import Trial
from models.tiny_training.evaluation import (
    Bools,
    Floats,
    Opinion,
    Point,
    area_under_curve,
    by_kind,
    distance,
    opine,
)
from models.tiny_training.sampling import HEAVY, LIGHT, Pictures, as_pictures
from models.tiny_training.stages import Run, decoded, draw_held_out

COMMAND = "python -m models.train_tiny"
TRIALS = 3


def measure(run: Run) -> None:
    """Writes into the work folder: `figures.json`, `scores.csv`, `trials.csv` and `quality.csv`."""
    real, hard_real = (opine(run.judge, _drawn(scenes), scenes) for scenes in (run.held_out, run.hard))
    trials, hard = trials_of(run), trials_of(run, hard=True)
    table = deferral.table(trials, real.features, run.seed)
    kinds = [scene.kind for scene in run.held_out + run.hard]
    figures = {
        "command": run.command(COMMAND),
        "seed": run.seed,
        "trials": TRIALS,
        **{name: _model(run, name, (trials, real), (hard, hard_real)) for name in ("light", "heavy")},
        "captions": {
            "held_out": len(run.held_out),
            "hard": len(run.hard),
            **{kind: kinds.count(kind) for kind in sorted(set(kinds))},
        },
        "judge": _check_judge(run, run.held_out, real) | {"hard": _check_judge(run, run.hard, hard_real)},
        "input_side": SIDE,
        "discriminator": _skill(trials, "discriminator", run.held_out),
        "plain": _skill(trials, "plain", run.held_out),
        "reliability": _reliability(trials),
        "table": [asdict(point) for point in table],
        "intervals": deferral.intervals(trials, run.seed),
        "hard_table": [asdict(point) for point in deferral.table(hard, hard_real.features, run.seed)],
        "hard_intervals": deferral.intervals(hard, run.seed),
    }
    (run.work / "figures.json").write_text(json.dumps(_rounded(figures), indent=1) + "\n")
    _write_scores(run, trials, hard)
    _write_quality(run.work / "quality.csv", table, str(figures["command"]))


def trials_of(run: Run, *, hard: bool = False) -> list[Trial]:
    """The held-out captions, published or hard, drawn from three seeds and judged."""
    scenes = run.hard if hard else run.held_out
    captions = [caption(scene) for scene in scenes]
    network = classifier_from(run.built / "discriminator")
    trials: list[Trial] = []
    for trial in range(TRIALS):
        light, heavy = (draw_held_out(run, model, trial, hard=hard) for model in ("light", "heavy"))
        scores = {
            "discriminator": captioned.scores(run.built / "caption_discriminator", light, captions),
            "plain": discriminator.scores(network, light),
        }
        trials.append(Trial(opine(run.judge, light, scenes), opine(run.judge, heavy, scenes), scores))
    return trials


def _model(
    run: Run, name: str, published: tuple[list[Trial], Opinion], hard: tuple[list[Trial], Opinion]
) -> dict[str, Any]:
    drawing = {"light": LIGHT, "heavy": HEAVY}[name]
    note: dict[str, Any] = json.loads((run.work / f"{name}.json").read_text())
    own = _opinion_figures(name, *published, run.held_out, run.seed)
    return note | asdict(drawing) | own | {"hard": _opinion_figures(name, *hard, run.hard, run.seed)}


def _opinion_figures(name: str, trials: list[Trial], real: Opinion, scenes: list[Scene], seed: int) -> dict[str, Any]:
    """Means over the trials."""
    opinions: list[Opinion] = [getattr(trial, name) for trial in trials]
    attributes = {key: _mean(o.verdicts[key].mean() for o in opinions) for key in opinions[0].verdicts}
    kinds = [by_kind(opinion.right, scenes) for opinion in opinions]
    return {
        "fid": _mean(distance(opinion.features, real.features) for opinion in opinions),
        "attributes": attributes,
        "right_interval": deferral.interval([opinion.right for opinion in opinions], seed),
        "right_by_trial": [float(opinion.right.mean()) for opinion in opinions],
        "right_by_kind": {kind: _mean(found[kind] for found in kinds) for kind in kinds[0]},
    }


def _check_judge(run: Run, scenes: list[Scene], real: Opinion) -> dict[str, Any]:
    """The judge on pictures whose truth is known: real ones, decoded ones, and real ones under wrong captions."""
    drawn, through = _drawn(scenes), decoded(run, scenes)
    coded = opine(run.judge, through, scenes)
    others = held_out_scenes(len(scenes), run.seed + 2, HARD_KINDS if scenes is run.hard else KINDS)
    elsewhere = opine(run.judge, _drawn(others), others)
    return {
        "right_on_real": float(real.right.mean()),
        "right_on_decoded": float(coded.right.mean()),
        "right_on_shuffled": float(opine(run.judge, drawn, scenes[1:] + scenes[:1]).right.mean()),
        "right_by_kind_decoded": by_kind(coded.right, scenes),
        "fid_of_other_real": distance(elsewhere.features, real.features),
        "fid_of_decoded": distance(coded.features, real.features),
        "decoder_psnr_db": _psnr(through, drawn),
    }


def _drawn(scenes: Sequence[Scene]) -> Pictures:
    return as_pictures(pictures(scenes))


def _psnr(ours: Pictures, truth: Pictures) -> float:
    error = np.mean((ours.astype(np.float64) - truth) ** 2, axis=(1, 2, 3))
    return float(10 * np.log10(255**2 / error.mean()))


def _skill(trials: Sequence[Trial], name: str, scenes: Sequence[Scene]) -> dict[str, Any]:
    """Areas under the curve over all trials together, in all and within each kind of caption."""
    scores, right = _joined(trials, name)
    kinds = np.array([scene.kind for scene in scenes] * len(trials))
    within = {str(kind): area_under_curve(scores[kinds == kind], right[kinds == kind]) for kind in np.unique(kinds)}
    return {"area_under_curve": area_under_curve(scores, right), "area_by_kind": within}


def _reliability(trials: Sequence[Trial]) -> list[dict[str, float]]:
    """Ten bins of equal width: how many light pictures score so, their mean P(right), and the share that is right."""
    scores, right = _joined(trials, "discriminator")
    bins = np.minimum((scores * 10).astype(int), 9)
    held = [bins == i for i in range(10)]
    return [
        {"pictures": int(some.sum()), "said": float(scores[some].mean()), "right": float(right[some].mean())}
        for some in held
        if some.any()
    ]


def _joined(trials: Sequence[Trial], name: str) -> tuple[Floats, Bools]:
    return (
        np.concatenate([trial.scores[name] for trial in trials]),
        np.concatenate([trial.light.right for trial in trials]),
    )


def _write_scores(run: Run, trials: Sequence[Trial], hard: Sequence[Trial]) -> None:
    """`scores.csv`: the first trial of the published captions; `trials.csv`: all, captions by their place."""
    head, marks = ["score", "plain", "light_right", "heavy_right"], [_marks(trial) for trial in trials]
    first = [[caption(scene), *row] for scene, row in zip(run.held_out, marks[0], strict=True)]
    _write(run.work / "scores.csv", ["caption", *head], first)
    every = [
        [kinds, trial, place, *row]
        for kinds, rows in (("published", marks), ("hard", [_marks(trial) for trial in hard]))
        for trial, found in enumerate(rows)
        for place, row in enumerate(found)
    ]
    _write(run.work / "trials.csv", ["captions", "trial", "place", *head], every)


def _marks(trial: Trial) -> list[list[str]]:
    """A row a caption: both scores, and what each model got right."""
    columns = (trial.scores["discriminator"], trial.scores["plain"], trial.light.right, trial.heavy.right)
    return [[f"{a:.6g}", f"{b:.6g}", str(int(c)), str(int(d))] for a, b, c, d in zip(*columns, strict=True)]


def _write_quality(path: Path, table: list[Point], source: str) -> None:
    rows = [
        [point.selector, f"{point.heavy_share:.1f}", f"{point.fid:.4f}", f"{point.accuracy:.4f}", source]
        for point in table
    ]
    _write(path, ["selector", "heavy_share", "fid", "accuracy", "source"], rows)


def _write(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value
