"""The tiny cascade: its training repeats itself bit by bit, and what is committed does what its page says."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import models
from models.libraries import classifier_from
from models.scenes import Scene, caption, held_out_scenes, is_held_out
from models.tiny_training import attributes, checkpoint, denoiser, discriminator, networks, text
from models.tiny_training.data import pictures
from models.tiny_training.evaluation import Opinion, area_under_curve, deferral_table, frechet, opine
from models.tiny_training.loop import Course, Trainer
from models.tiny_training.sampling import HEAVY, LIGHT, Drawing, Pictures, as_pictures, draw, load_pipeline

ROOM = Path(models.__file__).parent
TINY = ROOM / "tiny"
SELECTORS = ("discriminator", "lot", "oracle")


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
def judge() -> attributes.Judge:
    return attributes.load(TINY / "attributes")


@pytest.fixture
def taught(tmp_path: Path) -> Path:
    """A work folder in which the text encoder has had its first lesson."""
    text.train(0, tmp_path, Course("text", steps=1), batch=2)
    return tmp_path


class Killed(Exception):
    pass


def course(steps: int = 6) -> Course:
    return Course(denoiser.NAME, steps=steps, average=0.9, warm_steps=2, checkpoint_every=2, slow={"text": 0.2})


def trained(work: Path, kill_at: int | None = None) -> bytes:
    module = denoiser.networks_for(0, work)

    def loss(step: int) -> Tensor:
        if step == kill_at:
            raise Killed
        return denoiser.velocity_loss(module, 0, step, 0, 2)

    trainer = Trainer(course(), module, work)
    trainer.run(loss)
    return trainer.path.read_bytes()


def test_a_killed_training_ends_as_if_it_had_run_through(taught: Path) -> None:
    through = trained(taught)
    (taught / f"{denoiser.NAME}.safetensors").unlink()
    with pytest.raises(Killed):
        trained(taught, kill_at=5)
    assert trained(taught) == through


def test_two_processes_train_as_one_would_on_both_batches(taught: Path) -> None:
    denoiser.train(0, taught, course(2), batch=2, ranks=2)
    apart = checkpoint.load(taught / f"{denoiser.NAME}.safetensors")[0]["module"]
    (taught / f"{denoiser.NAME}.safetensors").unlink()

    module = denoiser.networks_for(0, taught)

    def both(step: int) -> Tensor:
        return (denoiser.velocity_loss(module, 0, step, 0, 2) + denoiser.velocity_loss(module, 0, step, 1, 2)) / 2

    Trainer(course(2), module, taught).run(both)
    for name, weight in module.state_dict().items():
        torch.testing.assert_close(apart[name], weight, rtol=0, atol=1e-4)


def test_a_word_is_one_token_and_the_table_agrees_with_the_tokenizer() -> None:
    words = networks.tokenizer()
    captions = [caption(scene) for scene in held_out_scenes(50, 0)]
    asked = words(captions, padding="max_length", return_tensors="pt").input_ids
    assert torch.equal(networks.word_table(words)(captions), asked)


def test_frechet_distance_is_that_of_the_gaussians() -> None:
    """Independent normals with means 1 and 3 and deviations 2 and 5, 4 dimensions: 4 (2^2 + 3^2) = 52."""
    rng = np.random.default_rng(0)
    ours, real = rng.normal(1, 2, (200_000, 4)), rng.normal(3, 5, (200_000, 4))
    assert frechet(ours, real) == pytest.approx(52, rel=0.02)
    assert frechet(ours, ours) == pytest.approx(0, abs=1e-6)


def test_area_under_curve_is_the_chance_of_the_right_order() -> None:
    scores = np.array([0.1, 0.4, 0.4, 0.7, 0.9])
    right = np.array([False, True, False, False, True])
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[right] for b in scores[~right]]
    assert area_under_curve(scores, right) == pytest.approx(np.mean(pairs))


def test_the_oracle_defers_first_what_only_heavy_gets_right() -> None:
    rng = np.random.default_rng(0)
    light_right, heavy_right = rng.random(200) < 0.6, rng.random(200) < 0.9
    light, heavy = (Opinion({"right": right}, rng.normal(size=(200, 3))) for right in (light_right, heavy_right))
    table = deferral_table(light_right * 1.0, light, heavy, heavy.features, seed=0)
    oracle = {point.heavy_share: point.accuracy for point in table if point.selector == "oracle"}
    gained = np.sort(heavy_right.astype(int) - light_right.astype(int))[::-1]
    for share, accuracy in oracle.items():
        assert accuracy == pytest.approx(light_right.mean() + gained[: round(share * 200)].sum() / 200)


def test_the_judge_knows_real_scenes_from_shuffled_ones(judge: attributes.Judge) -> None:
    scenes = held_out_scenes(200, seed=99)
    drawn = as_pictures(pictures(scenes))
    assert opine(judge, drawn, scenes).right.mean() >= 0.98
    assert opine(judge, drawn, scenes[1:] + scenes[:1]).right.mean() <= 0.02


@pytest.mark.parametrize("spoilt", ["ground", "colour", "shape", "position", "count"])
def test_the_judge_sees_a_single_wrong_attribute(judge: attributes.Judge, spoilt: str) -> None:
    scenes = [scene for scene in held_out_scenes(150, seed=98) if scene.kind == "three"]
    verdict = opine(judge, as_pictures(pictures(scenes)), [_altered(scene, spoilt) for scene in scenes]).verdicts
    assert verdict["right"].mean() <= 0.02
    assert verdict[spoilt].mean() <= 0.02


def _altered(scene: Scene, attribute: str) -> Scene:
    first, *rest = scene.things
    taken = {thing.cell for thing in scene.things}
    free = next(cell for cell in ((0, 1), (1, 0), (1, 2), (2, 1)) if cell not in taken)
    altered: dict[str, Callable[[], Scene]] = {
        "ground": lambda: replace(scene, ground="white" if scene.ground != "white" else "grey"),
        "colour": lambda: replace(scene, things=(replace(first, colour=_other(first.colour, "red", "blue")), *rest)),
        "shape": lambda: replace(scene, things=(replace(first, shape=_other(first.shape, "ring", "square")), *rest)),
        "position": lambda: replace(scene, things=(replace(first, cell=free), *rest)),
        "count": lambda: replace(scene, things=tuple(rest)),
    }
    return altered[attribute]()


def _other(word: str, *choices: str) -> str:
    return next(choice for choice in choices if choice != word)


def _drawn(model: str, drawing: Drawing, scenes: list[Scene], first_seed: int = 0) -> Pictures:
    captions = [caption(scene) for scene in scenes]
    return draw(load_pipeline(TINY / model), drawing, captions, range(first_seed, first_seed + len(scenes)))


def test_heavy_draws_hard_captions_right_and_light_does_not_always(judge: attributes.Judge) -> None:
    scenes = [scene for scene in held_out_scenes(60, seed=97) if scene.kind == "three"][:16]
    light, heavy = _drawn("light", LIGHT, scenes), _drawn("heavy", HEAVY, scenes)
    light_right, heavy_right = (opine(judge, drawn, scenes).right.sum() for drawn in (light, heavy))
    assert heavy_right >= 13
    assert light_right < heavy_right


def test_recorded_scores_are_what_the_committed_weights_give(
    figures: dict[str, Any], recorded: list[dict[str, str]]
) -> None:
    scenes = held_out_scenes(len(recorded), figures["seed"])[:8]
    assert [row["caption"] for row in recorded[:8]] == [caption(scene) for scene in scenes]
    drawn = _drawn("light", LIGHT, scenes, figures["seed"])
    scores = discriminator.scores(classifier_from(TINY / "discriminator"), drawn)
    np.testing.assert_allclose(scores, [float(row["score"]) for row in recorded[:8]], atol=0.02)


def test_the_recorded_captions_are_distinct_and_held_out(recorded: list[dict[str, str]]) -> None:
    captions = [row["caption"] for row in recorded]
    assert len(set(captions)) == len(captions) == 2000
    assert all(is_held_out(text) for text in captions)


def test_the_committed_table_follows_from_the_recorded_scores(recorded: list[dict[str, str]]) -> None:
    table = _table()
    score, light, heavy = (
        np.array([float(row[column]) for row in recorded]) for column in ("score", "light_right", "heavy_right")
    )
    order = np.argsort(score, kind="stable")
    gained = np.sort(heavy - light)[::-1]
    for share in (i / 10 for i in range(11)):
        deferred = np.zeros(len(order), dtype=bool)
        deferred[order[: round(share * len(order))]] = True
        assert table["discriminator", share] == pytest.approx(np.where(deferred, heavy, light).mean(), abs=2e-3)
        assert table["lot", share] == pytest.approx((1 - share) * light.mean() + share * heavy.mean(), abs=0.01)
        expected = light.mean() + gained[: round(share * len(order))].sum() / len(order)
        assert table["oracle", share] == pytest.approx(expected, abs=1e-4)


def test_the_discriminator_is_ahead_of_the_lot_from_a_tenth_to_seven() -> None:
    table = _table()
    for share in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7):
        assert table["lot", share] < table["discriminator", share] < table["oracle", share]


def test_the_page_shows_the_figures_and_all_of_it_stays_small(figures: dict[str, Any]) -> None:
    page = (TINY / "README.md").read_text()
    assert f"{figures['light']['samples']:,} samples" in page
    for row in figures["table"]:
        assert f"{100 * row['accuracy']:.1f}" in page
        assert f"{row['fid']:.2f}" in page
    assert sum(path.stat().st_size for path in TINY.rglob("*")) <= 30e6


def _table() -> dict[tuple[str, float], float]:
    with (ROOM / "quality" / "tiny.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = {(row["selector"], float(row["heavy_share"])): float(row["accuracy"]) for row in rows}
    assert set(table) == {(selector, i / 10) for selector in SELECTORS for i in range(11)}
    return table
