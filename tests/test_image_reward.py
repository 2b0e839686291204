"""ImageReward: the published layout finds its place in transformers' networks, which compute what the paper's do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.discriminator import open_scorer
from models.discriminator.__main__ import main
from models.discriminator.image_reward import ImageReward, RewardNetwork
from models.discriminator.importing import Preparation, take_over
from models.discriminator.published_reward import _renamed, reward_of, tokenizer_of
from models.discriminator.similarity import middle_square
from models.libraries import WEIGHTS_WRONG, blip_without_weights
from shared.errors import ModelError, SettingsError
from tests.published_reward import FULL, WORDS, Sizes, Weights, drawn, rewards, shapes

CPU = torch.device("cpu")
SIZES = Sizes()
PROMPTS = ["a big red circle on grey", "rings", "small blue circles on a green ring", "a whale"]
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
SPREAD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


@pytest.fixture(scope="module")
def weights() -> Weights:
    torch.set_num_threads(1)
    return drawn(SIZES, 0)


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return torch.rand(4, 3, 48, 48, generator=torch.Generator().manual_seed(1))


def published(folder: Path, content: object) -> Path:
    """The file as it is had, with the words beside it."""
    torch.save(content, folder / "ImageReward.pt")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return folder / "ImageReward.pt"


@pytest.fixture(scope="module")
def folder(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("reward")
    assert main(["import", str(published(home, weights)), "--out", str(home / "scorer")]) == 0
    return home / "scorer"


def tokens_of(prompts: list[str], length: int) -> tuple[Tensor, Tensor]:
    """By hand: [CLS], the words, [SEP], and filled up; a word that is not listed is [UNK]."""
    rows = []
    for prompt in prompts:
        pieces = [piece for word in prompt.split() for piece in re.sub(r"(circle|ring)s$", r"\1 ##s", word).split()]
        known = [WORDS.index(piece) if piece in WORDS else 1 for piece in pieces]
        row = [2, *known[: length - 2], 3]
        rows.append(row + [0] * (length - len(row)))
    tokens = torch.tensor(rows)
    return tokens, (tokens != 0).long()


def test_the_imported_network_computes_what_was_published(folder: Path, weights: Weights, pictures: Tensor) -> None:
    found = ImageReward(folder, CPU).rewards(pictures, PROMPTS)
    expected = rewards(weights, SIZES, (pictures - MEAN) / SPREAD, *tokens_of(PROMPTS, 35))
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert expected.std() > 0.05  # all would agree otherwise


@pytest.mark.parametrize("name", sorted(shapes(Sizes(seeing=1, reading=1))))
def test_each_tensor_counts_in_the_reference_unless_it_is_left_out(
    weights: Weights, pictures: Tensor, name: str
) -> None:
    # Without this, two networks that both forget one would agree.
    given = (pictures - MEAN) / SPREAD, *tokens_of(PROMPTS, 35)
    before = rewards(weights, SIZES, *given)
    # No constant: that of a key's bias vanishes in the softmax, by mathematics.
    step = torch.linspace(-1, 1, weights[name].numel()).view(weights[name].shape)
    after = rewards({**weights, name: weights[name] + step}, SIZES, *given)
    unused = "_proj." in name or name.endswith(("position_ids", ".key.bias"))
    assert torch.allclose(before, after, atol=1e-5) == unused


def test_no_name_is_left_over_on_either_side(weights: Weights) -> None:
    renamed = dict(_renamed(weights))
    assert len(renamed) == len(weights) - 5
    assert set(renamed) == set(RewardNetwork(renamed).state_dict())
    wrapped = {f"module.{name}": value for name, value in weights.items()}
    assert set(dict(_renamed(wrapped))) == set(renamed)


def test_the_full_size_is_that_of_the_public_configurations() -> None:
    made = {name: torch.empty(shape, device="meta") for name, shape in shapes(FULL).items()}
    network = reward_of(made, Path("ImageReward.pt"))
    vision, text = network.vision.config, network.text.config
    assert (vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads) == (1024, 24, 16)
    assert (vision.intermediate_size, vision.image_size, vision.patch_size) == (4096, 224, 16)
    assert (vision.layer_norm_eps, vision.hidden_act) == (1e-6, "gelu")
    assert (text.hidden_size, text.num_hidden_layers, text.num_attention_heads) == (768, 12, 12)
    assert (text.intermediate_size, text.encoder_hidden_size, text.vocab_size) == (3072, 1024, 30524)
    assert (text.max_position_embeddings, text.layer_norm_eps, text.hidden_act) == (512, 1e-12, "gelu")
    # ViT-L/16 without its classifier; BERT-base with cross attention; the head: 768-1024-128-64-16-1.
    parts = [sum(each.numel() for each in part.parameters()) for part in (network.vision, network.text, network.head)]
    assert parts == [303_301_632, 141_977_088, 927_969]


def test_the_full_size_fills_the_published_file() -> None:
    # Its size is said publicly. What torch adds a tensor, for its name and place, is a few hundred bytes; the smallest
    # linear layer of the two networks that could be wrongly left out or put in has 786,432.
    tensors = shapes(FULL)
    numbers = sum(np.prod(shape) for name, shape in tensors.items() if not name.endswith("position_ids"))
    added = (1_786_880_927 - 4 * numbers - 8 * 512) / len(tensors)
    assert 200 < added < 500


def test_pictures_in_a_batch_score_as_one_by_one(folder: Path, pictures: Tensor) -> None:
    score = open_scorer(folder, CPU)
    together = score(pictures, PROMPTS)
    alone = [score(pictures[i : i + 1], PROMPTS[i : i + 1])[0] for i in range(4)]
    assert together == pytest.approx(alone, abs=1e-6)
    many = score(pictures[:1].expand(130, -1, -1, -1), PROMPTS[:1] * 130)  # more than go at once
    assert many == pytest.approx(alone[:1] * 130, abs=1e-6)
    assert score(pictures[:0], []) == []


def test_scores_have_the_order_of_rewards_and_lie_between_0_and_1(folder: Path, tmp_path: Path) -> None:
    pictures = torch.rand(24, 3, 60, 48, generator=torch.Generator().manual_seed(2))
    prompts = [PROMPTS[number % 4] for number in range(24)]
    found = ImageReward(folder, CPU).rewards(pictures, prompts)
    scores = torch.tensor(open_scorer(folder, CPU)(pictures, prompts))
    assert scores.argsort().tolist() == found.argsort().tolist()
    assert scores == pytest.approx(torch.sigmoid(found), abs=1e-6)
    config = json.loads((folder / "config.json").read_text())
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config | {"score_centre": -0.5, "score_width": 0.25}))
    moved = open_scorer(tmp_path, CPU)(pictures, prompts)
    assert moved == pytest.approx(torch.sigmoid((found + 0.5) / 0.25).tolist(), abs=1e-6)
    (tmp_path / "config.json").write_text(json.dumps(config | {"score_width": -1}))
    with pytest.raises(ModelError, match="score_width must be a positive number"):
        open_scorer(tmp_path, CPU)


def test_a_long_prompt_is_cut_at_35_tokens(folder: Path, weights: Weights, pictures: Tensor) -> None:
    long = "a big red ring on " * 12
    score = ImageReward(folder, CPU).rewards
    expected = rewards(weights, SIZES, (pictures[:1] - MEAN) / SPREAD, *tokens_of([long], 35))
    assert score(pictures[:1], [long]).tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert score(pictures[:1], [long]).tolist() != pytest.approx(score(pictures[:1], [long[:60]]).tolist(), abs=1e-4)


def test_pictures_are_prepared_as_published() -> None:
    # The published program shrinks by Pillow, which rounds to whole grey levels.
    grain = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(3))
    picture = (torch.nn.functional.interpolate(grain, (96, 96), mode="bilinear") * 255).round()
    shrunk = Image.fromarray(picture[0].permute(1, 2, 0).byte().numpy()).resize((48, 48), Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.array(shrunk)).permute(2, 0, 1).float()
    assert (middle_square(picture / 255, 48)[0] * 255 - expected).abs().max() < 1
    tall = torch.rand(1, 3, 96, 48)
    assert torch.equal(middle_square(tall, 48), middle_square(tall[:, :, 24:72], 48))


def test_a_folder_has_safetensors_and_says_where_they_are_from(folder: Path, weights: Weights) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    (other := folder.with_name("other")).mkdir()
    assert folder.stat().st_mode == other.stat().st_mode  # workers of another user read it
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["imported_from"]) == ("image-reward", "ImageReward.pt")
    assert len(load_file(folder / "model.safetensors")) == len(weights) - 5


def without(weights: Weights, part: str) -> Weights:
    return {name: value for name, value in weights.items() if part not in name}


def test_other_files_are_refused_in_one_line(weights: Weights, tmp_path: Path) -> None:
    layer = "blip.text_encoder.encoder.layer.1.crossattention.self.key.weight"
    cases: list[tuple[object, str]] = [
        (without(weights, "mlp.layers"), r"there is no head\.0\.weight: not the weights of ImageReward"),
        (
            without(weights, "crossattention"),
            r"there is no text\.encoder\.layer\.0\.crossattention.* \(nor 19 others\)",
        ),
        (weights | {"blip.text_encoder.pooler.dense.bias": torch.zeros(2)}, r"there is a text\.pooler\.dense\.bias"),
        (weights | {layer: torch.zeros(3, 4)}, r"self\.key\.weight is \(3, 4\), not \(128, 192\)"),
        ({name.removeprefix("blip."): value for name, value in weights.items()}, "not the weights of ImageReward"),
        ({"blip.visual_encoder.cls_token": torch.zeros(1)}, "there is no .*: not the weights of ImageReward"),
        (weights | {"blip.visual_encoder.pos_embed": torch.zeros(2)}, "not the weights of ImageReward"),
        (weights | {"blip.visual_encoder.pos_embed": torch.zeros(1, 10, 190)}, "no multiples of 64"),
        ({"layers.0.weight": torch.zeros(2)}, "not the weights of an EfficientNet-V2-S, nor ImageReward's"),
    ]
    for content, said in cases:
        with pytest.raises(ModelError, match=said) as caught:
            take_over(published(tmp_path, content), tmp_path / "out", Preparation())
        assert "\n" not in str(caught.value) and str(caught.value).startswith(str(tmp_path / "ImageReward.pt"))
    assert {path.name for path in tmp_path.iterdir()} == {"ImageReward.pt", "vocab.txt"}


def test_the_words_are_asked_for_where_they_are_missing_or_others(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = published(tmp_path, {"state_dict": weights}), tmp_path / "out"
    monkeypatch.setattr("models.discriminator.published_reward.cached", lambda *_: None)
    beside = (tmp_path / "vocab.txt").rename(tmp_path / "words.txt")
    with pytest.raises(SettingsError, match=r"vocab\.txt: there is no such file; .* name that file with --vocabulary"):
        take_over(file, out, Preparation())
    (tmp_path / "short.txt").write_text("\n".join(WORDS[:-1]) + "\n")
    with pytest.raises(ModelError, match=r"short\.txt: 15 words, not the 16 that ImageReward's weights are for"):
        take_over(file, out, Preparation(), tmp_path / "short.txt")
    (tmp_path / "picture.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match=r"picture\.txt: no list of words"):
        take_over(file, out, Preparation(), tmp_path / "picture.txt")
    with pytest.raises(SettingsError, match="says itself how pictures are prepared"):
        take_over(file, out, Preparation(side=64), beside)
    assert not out.exists()
    assert take_over(file, out, Preparation(), beside) > 1e6
    monkeypatch.setattr("models.discriminator.published_reward.cached", lambda *_: beside)  # as the hub's cache has it
    assert take_over(file, out, Preparation()) > 1e6


def test_the_words_are_numbered_as_in_the_file_and_the_two_signs_last(tmp_path: Path) -> None:
    published(tmp_path, {})
    made = tokenizer_of(tmp_path / "vocab.txt", len(WORDS) + 2)
    assert made.convert_tokens_to_ids(["[DEC]", "[ENC]"]) == [len(WORDS), len(WORDS) + 1]
    assert made(["A RED whale, circles"])["input_ids"] == [[2, 5, 8, 1, 1, 11, 15, 3]]


def test_a_folder_that_was_spoilt_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    kept = load_file(tmp_path / "model.safetensors")
    save_file({name: value for name, value in kept.items() if "head.7" not in name}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"cannot load ImageReward in .*: there is no head\.7\.weight"):
        open_scorer(tmp_path, CPU)
    save_file(kept, tmp_path / "model.safetensors")
    for path in tmp_path.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match="cannot load ImageReward"):
        open_scorer(tmp_path, CPU)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "ImageReward.pt").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"holds ImageReward\.pt and no safetensors: pickles are not loaded"):
        open_scorer(tmp_path, CPU)


def test_a_configuration_that_transformers_refuses_is_one_of_those_that_are_caught() -> None:
    with pytest.raises(WEIGHTS_WRONG):
        blip_without_weights({"hidden_size": 100, "num_attention_heads": 3}, {})
