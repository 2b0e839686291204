"""Pipelines of every kind in the catalogue with random weights, small enough to draw in a moment on a processor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import diffusers
import torch
import transformers
from torch import Tensor

from models.libraries import pipeline_from
from models.speed import Quick, quickened
from models.switches import parse
from shared.catalog import TABLES
from shared.model import Model

SIDE = 16  # of a picture; its latent is 8 a side
_UNET = {
    "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (32, 64), "layers_per_block": 1,
    "attention_head_dim": 4, "norm_num_groups": 8, "use_linear_projection": True,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip


def tiny() -> Any:
    """The tiny cascade's own, with its weights: a StableDiffusionPipeline."""
    return _quiet(pipeline_from(TABLES / "tiny/heavy", torch.float32))


def xl() -> Any:
    """A StableDiffusionXLPipeline whose decoder wants single precision, as SDXL's does."""
    torch.manual_seed(0)
    time_ids, pooled = 6 * 8, 32
    unet = diffusers.UNet2DConditionModel(
        **_UNET, cross_attention_dim=64, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=time_ids + pooled,
    )  # fmt: skip
    made = diffusers.StableDiffusionXLPipeline(
        vae=_autoencoder(latent_channels=4), text_encoder=_clip(), text_encoder_2=_clip(projected=True),
        tokenizer=_tokenizer(), tokenizer_2=_tokenizer(), unet=unet, scheduler=diffusers.EulerDiscreteScheduler(),
    )  # fmt: skip
    return _quiet(made)


def third() -> Any:
    """A StableDiffusion3Pipeline without its third text encoder, whose attention normalises queries as 3.5's does."""
    torch.manual_seed(0)
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=4, joint_attention_dim=64, caption_projection_dim=32, pooled_projection_dim=64,
        pos_embed_max_size=96, qk_norm="rms_norm",
    )  # fmt: skip
    made = diffusers.StableDiffusion3Pipeline(
        transformer=transformer, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=_autoencoder(latent_channels=4, shift_factor=0.1), text_encoder=_clip(projected=True),
        tokenizer=_tokenizer(), text_encoder_2=_clip(projected=True), tokenizer_2=_tokenizer(), text_encoder_3=None,
        tokenizer_3=None,
    )  # fmt: skip
    return _quiet(made)


def _quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _autoencoder(**more: Any) -> Any:
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 16), norm_num_groups=8, sample_size=SIDE, **more,
    )  # fmt: skip


def _clip(*, projected: bool = False) -> Any:
    config = transformers.CLIPTextConfig(
        hidden_size=32, intermediate_size=37, num_attention_heads=4, num_hidden_layers=3, vocab_size=1000,
        projection_dim=32, bos_token_id=0, eos_token_id=2, max_position_embeddings=32,
    )  # fmt: skip
    kind = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    return kind(config).eval()


def _tokenizer() -> Any:
    return transformers.CLIPTokenizer.from_pretrained(TABLES / "tiny/heavy/tokenizer", local_files_only=True)


STEPS, GUIDANCE = 6, 3.0
MODEL = Model("small", "small", steps=STEPS, guidance=GUIDANCE, size=64, memory_gib=0.1)
CAPTIONS = [
    "big red circle on white",
    "two small blue rings on black",
    "big green triangle right on grey",
    "small red ring on grey",
    "three big yellow crosses on black",
]
KINDS: dict[str, Callable[[], Any]] = {
    "tiny": tiny,
    "xl": xl,
    "third": third,
}


@torch.inference_mode()
def drawn(pipeline: Callable[..., Any], places: Sequence[int], **more: Any) -> Tensor:
    """The pictures of those captions, each with its own seed."""
    pictures: Tensor = pipeline(
        prompt=[CAPTIONS[place] for place in places],
        generator=[torch.Generator().manual_seed(place) for place in places],
        num_inference_steps=STEPS, guidance_scale=GUIDANCE, output_type="pt", return_dict=False, **more,
    )[0]  # fmt: skip
    return pictures


def psnr(one: Tensor, other: Tensor) -> float:
    """Of the worst picture of a batch, in decibels."""
    return -10 * math.log10(max(float(((one - other) ** 2).mean((1, 2, 3)).max()), 1e-12))


def quick(kind: str, *switches: str) -> Quick:
    return quickened(KINDS[kind](), MODEL, parse(",".join(switches), "cpu"))
