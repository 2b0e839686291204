"""What stays true of every backend: one picture per prompt, in order, that belongs to its prompt alone."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from models.backend import Backend, NobodyWaits, OutOfMemory, open_backend
from models.caption_discriminator import CaptionDiscriminator
from models.diffusion import DiffusionBackend, open_diffusion
from models.discriminator import Discriminator, open_scorer
from models.sleeping import SleepingBackend
from shared.cascade import recorded_score
from shared.catalog import TABLES, Cascade, unmeasured
from shared.errors import ModelError, SettingsError
from shared.measured import Profile
from shared.messages import Job
from shared.model import Model
from shared.schema import Stage

CAPTIONS = ("big red circle on white", "two small blue rings on black", "big green triangle right on grey")
MODEL = Model("stub", "stub", steps=3, guidance=1.5, size=8, memory_gib=0.1)


def job(place: int, prompt: str = CAPTIONS[0], seed: int = 0, **parameters: Any) -> Job:
    return Job(f"id-{place}", prompt, 0.0, 10.0, seed=seed, parameters=parameters)


def pixels(data: bytes) -> NDArray[np.int16]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(np.int16)


@pytest.fixture(scope="module")
def tiny() -> Cascade:
    return unmeasured("tiny")


@pytest.fixture(scope="module")
def light(tiny: Cascade) -> Backend:
    return open_backend("diffusers", tiny, "light", "cpu")


@pytest.fixture(scope="module")
def heavy(tiny: Cascade) -> Backend:
    return open_backend("diffusers", tiny, "heavy", "cpu")


def test_a_picture_belongs_to_its_prompt_and_seed_not_to_its_place_in_a_batch(light: Backend) -> None:
    jobs = [job(place, prompt, seed=place) for place, prompt in enumerate(CAPTIONS)]
    together = [pixels(picture.data) for picture in light.draw(jobs)]
    alone = [pixels(light.draw([one])[0].data) for one in jobs]
    for batched, single in zip(together, alone, strict=True):
        assert abs(batched - single).max() <= 2
    assert min(abs(together[0] - other).max() for other in together[1:]) > 100


def test_another_seed_is_another_picture_and_the_same_seed_the_same(light: Backend) -> None:
    first, other, again = (pixels(p.data) for p in light.draw([job(0, seed=1), job(1, seed=2), job(2, seed=1)]))
    assert abs(first - other).max() > 10
    assert abs(first - again).max() <= 2


def test_any_integer_is_a_seed(light: Backend) -> None:
    assert len(light.draw([job(0, seed=-1), job(1, seed=2**70)])) == 2


def test_the_light_score_is_the_discriminators_view_of_that_very_picture(light: Backend, tiny: Cascade) -> None:
    drawn = light.draw([job(place, prompt, seed=place) for place, prompt in enumerate(CAPTIONS)])
    score = open_scorer(TABLES / tiny.discriminator, torch.device("cpu"))
    seen = torch.tensor(np.stack([pixels(picture.data) for picture in drawn])).permute(0, 3, 1, 2) / 255
    assert [picture.score for picture in drawn] == pytest.approx(score(seen, CAPTIONS), abs=1e-4)
    assert [picture.score for picture in drawn] != pytest.approx(score(seen, CAPTIONS[::-1]), abs=1e-2)


def test_a_heavy_picture_has_no_score_and_no_batch_gives_no_picture(heavy: Backend) -> None:
    (picture,) = heavy.draw([job(0)])
    assert picture.score is None
    assert pixels(picture.data).shape == (64, 64, 3)
    assert heavy.draw([]) == []


def test_a_picture_says_where_it_comes_from(heavy: Backend) -> None:
    named = replace(job(0, seed=7), id='né\0"<id>')
    image = Image.open(io.BytesIO(heavy.draw([named])[0].data))
    said = json.loads(image.getexif()[0x010E])
    assert said == {"prompt_id": named.id, "prompt": named.prompt, "seed": 7, "model": "tiny-heavy"}


class StubPipeline:
    """Returns what it is told to, and keeps what it was asked for."""

    def __init__(self, answer: torch.Tensor | Exception) -> None:
        self.answer = answer
        self.asked: dict[str, Any] = {}

    def __call__(self, **asked: Any) -> tuple[torch.Tensor]:
        self.asked = asked
        if isinstance(self.answer, Exception):
            raise self.answer
        return (self.answer,)


def test_steps_and_guidance_come_from_the_catalogue() -> None:
    pipeline = StubPipeline(torch.zeros(1, 3, 8, 8))
    DiffusionBackend(MODEL, "heavy", pipeline).draw([job(0)])
    assert (pipeline.asked["num_inference_steps"], pipeline.asked["guidance_scale"]) == (3, 1.5)


def test_warming_up_draws_once_at_each_batch_size() -> None:
    sizes: list[int] = []

    def pipeline(prompt: list[str], **_: Any) -> tuple[torch.Tensor]:
        sizes.append(len(prompt))
        return (torch.zeros(len(prompt), 3, 8, 8),)

    DiffusionBackend(MODEL, "heavy", pipeline).warm_up([1, 4])
    assert sizes == [1, 4]
    DiffusionBackend(MODEL, "light", pipeline, lambda pictures, _prompts: [0.5] * len(pictures)).warm_up([1])
    with pytest.raises(ModelError, match="gives no score"):
        DiffusionBackend(MODEL, "light", pipeline, lambda pictures, _prompts: [float("nan")] * len(pictures)).warm_up(
            [1]
        )


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (torch.zeros(1, 3, 8, 8), ModelError, "1 pictures for 2"),
        (torch.zeros(3, 3, 8, 8), ModelError, "3 pictures for 2"),
        (torch.full((2, 3, 8, 8), float("nan")), ModelError, "not finite"),
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemory, "batch of 2"),
        (MemoryError(), OutOfMemory, "batch of 2"),
    ],
)
def test_what_is_no_picture_is_an_error(answer: torch.Tensor | Exception, error: type[ModelError], said: str) -> None:
    with pytest.raises(error, match=said):
        DiffusionBackend(MODEL, "heavy", StubPipeline(answer)).draw([job(0), job(1)])


def test_a_score_that_is_not_finite_is_an_error(tiny: Cascade) -> None:
    for kind, folder in ((Discriminator, "tiny/discriminator"), (CaptionDiscriminator, tiny.discriminator)):
        judge = kind(TABLES / folder, torch.device("cpu"))
        with pytest.raises(ModelError, match="not finite"):
            judge.score(torch.full((1, 3, 64, 64), float("nan")), ["a picture"])


def test_the_discriminator_judges_large_pictures_at_the_size_it_was_trained_on(tiny: Cascade, light: Backend) -> None:
    score = open_scorer(TABLES / tiny.discriminator, torch.device("cpu"))
    small = torch.tensor(pixels(light.draw([job(0)])[0].data)).permute(2, 0, 1)[None] / 255
    large = small.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)
    shrunk = functional.interpolate(large, (64, 64), mode="bilinear", antialias=True)
    assert score(large, [CAPTIONS[0]]) == pytest.approx(score(shrunk, [CAPTIONS[0]]), abs=1e-4)


def moved(cascade: Cascade, home: Path) -> Cascade:
    """The same rows in a catalogue of another folder."""
    models = {stage: replace(model, home=home) for stage, model in cascade.models.items()}
    return replace(cascade, models=models, home=home)


def test_missing_weights_say_what_to_do(tiny: Cascade, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no folder .*tiny/heavy.*train_tiny"):
        open_diffusion(moved(tiny, tmp_path), "heavy", "cpu")
    shutil.copytree(TABLES / "tiny/light", tmp_path / "tiny/light")
    with pytest.raises(ModelError, match=r"no discriminator in .*tiny/caption_discriminator"):
        open_diffusion(moved(tiny, tmp_path), "light", "cpu")


def test_damaged_weights_are_one_clear_error(tiny: Cascade, tmp_path: Path) -> None:
    shutil.copytree(TABLES / "tiny/heavy", tmp_path / "tiny/heavy")
    weights = tmp_path / "tiny/heavy/unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot load tiny-heavy from"):
        open_diffusion(moved(tiny, tmp_path), "heavy", "cpu")
    for folder in ("tiny/discriminator", tiny.discriminator):
        shutil.copytree(TABLES / folder, tmp_path / "judge", dirs_exist_ok=True)
        weights = tmp_path / "judge/model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(ModelError, match="cannot load the discriminator in"):
            open_scorer(tmp_path / "judge", torch.device("cpu"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_not_replaced_by_the_processor(tiny: Cascade) -> None:
    with pytest.raises(ModelError, match="no CUDA device"):
        open_backend("diffusers", tiny, "heavy", "h200")


def sleeper(cascade: Cascade, stage: Any, slept: list[float]) -> SleepingBackend:
    return SleepingBackend(cascade, stage, sleep=slept.append)


@pytest.fixture
def recorded() -> Cascade:
    known = Profile("m", "a100", {1: 1.0, 4: 2.5}, {1: 1.0, 4: 2.5})
    return replace(
        unmeasured("tiny"),
        gpu="a100",
        discriminator_s=0.25,
        profiles={"light": {"a100": known}, "heavy": {"a100": known}},
        scores=(0.0, 0.5, 0.5, 1.0),
    )


def test_sleeping_takes_the_profiled_seconds_of_the_batch(recorded: Cascade) -> None:
    cases: list[tuple[Stage, int, float]] = [("light", 4, 2.75), ("heavy", 3, 2.0), ("heavy", 0, 0.0)]
    for stage, prompts, expected_s in cases:
        slept: list[float] = []
        sleeper(recorded, stage, slept).draw([job(i) for i in range(prompts)])
        assert sum(slept) == pytest.approx(expected_s)


def test_a_sleeper_wakes_up_soon_after_nobody_waits_any_more(recorded: Cascade) -> None:
    slept: list[float] = []
    with pytest.raises(NobodyWaits):
        sleeper(recorded, "light", slept).draw([job(0)], lambda: sum(slept) >= 0.5)
    assert sum(slept) == pytest.approx(0.5)


def test_a_pipeline_stops_at_the_step_after_which_nobody_waits(tiny: Cascade) -> None:
    heavy, steps = open_backend("diffusers", tiny, "heavy", "cpu"), itertools.count(1)
    with pytest.raises(NobodyWaits):
        heavy.draw([job(0)], lambda: next(steps) == 3)
    assert next(steps) == 4, "it was not asked again"
    assert tiny.models["heavy"].steps > 3
    assert len(heavy.draw([job(0)])) == 1


def test_sleeping_scores_are_the_recorded_ones_by_index(recorded: Cascade) -> None:
    jobs = [job(0, index=3), job(1, index=4), job(2, index=1), job(3, index=6)]
    pictures = sleeper(recorded, "light", []).draw(jobs)
    assert [picture.score for picture in pictures] == pytest.approx([1.0, 0.0, 0.5, 0.5], abs=2e-6)
    assert {picture.data for picture in pictures} == {b""}
    assert [picture.score for picture in sleeper(recorded, "heavy", []).draw(jobs)] == [None] * 4


def test_equal_scores_are_told_apart_by_the_id_and_unequal_ones_keep_their_order(recorded: Cascade) -> None:
    def scored(places: Sequence[int], index: int) -> list[float]:
        return [recorded_score(recorded.scores, f"p{place}", index) for place in places]

    ties = scored(range(50), 1)
    assert len(set(ties)) == 50
    assert ties == scored(range(50), 2)
    assert max(scored(range(50), 0)) < min(ties) <= max(ties) < min(scored(range(50), 3)) <= 1.0


@pytest.mark.parametrize("parameters", [{}, {"index": "3"}, {"index": None}, {"index": 2.5}])
def test_a_prompt_without_an_index_has_a_score_that_is_its_own(parameters: dict[str, Any]) -> None:
    scores = [place / 100 for place in range(100)]
    found = [recorded_score(scores, f"p{place}", parameters.get("index")) for place in range(200)]
    assert found == [recorded_score(scores, f"p{place}", parameters.get("index")) for place in range(200)]
    assert len({round(score, 2) for score in found}) > 60


def test_unknown_kinds_and_gpu_types_are_settings_errors(recorded: Cascade) -> None:
    with pytest.raises(SettingsError, match="unknown kind 'dreaming'"):
        open_backend("dreaming", recorded, "light")
    with pytest.raises(SettingsError, match="no rows for GPU 'h100'"):
        open_backend("sleeping", recorded, "light", "h100")


def test_a_sleeping_worker_loads_no_numerical_library() -> None:
    heavy_ones = {"torch", "diffusers", "transformers", "numpy", "PIL"}
    code = f"import sys, models.backend, models.sleeping; print(sorted({heavy_ones!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=TABLES.parent, check=True)
    assert done.stdout.strip() == "[]"
