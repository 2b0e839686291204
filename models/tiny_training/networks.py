"""The networks of the tiny cascade as diffusers and transformers know them, and the folder they are saved in."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    EfficientNetForImageClassification,
)
from transformers.utils import logging

from models.discriminator.architectures import efficientnet
from models.scenes import SIDE, WORDS

logging.disable_progress_bar()

TOKENS = 20
_HIDDEN = 128
_START, _END, _STOP = "<|startoftext|>", "<|endoftext|>", "</w>"
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789,.-'"


def tokenizer() -> CLIPTokenizer:
    """A byte-pair vocabulary in which every word of the scenes is one token; start 0, end and padding 1."""
    merges = _byte_pairs(WORDS)
    endings = [letter + _STOP for letter in _ALPHABET]
    pieces = [_START, _END, *_ALPHABET, *endings, *(left + right for left, right in merges)]
    return CLIPTokenizer(
        vocab={piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, merges=merges,
        unk_token=_END, bos_token=_START, eos_token=_END, pad_token=_END, model_max_length=TOKENS,
    )  # fmt: skip


def _byte_pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    """Byte-pair merges until every word is whole (Sennrich et al. 2016).

    The library's own trainer breaks ties by chance, so that one seed would give two vocabularies.
    """
    pieces = [[*word[:-1], word[-1] + _STOP] for word in words]
    merges: list[tuple[str, str]] = []
    while counts := Counter(pair for word in pieces for pair in pairwise(word)):
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        pieces = [_join(word, best) for word in pieces]
    return merges


def _join(word: list[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    for piece in word:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def word_table(words: CLIPTokenizer) -> Callable[[Sequence[str]], Tensor]:
    """Captions -> token ids int64 (batch, 20), by a table look-up: the tokenizer itself is ten times slower."""
    ids = {word: words.convert_tokens_to_ids(word + _STOP) for word in WORDS}
    start, end = words.bos_token_id, words.eos_token_id

    def tokenise(captions: Sequence[str]) -> Tensor:
        rows = [[start, *(ids[word] for word in text.split())] for text in captions]
        return torch.tensor([row + [end] * (TOKENS - len(row)) for row in rows])

    return tokenise


def text_encoder(vocabulary: int) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=_HIDDEN, intermediate_size=2 * _HIDDEN, projection_dim=_HIDDEN,
        num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=TOKENS,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return CLIPTextModel(config)


def denoiser() -> UNet2DConditionModel:
    """Attention at 4 x 4 only: at 8 x 8 it costs half as much again and the loss per sample stays the same."""
    return UNet2DConditionModel(
        sample_size=SIDE // 8, in_channels=12, out_channels=12, block_out_channels=(64, 128), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4, cross_attention_dim=_HIDDEN, norm_num_groups=16, use_linear_projection=True,
    )  # fmt: skip


def autoencoder() -> AutoencoderTiny:
    return AutoencoderTiny(
        latent_channels=12, scaling_factor=1.0,
        encoder_block_out_channels=(16,) * 4, decoder_block_out_channels=(24,) * 4,
        num_encoder_blocks=(0, 0, 1, 1), num_decoder_blocks=(3, 2, 1, 1),
    )  # fmt: skip


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", timestep_spacing="trailing",
        set_alpha_to_one=True, clip_sample=False, steps_offset=1,
    )  # fmt: skip


def discriminator() -> EfficientNetForImageClassification:
    """EfficientNet of a quarter width, initialised anew."""
    return efficientnet(SIDE, width=0.25, depth=0.5, hidden=320)


def save_pipeline(
    folder: Path, words: CLIPTokenizer, text: CLIPTextModel, unet: UNet2DConditionModel, vae: AutoencoderTiny
) -> None:
    """Writes what `StableDiffusionPipeline.from_pretrained(folder)` reads, weights in half precision."""
    pipeline = StableDiffusionPipeline(
        vae=vae.half(), text_encoder=text.half(), tokenizer=words, unet=unet.half(), scheduler=scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    compute_in_single(folder / "text_encoder")


def compute_in_single(folder: Path) -> None:
    """Makes transformers load half-precision weights as single, as diffusers does of itself: the CPU is faster so."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {"dtype": "float32"}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save_preprocessor(folder: Path) -> None:
    """How a picture becomes the discriminator's input: 64 x 64, in [-1, 1]."""
    side = {"height": SIDE, "width": SIDE}
    half = [0.5, 0.5, 0.5]
    config = {
        "image_processor_type": "EfficientNetImageProcessor",
        "do_resize": True, "size": side, "resample": 3, "do_center_crop": False, "crop_size": side,
        "do_rescale": True, "rescale_factor": 1 / 255, "rescale_offset": False,
        "do_normalize": True, "image_mean": half, "image_std": half, "include_top": False,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(config, indent=1) + "\n")
