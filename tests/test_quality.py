"""The quality curve: what is known of a made-up set comes out, pictures come through the pipeline, a page is honest."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis import quality_drawing, quality_measuring
from analysis.quality_drawing import SEED_STEP, Commission, Wanted, path_of, scores_in
from analysis.quality_measuring import Means, measured
from analysis.quality_report import About, write_report
from models.bars import unsaid
from models.curves import SHARES, Drawn, Point, Stage, distance_curves, kernel_curves, worth_curves
from models.judges import SceneJudge
from models.measures import (
    agreement,
    area_under_curve,
    calibration_error,
    frechet,
    kernel_distance,
    reliability,
    roc,
)
from models.scene_reading import scene_of
from models.scenes import HARD_KINDS, KINDS, caption, held_out_scenes
from shared.broker import Broker
from shared.catalog import TABLES
from shared.embedded import EmbeddedRedis
from shared.errors import CascadeError, SettingsError
from shared.measured import read_curves
from tests.conftest import fresh_deployment
from tests.painters import COLOURS, painting

PROMPTS, SEEDS, WIDTH = 400, 2, 4
SCENES = held_out_scenes(12, seed=5)
CAPTIONS = [caption(scene) for scene in SCENES]


@pytest.fixture
def broker(oldest_server: EmbeddedRedis) -> Iterator[Broker]:
    """On one server: nothing here depends on its version."""
    yield from fresh_deployment(oldest_server)


@pytest.fixture(scope="module")
def known() -> Drawn:
    """Half the light pictures are wrong and score low with some noise; heavy ones are right but for 5 %."""
    rng = np.random.default_rng(0)
    light = (rng.random((SEEDS, PROMPTS)) < 0.5).astype(float)
    heavy = (rng.random((SEEDS, PROMPTS)) < 0.95).astype(float)
    scores = light + rng.normal(size=light.shape)

    def features(worth: NDArray[np.float64]) -> NDArray[np.float64]:
        return rng.normal(size=(*worth.shape, WIDTH)) + 2 * (1 - worth)[..., None]

    real = rng.normal(size=(PROMPTS, WIDTH))
    return Drawn({"discriminator": scores}, Stage(light, features(light)), Stage(heavy, features(heavy)), real)


def by_place(points: list[Point], metric: str) -> dict[tuple[str, float], Point]:
    return {(point.selector, point.share): point for point in points if point.metric == metric}


def test_choices_lie_between_the_lot_and_the_oracle_and_all_end_alike(known: Drawn) -> None:
    found = by_place(worth_curves(known, 0, resamples=200), "worth")
    light, heavy = known.light.worth, known.heavy.worth
    assert light is not None and heavy is not None
    for selector in ("discriminator", "lot", "oracle"):
        assert found[selector, 0.0].found.value == pytest.approx(light.mean())
        assert found[selector, 1.0].found.value == pytest.approx(heavy.mean())
    for share in SHARES[1:-1]:
        values = [found[name, share].found.value for name in ("oracle", "discriminator", "lot")]
        assert values == sorted(values, reverse=True)
        assert found["discriminator", share].ahead.low > 0
    # Of the wrong half, the oracle mends a share for a share, but for the 5 % that heavy gets wrong too.
    assert found["oracle", 0.3].found.value == pytest.approx(light.mean() + 0.3, abs=0.005)
    assert found["lot", 0.3].found.value == pytest.approx(light.mean() + 0.3 * (heavy.mean() - light.mean()))


def test_scores_that_know_nothing_are_hardly_ever_told_apart_from_the_lot(known: Drawn) -> None:
    rng = np.random.default_rng(9)
    blind = {f"blind {number}": rng.random((SEEDS, PROMPTS)) for number in range(40)}
    found = by_place(worth_curves(Drawn(blind, known.light, known.heavy), 0, resamples=150), "worth")
    held = [found[name, 0.5].ahead.low <= 0 <= found[name, 0.5].ahead.high for name in blind]
    assert 35 <= sum(held) <= 40, "intervals of 95 %"


def test_an_interval_of_the_mean_is_as_wide_as_the_formula_says(known: Drawn) -> None:
    found = by_place(worth_curves(known, 0, resamples=1000), "worth")["lot", 0.0].found
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * 0.5 / np.sqrt(SEEDS * PROMPTS), rel=0.1)


@pytest.mark.parametrize("metric", ["fid", "kid"])
def test_distances_fall_towards_the_real_and_end_alike(known: Drawn, metric: str) -> None:
    points = distance_curves(known, frechet, 0, 4) if metric == "fid" else kernel_curves(known, 0)
    found = by_place(points, metric)
    assert len({found[name, 1.0].found.value for name in ("discriminator", "lot", "oracle")}) == 1
    assert found["oracle", 0.5].found.value < found["discriminator", 0.5].found.value < found["lot", 0.5].found.value
    assert found["lot", 0.0].found.value > found["lot", 0.5].found.value > found["lot", 1.0].found.value
    assert found["discriminator", 0.3].ahead.low > 0


def test_the_kernel_distance_of_one_distribution_is_about_nothing_and_not_biased() -> None:
    rng = np.random.default_rng(1)
    found = [kernel_distance(rng.normal(size=(60, 5)), rng.normal(size=(60, 5))) for _ in range(200)]
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 3 * error
    assert min(found) < 0 < max(found)
    prompt = rng.normal(size=(200, 60, 5)) * 2
    ours, real = prompt + rng.normal(size=prompt.shape), prompt + rng.normal(size=prompt.shape)
    pairs = [kernel_distance(*pair, paired=True) for pair in zip(ours, real, strict=True)]
    assert abs(np.mean(pairs)) < 3 * np.std(pairs) / np.sqrt(len(pairs))
    assert np.mean([kernel_distance(*pair) for pair in zip(ours, real, strict=True)]) < -1
    assert kernel_distance(rng.normal(size=(60, 5)) + 1, rng.normal(size=(60, 5))) > 20 * error


def test_area_roc_and_reliability_agree_with_their_definitions() -> None:
    rng = np.random.default_rng(2)
    real = rng.random(600) < 0.4
    scores = np.asarray(np.clip(rng.normal(0.4 + 0.2 * real, 0.2), 0, 1).round(2), np.float64)  # with ties
    higher = scores[real][:, None] > scores[~real][None]
    same = scores[real][:, None] == scores[~real][None]
    false, true = roc(scores, real)
    assert area_under_curve(scores, real) == pytest.approx((higher + same / 2).mean())
    assert np.trapezoid(true, false) == pytest.approx(area_under_curve(scores, real))
    sure = np.where(rng.random(4000) < 0.5, 0.9, 0.2)
    truth = rng.random(4000) < sure
    weighed = calibration_error(reliability(sure, truth))
    assert weighed < 0.06
    assert calibration_error(reliability(1 - sure, truth)) > 0.5


def test_seeds_agree_as_far_as_the_prompt_decides() -> None:
    rng = np.random.default_rng(3)
    prompt, seed = rng.normal(size=(3000, 1)), rng.normal(size=(3000, 4))
    assert agreement(prompt + 0 * seed) == pytest.approx(1)
    assert agreement(prompt + seed) == pytest.approx(0.5, abs=0.05)
    assert agreement(seed) == pytest.approx(0, abs=0.05)


def test_every_caption_is_read_back() -> None:
    scenes = [*held_out_scenes(300, seed=1), *held_out_scenes(150, seed=1, kinds=HARD_KINDS)]
    assert {scene.kind for scene in scenes} == {*KINDS, *HARD_KINDS}
    for scene in scenes:
        read = scene_of(caption(scene))
        assert read is not None
        assert [(t.look, t.cell) for t in read.things] == [(t.look, t.cell) for t in scene.things]
        assert (read.kind, read.ground) == (scene.kind, scene.ground)
    assert [scene_of(text) for text in ("a cat on white", "big red ring left", "two big red dogs on grey", "")] == [
        None
    ] * 4


@pytest.fixture
def means() -> Means:
    return Means(SceneJudge(TABLES / "tiny/attributes"), None, None, None, {})


def drawn_by(broker: Broker, folder: Path, prompts: list[str], seeds: int = 2) -> list[str]:
    """Let the played workers draw everything; what was said meanwhile."""
    said: list[str] = []
    with painting(broker):
        for stage in ("light", "heavy"):
            Commission(broker, stage, prompts, seeds, folder).draw(lambda *news: said.append(str(news)))
    return said


def test_pictures_are_drawn_once_through_the_pipeline_and_the_rest_after_a_kill(broker: Broker, tmp_path: Path) -> None:
    drawn_by(broker, tmp_path, CAPTIONS)
    assert len(list(tmp_path.rglob("*.webp"))) == 2 * 2 * len(CAPTIONS)
    from models.discriminator.drawing import prompt_of
    from models.discriminator.examples import square

    picture = path_of(tmp_path, "heavy", Wanted(1, 3))
    assert prompt_of(picture) == CAPTIONS[3]
    assert tuple(square(picture)[0, 0]) == ((SEED_STEP + 3) % 256, 0, 0)
    assert tuple(square(picture)[9, 9]) == COLOURS["heavy"]
    assert scores_in(tmp_path)[Wanted(1, 3)] == 0.25
    picture.unlink()
    assert drawn_by(broker, tmp_path, CAPTIONS) == [str(("heavy pictures", 24, 24))]
    assert drawn_by(broker, tmp_path, CAPTIONS) == []


def test_a_prompt_that_cannot_be_drawn_is_named(broker: Broker, tmp_path: Path) -> None:
    with pytest.raises(CascadeError, match=r"prompt 2, 'an ugly cat'.*as failed \(error\) 3 times"):
        drawn_by(broker, tmp_path, ["a cat", "an ugly cat"])


def test_without_workers_it_says_what_to_start(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality_drawing, "READY_S", 0.1)
    with pytest.raises(CascadeError, match="no worker is ready"):
        Commission(broker, "light", ["a cat"], 1, tmp_path).draw(unsaid)


def test_no_answer_at_all_ends_in_words(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality_drawing, "PATIENCE_S", 0.3)
    monkeypatch.setattr(quality_drawing, "LOOK_S", 0.1)
    with (
        painting(broker) as painters,
        painters.resting("light"),
        pytest.raises(CascadeError, match="no light picture for"),
    ):
        Commission(broker, "light", ["a cat"], 1, tmp_path).draw(unsaid)


def test_the_curve_of_drawn_pictures_is_one_that_the_planner_reads(
    broker: Broker, tmp_path: Path, means: Means, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality_measuring, "RESAMPLES", 4)
    prompts = [caption(scene) for scene in held_out_scenes(60, seed=5)]
    drawn_by(broker, tmp_path, prompts, seeds=1)
    points = measured(tmp_path, prompts, 1, means, 0, unsaid)
    about = About("tiny", "python -m analysis.quality", len(prompts), 1, means.worth, "the judge's")
    page = write_report(points, about, tmp_path)
    curves = read_curves(tmp_path / "tiny.csv")
    assert set(curves) == {(s, m) for s in ("discriminator", "lot", "oracle") for m in ("fid", "accuracy")}
    assert curves["lot", "accuracy"].at(0.5) == 0, "a plain colour shows no scene"
    with (tmp_path / "tiny.csv").open() as file:
        row = next(csv.DictReader(file))
    assert float(row["fid_low"]) <= float(row["fid"]) <= float(row["fid_high"])
    assert row["kid"] and row["prompts"] == "60"
    assert "does not at 10% (+0.000), 20% (+0.000)" in page
    assert {path.name for path in tmp_path.glob("quality.*")} == {"quality.md", "quality.svg", "quality.png"}


def test_a_page_says_where_choosing_pays_and_where_it_does_not(known: Drawn, tmp_path: Path) -> None:
    assert known.light.worth is not None
    scores = {"good": known.light.worth, "backwards": -known.light.worth}
    points = worth_curves(Drawn(scores, known.light, known.heavy), 0, resamples=100)
    page = write_report(points, About("x", "c", PROMPTS, SEEDS, "accuracy", "none"), tmp_path)
    good, backwards = (line for line in page.splitlines() if line.startswith("**"))
    assert good.startswith("**good** beats the lot at 10% (+0.0") and "behind" not in good
    assert "**backwards** beats the lot at no share" in backwards and "behind at 10% (-0.0" in backwards


def test_a_missing_score_or_a_foreign_prompt_is_named(tmp_path: Path, means: Means) -> None:
    with pytest.raises(SettingsError, match=r"scores\.csv: not there"):
        measured(tmp_path, CAPTIONS, 1, means, 0, unsaid)
    (tmp_path / "scores.csv").write_text("seed,number,score\n0,0,0.5\n")
    with pytest.raises(SettingsError, match="no score of prompt 2 at seed 0"):
        measured(tmp_path, CAPTIONS, 1, means, 0, unsaid)
    assert means.judge is not None
    with pytest.raises(SettingsError, match="'a cat' is no caption of a scene"):
        means.judge.real(["a cat"])
