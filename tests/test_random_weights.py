"""Architectures without weights: each has the size that its model is known to have, and draws."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.backend import open_backend
from models.diffusion import open_diffusion
from models.libraries import class_of
from models.random_weights import ARCHITECTURES, architecture_of, network_of, random_pipeline, stand_in_tokenizer
from shared.catalog import TABLES, catalogs, load_model, unmeasured
from shared.errors import ModelError
from shared.messages import Job
from shared.model import Model

CPU = torch.device("cpu")
KINDS = {
    "unet": ("diffusers", "UNet2DConditionModel"),
    "transformer": ("diffusers", "SD3Transformer2DModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
}
CLIP_L, CLIP_G, VAE = 123_060_480, 694_659_840, 83_653_863
# Verified against counts known apart from these files, to four digits: the UNets of SD v1.5 (859.5 M), of SD 2.1, whose
# architecture SD-Turbo has (865.9 M), and of SDXL (2,567.5 M), the text encoders (123.1 M, 340.4 M, 694.7 M) and the
# decoder (83.7 M); the transformers of SD3.5 to two (8.1 B; medium 2.2 B). The further digits are those of these files.
# The UNet of SDXS-512-0.9 has no published count that was at hand: its layout is that of two public programs that load
# its weights, of which one calls 213 M parameters 35 % fewer, which makes 328 M.
KNOWN = [
    ("sd-v1-5", "unet", 859_520_964),
    ("sd-v1-5", "text_encoder", CLIP_L),
    ("sd-v1-5", "vae", VAE),
    ("sd-turbo", "unet", 865_910_724),
    ("sd-turbo", "text_encoder", 340_387_840),
    ("sd-turbo", "vae", VAE),
    ("sdxs-512", "unet", 328_177_284),
    ("sdxs-512", "text_encoder", 340_387_840),
    ("sdxl-base", "unet", 2_567_463_684),
    ("sdxl-base", "text_encoder", CLIP_L),
    ("sdxl-base", "text_encoder_2", CLIP_G),
    ("sdxl-base", "vae", VAE),
    ("sd3.5-large", "transformer", 8_056_627_520),
    ("sd3.5-large", "text_encoder_2", CLIP_G),
    ("sd3.5-medium", "transformer", 2_243_171_520),
]


@pytest.mark.parametrize(("model", "part", "count"), KNOWN)
def test_a_part_has_the_number_of_parameters_that_its_model_is_known_to_have(model: str, part: str, count: int) -> None:
    with torch.device("meta"):
        network = network_of(TABLES / ARCHITECTURES / model / part, class_of(*KINDS[part]))
    assert sum(each.numel() for each in network.parameters()) == count


def test_every_model_of_the_catalogue_has_an_architecture_and_twins_have_the_same() -> None:
    for name in catalogs()[-1].models:
        assert architecture_of(load_model(name)).is_dir()

    def files(name: str) -> dict[str, bytes]:
        folder = TABLES / ARCHITECTURES / name
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.json")}

    assert files("sdxl-lightning") == files("sdxl-base")
    assert files("sd3.5-large-turbo") == files("sd3.5-large")
    with pytest.raises(ModelError, match=r"no architecture of mine: put model_index\.json"):
        architecture_of(Model("mine", "me/mine", steps=1, guidance=0.0, size=8, memory_gib=1.0))


def pixels(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data))).astype(int)


def test_a_cascade_at_random_draws_and_scores_in_the_place_of_the_real_one() -> None:
    cascade = replace(unmeasured("tiny"), discriminator="nowhere")
    backend = open_backend("diffusers", cascade.at_random(), "light", "cpu")
    jobs = [Job(f"{seed}", prompt, 0.0, 9.0, seed=seed) for seed, prompt in enumerate(("a cat", "a dog", "a cat"))]
    drawn = backend.draw(jobs)
    assert len({picture.score for picture in drawn}) == len(drawn), "a threshold can tell them apart"
    again = open_diffusion(cascade, "light", "cpu", random_weights=True).draw(jobs[:1])
    assert abs(pixels(again[0].data) - pixels(drawn[0].data)).max() <= 2, "a seed draws the same weights"
    with pytest.raises(ModelError, match="no discriminator in"):
        open_diffusion(cascade, "light", "cpu")


SMALL = {"block_out_channels": [32, 32], "sample_size": 4, "layers_per_block": 1}
ATTENTION = {"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "attention_head_dim": 8}
FAMILIES: list[tuple[str, dict[str, dict[str, Any]]]] = [
    ("sdxl-lightning", {"unet": SMALL | ATTENTION | {
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "transformer_layers_per_block": 1,
        "cross_attention_dim": 64, "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 80}}),
    ("sd3.5-medium", {"transformer": {
        "sample_size": 4, "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 8, "joint_attention_dim": 64,
        "caption_projection_dim": 16, "pooled_projection_dim": 64, "pos_embed_max_size": 8,
        "dual_attention_layers": [0]}}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes"), FAMILIES)
def test_every_family_draws_with_the_scheduler_of_its_row(
    name: str, changes: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """The committed architectures in small: as many parts, in the same places."""
    model = replace(load_model(name), home=tmp_path)
    encoder = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
    encoder |= {"projection_dim": 32, "vocab_size": 1000}
    decoder = {"block_out_channels": [32, 32], "layers_per_block": 1, "sample_size": 8}
    decoder |= {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    small: dict[str, dict[str, Any]] = {"text_encoder": encoder, "text_encoder_2": encoder, "vae": decoder, **changes}
    copied(TABLES / ARCHITECTURES / name, tmp_path / ARCHITECTURES / name, small)
    pipeline = random_pipeline(model, CPU, torch.float32)
    drawn = pipeline(prompt=["a cat", "a dog"], num_inference_steps=2, width=16, height=16, output_type="pt")
    assert tuple(drawn.images.shape) == (2, 3, 16, 16)
    assert torch.isfinite(drawn.images).all()
    assert model.scheduler in ("", type(pipeline.scheduler).__name__)
    assert pipeline.scheduler.config.get("timestep_spacing") == model.scheduler_settings.get("timestep_spacing")


def copied(source: Path, target: Path, changes: dict[str, dict[str, Any]]) -> None:
    for path in source.rglob("*.json"):
        config = json.loads(path.read_text()) | changes.get(path.parent.name, {})
        (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        (target / path.relative_to(source)).write_text(json.dumps(config))


def test_a_stand_in_tokenizer_has_the_right_tokens_and_tells_prompts_apart() -> None:
    tokenizer = stand_in_tokenizer(class_of("transformers", "CLIPTokenizer"), 49408, {"max_position_embeddings": 77})
    assert len(tokenizer) == 49408
    long, short = tokenizer(["é" * 500, "a cat"], padding="max_length", max_length=77, truncation=True).input_ids
    assert (len(long), len(short)) == (77, 77)
    assert long[0] == short[0] == 49406 and long[-1] == short[-1] == 49407
    assert long[1:5] != short[1:5] and 49407 not in short[1:5]
