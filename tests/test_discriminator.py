"""The discriminator: training learns and repeats itself, calibration helps, what is wrong is said in one line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from models.discriminator import open_scorer, training
from models.discriminator.__main__ import main
from models.discriminator.architectures import ARCHITECTURES, Architecture, efficientnet, save
from models.discriminator.examples import PARTS, Squares, part_of
from models.discriminator.training import Recipe, Trained, claim, train
from models.measures import area_with_interval, fitted_temperature, log_loss
from models.tiny_training.loop import Trainer
from shared.catalog import TABLES
from shared.errors import ModelError, SettingsError

CPU = torch.device("cpu")
SIDE = 32
RECIPE = Recipe("test", steps=45, look_every=15, patience=3, average=0.8)


@pytest.fixture(autouse=True)
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    made = Architecture(lambda: efficientnet(SIDE, 0.2, 0.2, 256), SIDE, 16, 4e-3)
    monkeypatch.setattr(training, "ARCHITECTURES", {**ARCHITECTURES, "test": made})


def spotted(count: int, colour: tuple[int, int, int], seed: int) -> Squares:
    """Grey noise with a spot of that colour somewhere; one picture in twenty has none."""
    rng = np.random.default_rng(seed)
    pictures = rng.integers(118, 138, (count, SIDE, SIDE, 3)).astype(np.uint8)
    for picture, (top, left), plain in zip(pictures, rng.integers(2, 22, (count, 2)), rng.random(count), strict=True):
        if plain > 0.05:
            picture[top : top + 8, left : left + 8] = colour
    return pictures


REAL, FAKE = spotted(240, (60, 200, 60), 1), spotted(240, (200, 60, 60), 2)


def trained(work: Path) -> Trained:
    return train(RECIPE, REAL, FAKE, work, CPU, lambda *_: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    with pytest.MonkeyPatch.context() as patch:
        small_network.__wrapped__(patch)  # type: ignore[attr-defined]
        return trained(tmp_path_factory.mktemp("whole"))


def test_an_easy_difference_is_learnt(whole: Trained) -> None:
    area = area_with_interval(whole.margins, whole.real)
    assert area.low > 0.8, area
    assert len(whole.losses) == RECIPE.steps // RECIPE.look_every


def test_a_training_killed_again_and_again_ends_with_the_very_weights(
    tmp_path: Path, whole: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    for where, what, calls in ((training, "cross_entropy", 22), (Trainer, "_keep", 0), (training, "margins_of", 2)):
        with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
            # In a step; after the second look, before its checkpoint; after the last one.
            patch.setattr(where, what, raising_after(calls, getattr(where, what)))
            trained(tmp_path)
    again = trained(tmp_path)
    assert (again.step, again.temperature, again.losses) == (whole.step, whole.temperature, whole.losses)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value), name


def raising_after(calls: int, act: Any) -> Any:
    """The same function, but for the call after so many."""
    left = [calls]

    def call(*given: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return act(*given, **more)

    return call


def test_training_ends_once_patience_is_spent(tmp_path: Path) -> None:
    watch = training.Watch(replace(RECIPE, patience=2), nn.ModuleDict(), {}, tmp_path, lambda *_: None)
    watch.history = {20: 0.5, 40: 0.4, 60: 0.45, 80: 0.41}
    assert [watch.exhausted(step) for step in (20, 40, 60, 80)] == [False, False, False, True]


def test_a_folder_with_another_run_is_refused(tmp_path: Path) -> None:
    claim(tmp_path, {"seed": 1})
    claim(tmp_path, {"seed": 1})
    with pytest.raises(SettingsError, match="holds another run"):
        claim(tmp_path, {"seed": 2})


def test_a_temperature_lowers_the_held_out_loss_and_keeps_the_order() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(4000) < 0.5
    margins = np.where(truth, 1.0, -1.0) + rng.normal(size=4000) * np.sqrt(2)  # of which P(real) is exact
    boastful, held_out = margins[:2000] * 5, margins[2000:] * 5
    temperature = fitted_temperature(boastful, truth[:2000])
    assert temperature == pytest.approx(5, rel=0.15)
    assert log_loss(held_out, truth[2000:], temperature) < log_loss(held_out, truth[2000:]) - 0.3


def test_a_picture_is_of_one_part_wherever_it_lies() -> None:
    parts = {name: {picture.tobytes() for picture in part_of(REAL, name)} for name in PARTS}
    turned = {name: {picture.tobytes() for picture in part_of(REAL[::-1], name)} for name in PARTS}
    assert parts == turned
    assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == len(REAL)


def test_what_was_trained_scores_as_it_was_calibrated(tmp_path: Path, whole: Trained) -> None:
    save(whole.network, tmp_path, SIDE, whole.temperature, {})
    pictures = torch.from_numpy(part_of(REAL, "test")).permute(0, 3, 1, 2).float() / 255
    scores = open_scorer(tmp_path, CPU)(pictures, [""] * len(pictures))
    expected = 1 / (1 + np.exp(-whole.margins[: len(pictures)] / whole.temperature))
    assert scores == pytest.approx(expected.tolist(), abs=1e-4)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"calibration_temperature": 1e9}))
    assert open_scorer(tmp_path, CPU)(pictures[:1], [""]) == pytest.approx([0.5])


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ('{"model_type": "resnet"}', "no scorer has model_type 'resnet'"),
        ("[]", "is no table"),
        ("{", "cannot load"),
        ('{"model_type": "efficientnet", "label2id": {"cat": 0}}', "no label 'real'|cannot load"),
    ],
)
def test_a_wrong_config_is_one_line(tmp_path: Path, config: str, said: str) -> None:
    shutil.copytree(TABLES / "tiny/discriminator", tmp_path / "scorer")
    (tmp_path / "scorer/config.json").write_text(config)
    with pytest.raises(ModelError, match=said):
        open_scorer(tmp_path / "scorer", CPU)


def test_a_broken_picture_is_named_before_anything_is_drawn(tmp_path: Path) -> None:
    for number in range(25):
        Image.fromarray(REAL[number]).save(tmp_path / f"{number:02d}.png")
    (tmp_path / "13.png").write_bytes((tmp_path / "13.png").read_bytes()[:200])
    work = tmp_path / "work"
    command = ["train", "--cascade", "tiny", "--real", str(tmp_path), "--generate", "50", "--work", str(work)]
    with pytest.raises(SettingsError, match=r"13\.png: no picture that can be read"):
        main([*command, "--out", str(tmp_path / "out")])
    assert not (work / "light").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--cascade", "tiny"], "holds a discriminator already"),
        (["train", "--cascade", "sdturbo", "--generate", "9"], "--real DIR"),
        (["train", "--cascade", "nobody"], "no cascade 'nobody'"),
        (["evaluate", "--cascade", "sdturbo"], "--prompts FILE and --real DIR"),
        (["import", "nothing.pt"], "say where to"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((SettingsError, ModelError), match=said):
        main(arguments)


def clip_folder(folder: Path) -> Path:
    """A small CLIP model of random weights, as transformers saves it."""
    from transformers import CLIPConfig, CLIPModel

    from models.tiny_training.networks import tokenizer

    torch.manual_seed(3)
    words = tokenizer()
    text = {"vocab_size": len(words), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 20, "bos_token_id": 0, "eos_token_id": 1}
    sight = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(text_config=text, vision_config=sight | {"image_size": 32, "patch_size": 16}, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def test_a_clip_folder_scores_each_picture_with_its_own_prompt(tmp_path: Path) -> None:
    from models.discriminator.similarity import CENTRE, WIDTH, Similarity

    folder = clip_folder(tmp_path / "clip")
    pictures = torch.rand(3, 3, 40, 48, generator=torch.Generator().manual_seed(2))
    prompts = ["big red circle left on grey", "small blue ring right on white", "two big green rings on black"]
    scores = open_scorer(folder, CPU)(pictures, prompts)
    cosines = Similarity(folder, CPU).cosines(pictures, prompts)
    assert scores == pytest.approx(torch.sigmoid((cosines - CENTRE) / WIDTH).tolist(), abs=1e-6)
    alone = [open_scorer(folder, CPU)(pictures[i : i + 1], prompts[i : i + 1])[0] for i in range(3)]
    assert alone == pytest.approx(scores, abs=1e-4)
    other = Similarity(folder, CPU).cosines(pictures, prompts[::-1])
    assert float(other[0]) != pytest.approx(float(cosines[0]), abs=1e-3)
