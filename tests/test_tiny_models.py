"""The tiny cascade: its training repeats itself bit by bit, and what is committed does what its page says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn
from transformers import EfficientNetForImageClassification

import models
from models.scenes import Scene, caption, held_out_scenes
from models.tiny_training import (
    attributes,
    checkpoint,
    denoiser,
    discriminator,
    harder,
    networks,
    text,
)
from models.tiny_training.adopt import adopt
from models.tiny_training.data import generator, pictures, training_scenes
from models.tiny_training.evaluation import Opinion, area_under_curve, deferral_table, frechet, opine
from models.tiny_training.loop import Course, Trainer, legs
from models.tiny_training.report import page
from models.tiny_training.sampling import HEAVY, LIGHT, Drawing, Pictures, as_pictures, draw, load_pipeline
from shared.errors import SettingsError

ROOM = Path(models.__file__).parent
TINY = ROOM / "tiny"
SELECTORS = ("discriminator", "plain", "lot", "oracle")
SHARES = tuple(i / 10 for i in range(11))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def judge() -> attributes.Judge:
    return attributes.load(TINY / "attributes")


class Killed(Exception):
    pass


def trained(work: Path, lesson: Any, kill_at: int | None = None, steps: int = 4) -> checkpoint.Groups:
    """What the steps of a course leave in their checkpoint, the last of them written every two."""
    course = Course(lesson.NAME, steps=steps, average=0.9, warm_steps=2, checkpoint_every=2, slow={"text": 0.2})
    module = lesson.networks_for(0, work)
    error = denoiser.velocity_loss if lesson is denoiser else harder.loss

    def loss(step: int) -> Tensor:
        if step == kill_at:
            raise Killed
        return error(module, 0, step, 0, 4)

    trainer = Trainer(course, module, work)
    trainer.run(loss)
    return checkpoint.load(trainer.path)[0]


@pytest.mark.parametrize("lesson", [denoiser, harder])
def test_a_killed_training_ends_as_if_it_had_run_through(lesson: Any, tmp_path: Path) -> None:
    text.train(0, tmp_path, Course("text", steps=1), batch=2)
    trained(tmp_path, denoiser)
    through = trained(tmp_path, lesson)
    (tmp_path / f"{lesson.NAME}.safetensors").unlink()
    with pytest.raises(Killed):
        trained(tmp_path, lesson, kill_at=3)
    resumed = trained(tmp_path, lesson)
    assert resumed.keys() == through.keys() >= {"module", "average", "adam.exp_avg_sq"}
    for group, tensors in through.items():
        for name, tensor in tensors.items():
            assert torch.equal(resumed[group][name], tensor), f"{group} {name}"


def test_a_course_that_has_ended_can_be_lengthened_and_not_shortened(tmp_path: Path) -> None:
    text.train(0, tmp_path, Course("text", steps=1), batch=2)
    short = trained(tmp_path, denoiser)
    longer = trained(tmp_path, denoiser, steps=6)
    words = checkpoint.load(tmp_path / f"{denoiser.NAME}.safetensors")[1]
    assert (words["step"], legs(words)) == ("6", [4, 6])
    assert any(not torch.equal(longer["module"][name], value) for name, value in short["module"].items())
    again = trained(tmp_path, denoiser, steps=6)
    assert legs(checkpoint.load(tmp_path / f"{denoiser.NAME}.safetensors")[1]) == [4, 6]
    assert all(torch.equal(again["module"][name], value) for name, value in longer["module"].items())
    with pytest.raises(SettingsError, match="6 steps are behind it, more than the 5"):
        trained(tmp_path, denoiser, steps=5)


def test_the_page_tells_that_a_course_was_lengthened() -> None:
    figures = json.loads((TINY / "figures.json").read_text())
    figures["heavy"]["legs"] = [640, 1280]
    assert "That course was asked to go to 640 and then to 1,280:" in " ".join(page(figures).split())
    figures["heavy"]["legs"] = [1280]
    assert "asked to go to" not in page(figures)


def test_published_weights_stand_for_the_first_course_unless_they_are_past_it(tmp_path: Path) -> None:
    published = tmp_path / "tiny"
    published.mkdir()
    for model in ("light", "heavy"):
        (published / model).symlink_to(TINY / model)
    samples = {"light": {"samples": 640}, "heavy": {"samples": 1280}}
    (published / "figures.json").write_text(json.dumps(samples))
    assert adopt(tmp_path, published) == 1280
    average = checkpoint.load(tmp_path / f"{denoiser.NAME}.safetensors")[0]["average"]
    for name, value in load_pipeline(TINY / "heavy").unet.state_dict().items():
        assert torch.equal(average[f"unet.{name}"], value)
    (published / "figures.json").write_text(json.dumps(samples | {"heavy": {"samples": 1280, "course": "harder"}}))
    with pytest.raises(SettingsError, match="through the harder course already"):
        adopt(tmp_path, published)
    with pytest.raises(SettingsError, match="holds no tiny cascade"):
        adopt(tmp_path, tmp_path)


def test_every_step_and_rank_draws_its_own_scenes_and_always_the_same() -> None:
    def captions(*key: int) -> tuple[str, ...]:
        return tuple(caption(scene) for scene in training_scenes(generator(0, "x", *key), 8))

    assert len({captions(0, 0), captions(0, 1), captions(1, 0), captions(1, 1)}) == 4
    assert captions(1, 1) == captions(1, 1)


# One of two ranks, without the libraries that make a new process slow to start.
RANK = """
import sys, torch
from pathlib import Path
from models.tiny_training.loop import Course, Trainer, legs
work, rank = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=f"file://{work}/store", rank=rank, world_size=2)
torch.manual_seed(0)
module = torch.nn.ModuleDict({"line": torch.nn.Linear(3, 2)})
inputs = torch.tensor([[1.0, 2.0, 3.0], [0.5, -1.0, 4.0]])[rank]
Trainer(Course("line", steps=3), module, work, rank, 2).run(lambda step: (module["line"](inputs) - step).square().sum())
"""


def test_two_processes_train_as_one_would_on_both_batches(tmp_path: Path) -> None:
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK, str(tmp_path), str(rank)], cwd=ROOM.parent) for rank in (0, 1)
    ]
    assert [rank.wait() for rank in ranks] == [0, 0]
    apart = checkpoint.load(tmp_path / "line.safetensors")[0]["module"]

    torch.manual_seed(0)
    module = nn.ModuleDict({"line": nn.Linear(3, 2)})
    inputs = torch.tensor([[1.0, 2.0, 3.0], [0.5, -1.0, 4.0]])
    alone = Trainer(Course("line", steps=3), module, tmp_path / "alone")
    alone.run(lambda step: (module["line"](inputs) - step).square().sum() / 2)
    for name, weight in module.state_dict().items():
        torch.testing.assert_close(apart[name], weight, rtol=0, atol=1e-6)


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


def test_each_selector_defers_whom_it_should() -> None:
    """The discriminator the lowest scores, the oracle first what only heavy gets right, the lot anybody."""
    rng = np.random.default_rng(0)
    light_right, heavy_right, scores = rng.random(200) < 0.6, rng.random(200) < 0.9, rng.random(200)
    light, heavy = (Opinion({"right": right}, rng.normal(size=(200, 3))) for right in (light_right, heavy_right))
    table = deferral_table(scores, light, heavy, heavy.features, seed=0)
    found = {(point.selector, point.heavy_share): point.accuracy for point in table}
    gained = np.sort(heavy_right.astype(int) - light_right.astype(int))[::-1]
    ranked = sorted(zip(scores, light_right, heavy_right, strict=True))
    for share in (i / 10 for i in range(11)):
        deferred = round(share * 200)
        drawn = [row[2] for row in ranked[:deferred]] + [row[1] for row in ranked[deferred:]]
        assert found["discriminator", share] == pytest.approx(np.mean(drawn))
        assert found["oracle", share] == pytest.approx(light_right.mean() + gained[:deferred].sum() / 200)
        assert found["lot", share] == pytest.approx(light_right.mean() + share * gained.mean(), abs=0.03)


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


def test_the_folders_load_through_the_public_classes_in_single_precision() -> None:
    """With no options at all, as a reader of the page would try it; half precision is slow on a CPU."""
    for folder in ("light", "heavy"):
        pipeline = StableDiffusionPipeline.from_pretrained(TINY / folder)
        parts = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
        assert {part.dtype for part in parts} == {torch.float32}
    network = EfficientNetForImageClassification.from_pretrained(TINY / "discriminator")
    assert network.dtype == torch.float32
    assert network.config.id2label[discriminator.REAL] == "real"


def test_heavy_draws_hard_captions_right_and_light_does_not_always(judge: attributes.Judge) -> None:
    scenes = [scene for scene in held_out_scenes(60, seed=97) if scene.kind == "three"][:16]
    light, heavy = _drawn("light", LIGHT, scenes), _drawn("heavy", HEAVY, scenes)
    light_right, heavy_right = (opine(judge, drawn, scenes).right.sum() for drawn in (light, heavy))
    assert heavy_right >= 13
    assert light_right < heavy_right
