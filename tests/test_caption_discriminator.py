"""The discriminator that sees the caption: it judges the picture by what was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import models
from models.caption_discriminator import CaptionDiscriminator
from models.scenes import HARD_KINDS, KINDS, Scene, caption, held_out_scenes, sample
from models.tiny_training.data import layout, pictures
from models.tiny_training.pairs import altered
from shared.errors import ModelError

TINY = Path(models.__file__).parent / "tiny"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def judge() -> CaptionDiscriminator:
    torch.set_num_threads(1)
    return CaptionDiscriminator(TINY / "caption_discriminator", CPU)


def drawn(scenes: list[Scene]) -> torch.Tensor:
    return (pictures(scenes) + 1) / 2


@pytest.mark.parametrize("kinds", [KINDS, HARD_KINDS])
def test_a_clean_picture_of_another_scene_scores_below_one_of_the_scene(
    judge: CaptionDiscriminator, kinds: dict[str, float]
) -> None:
    """Where the plain one, which sees no caption, gives both the same."""
    rng, scenes = np.random.default_rng(5), held_out_scenes(80, 3, kinds)
    own = np.array(judge.score(drawn(scenes), [caption(scene) for scene in scenes]))
    others = np.array(judge.score(drawn(scenes), [caption(altered(scene, rng)) for scene in scenes]))
    assert (own > others).mean() >= 0.95


def test_its_p_of_right_means_what_it_says() -> None:
    """In each tenth of P with pictures enough, the share that the judge calls right."""
    bins = json.loads((TINY / "figures.json").read_text())["reliability"]
    assert sum(each["pictures"] for each in bins) >= 1800
    for each in bins:
        assert each["pictures"] < 100 or abs(each["said"] - each["right"]) <= 0.12


def test_any_prompt_has_a_score_and_what_it_does_not_know_is_dropped(judge: CaptionDiscriminator) -> None:
    picture = drawn(held_out_scenes(1, 0))
    known = judge.score(picture, ["big red ring left on grey"])
    assert judge.score(picture, ["Big, RED shiny ring left on grey!"]) == pytest.approx(known, abs=1e-6)
    strange = ["", "ein Eichhörnchen 🐿", "red " * 3000]
    assert all(0 <= score <= 1 for score in judge.score(picture.repeat(3, 1, 1, 1), strange))


def test_a_score_belongs_to_its_picture_and_prompt_wherever_in_the_batch(judge: CaptionDiscriminator) -> None:
    scenes = held_out_scenes(6, 1)
    captions = [caption(scene) for scene in scenes]
    together = judge.score(drawn(scenes), captions)
    alone = [judge.score(drawn([scene]), [text])[0] for scene, text in zip(scenes, captions, strict=True)]
    assert together == pytest.approx(alone, abs=1e-4)


def test_a_folder_of_another_kind_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no discriminator in"):
        CaptionDiscriminator(tmp_path / "none", CPU)
    with pytest.raises(ModelError, match=r"cannot load the discriminator in .*tiny/discriminator"):
        CaptionDiscriminator(TINY / "discriminator", CPU)


@pytest.mark.parametrize("kind", [*KINDS, *HARD_KINDS])
def test_an_altered_caption_is_of_its_kind_and_asks_for_another_picture(kind: str) -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        scene = sample(rng, kind)
        other = altered(scene, rng)
        assert other.kind == kind
        assert caption(other) != caption(scene)
        both = layout([scene, other])
        cells = [rows for name, rows in both.cells.items() if name != "size"]
        assert both.ground[0] != both.ground[1] or any((rows[0] != rows[1]).any() for rows in cells)
