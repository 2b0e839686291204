"""What is said of the tiny cascade follows from what is committed: weights, recorded trials, tables and page agree."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import models
from models.libraries import classifier_from
from models.scenes import caption, held_out_scenes, is_held_out
from models.tiny_training import captioned, discriminator
from models.tiny_training.deferral import Trial, intervals
from models.tiny_training.evaluation import Opinion
from models.tiny_training.report import ahead, page
from models.tiny_training.sampling import LIGHT, draw, load_pipeline
from models.tiny_training.stages import HELD_OUT

ROOM = Path(models.__file__).parent
TINY = ROOM / "tiny"
SELECTORS = ("discriminator", "plain", "lot", "oracle")
SHARES = tuple(i / 10 for i in range(11))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((TINY / "figures.json").read_text())
    return found


@pytest.fixture(scope="module")
def recorded() -> list[dict[str, str]]:
    with (TINY / "scores.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def trials() -> dict[str, list[Trial]]:
    """What was recorded of the published and of the hard captions; the pictures' features are not."""
    with (TINY / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    found: dict[str, list[Trial]] = {}
    for captions in ("published", "hard"):
        for trial in ("0", "1", "2"):
            own = [row for row in rows if (row["captions"], row["trial"]) == (captions, trial)]
            light, heavy = ([row[f"{model}_right"] == "1" for row in own] for model in ("light", "heavy"))
            scores = {name: np.array([float(row[column]) for row in own]) for name, column in RECORDED.items()}
            found.setdefault(captions, []).append(Trial(_opinion(light), _opinion(heavy), scores))
    return found


RECORDED = {"discriminator": "score", "plain": "plain"}


def _opinion(right: list[bool]) -> Opinion:
    return Opinion({"right": np.array(right)}, np.zeros((len(right), 1)))


def test_recorded_scores_are_what_the_committed_weights_give(
    figures: dict[str, Any], recorded: list[dict[str, str]]
) -> None:
    scenes = held_out_scenes(HELD_OUT, figures["seed"])[:8]
    captions = [caption(scene) for scene in scenes]
    assert [row["caption"] for row in recorded[:8]] == captions
    seeds = range(figures["seed"], figures["seed"] + len(scenes))
    drawn = draw(load_pipeline(TINY / "light"), LIGHT, captions, seeds)
    plain = discriminator.scores(classifier_from(TINY / "discriminator"), drawn)
    np.testing.assert_allclose(plain, [float(row["plain"]) for row in recorded[:8]], atol=0.02)
    seeing = captioned.scores(TINY / "caption_discriminator", drawn, captions)
    np.testing.assert_allclose(seeing, [float(row["score"]) for row in recorded[:8]], atol=0.02)


def test_the_recorded_captions_are_distinct_and_held_out(
    figures: dict[str, Any], recorded: list[dict[str, str]], trials: dict[str, list[Trial]]
) -> None:
    captions = [row["caption"] for row in recorded]
    assert len(set(captions)) == len(captions) == figures["captions"]["held_out"] >= 600
    assert all(is_held_out(text) for text in captions)
    assert [float(row["score"]) for row in recorded] == trials["published"][0].scores["discriminator"].tolist()


def test_the_committed_table_follows_from_the_recorded_scores(trials: dict[str, list[Trial]]) -> None:
    """The mean over three drawings, each deferring its own lowest scores."""
    found: dict[tuple[str, float], list[float]] = {}
    for trial in trials["published"]:
        light, heavy = (np.array(part.right, float) for part in (trial.light, trial.heavy))
        for share in SHARES:
            deferred = round(share * len(light))
            for selector, scores in trial.scores.items():
                order = np.argsort(scores, kind="stable")
                right = heavy[order[:deferred]].sum() + light[order[deferred:]].sum()
                found.setdefault((selector, share), []).append(right / len(light))
            gained = np.sort(heavy - light)[::-1][:deferred].sum() / len(light)
            found.setdefault(("oracle", share), []).append(light.mean() + gained)
            found.setdefault(("lot", share), []).append((1 - share) * light.mean() + share * heavy.mean())
    for key, accuracy in _table().items():
        assert accuracy == pytest.approx(np.mean(found[key]), abs=0.01 if key[0] == "lot" else 1e-3)


def test_the_committed_intervals_are_those_of_the_recorded_trials(
    figures: dict[str, Any], trials: dict[str, list[Trial]]
) -> None:
    for captions, name in (("published", "intervals"), ("hard", "hard_intervals")):
        again = intervals(trials[captions], figures["seed"])
        for one, other in zip(again, figures[name], strict=True):
            assert [one[key] for key in ("selector", "over")] == [other[key] for key in ("selector", "over")]
            numbers = ("heavy_share", "difference", "low", "high")
            assert [one[key] for key in numbers] == pytest.approx([other[key] for key in numbers], abs=2e-3)


def test_the_discriminators_are_ahead_of_the_lot_beyond_the_interval(figures: dict[str, Any]) -> None:
    for share in SHARES[1:8]:
        assert share in ahead(figures["intervals"], "discriminator", "lot")
        assert share in ahead(figures["intervals"], "plain", "lot")


def test_heavy_is_right_on_nearly_all_published_captions_and_on_four_in_five_hard_ones(figures: dict[str, Any]) -> None:
    assert figures["judge"]["right_on_real"] >= 0.98
    assert figures["judge"]["right_on_shuffled"] <= 0.01
    assert figures["heavy"]["attributes"]["right"] >= 0.97
    assert 0.80 <= figures["heavy"]["hard"]["attributes"]["right"] <= 0.90


def test_an_interval_holds_the_difference_that_it_is_of() -> None:
    """A useful score is beyond the interval, one by chance is not; the ends of the range are the same for all."""
    rng = np.random.default_rng(0)
    trials = []
    for _ in range(3):
        light, heavy = rng.random(600) < 0.6, rng.random(600) < 0.95
        scores = {"discriminator": light + rng.random(600), "plain": rng.random(600)}
        trials.append(Trial(_opinion(light.tolist()), _opinion(heavy.tolist()), scores))
    rows = intervals(trials, seed=0)
    assert all(row["low"] <= row["difference"] <= row["high"] for row in rows)  # type: ignore[operator]
    assert ahead(rows, "discriminator", "lot") == list(SHARES[1:-1])
    assert len(ahead(rows, "plain", "lot")) <= 2
    assert {row["difference"] for row in rows if row["heavy_share"] in (0.0, 1.0)} == {0.0}


def test_the_page_says_what_was_measured_and_all_of_it_stays_small(figures: dict[str, Any]) -> None:
    assert (TINY / "README.md").read_text() == page(figures)
    measured = {(row["selector"], row["heavy_share"]): row["accuracy"] for row in figures["table"]}
    assert measured == pytest.approx(_table(), abs=1e-4)
    assert sum(path.stat().st_size for path in TINY.rglob("*")) <= 25e6


def _table() -> dict[tuple[str, float], float]:
    with (ROOM / "quality" / "tiny.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = {(row["selector"], float(row["heavy_share"])): float(row["accuracy"]) for row in rows}
    assert set(table) == {(selector, i / 10) for selector in SELECTORS for i in range(11)}
    return table
