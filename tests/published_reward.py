"""ImageReward in the layout that was published, of any size: names, weights drawn from a seed, and what it computes.

The forward pass is written down anew from the papers, with plain functions of torch on the tensors as they are named
in the file (Dosovitskiy et al. 2021 for the picture, Devlin et al. 2019 for the text, Li et al. 2022 for how the text
looks at the picture), so that it shares nothing with the networks it is compared with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

HEAD = 64  # channels of an attention head
SIGNS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SIGNS, "a", "big", "small", "red", "blue", "green", "circle", "ring", "on", "grey", "##s"]

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Sizes:
    """`side`: pixels; `patch`: of a patch; `wide`, `narrow`: channels of the picture's and the text's network."""

    side: int = 48
    patch: int = 16
    wide: int = 192
    seeing: int = 2
    narrow: int = 128
    reading: int = 2
    words: int = len(WORDS) + 2
    places: int = 40
    projected: int = 8
    head: tuple[int, ...] = (32, 24, 16, 8)


FULL = Sizes(224, 16, 1024, 24, 768, 12, 30524, 512, 256, (1024, 128, 64, 16))


def shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """The names in the published file and the shape of each."""
    found: dict[str, tuple[int, ...]] = {}

    def linear(name: str, before: int, after: int) -> None:
        found.update({f"{name}.weight": (after, before), f"{name}.bias": (after,)})

    def norm(name: str, channels: int) -> None:
        found.update({f"{name}.weight": (channels,), f"{name}.bias": (channels,)})

    wide, narrow, seen, text = sizes.wide, sizes.narrow, "blip.visual_encoder", "blip.text_encoder"
    found |= {f"{seen}.cls_token": (1, 1, wide)}
    found |= {f"{seen}.pos_embed": (1, (sizes.side // sizes.patch) ** 2 + 1, wide)}
    found |= {f"{seen}.patch_embed.proj.weight": (wide, 3, sizes.patch, sizes.patch)}
    found |= {f"{seen}.patch_embed.proj.bias": (wide,)}
    for block in (f"{seen}.blocks.{number}" for number in range(sizes.seeing)):
        norm(f"{block}.norm1", wide)
        linear(f"{block}.attn.qkv", wide, 3 * wide)
        linear(f"{block}.attn.proj", wide, wide)
        norm(f"{block}.norm2", wide)
        linear(f"{block}.mlp.fc1", wide, 4 * wide)
        linear(f"{block}.mlp.fc2", 4 * wide, wide)
    norm(f"{seen}.norm", wide)
    found |= {f"{text}.embeddings.position_ids": (1, sizes.places)}
    found |= {f"{text}.embeddings.word_embeddings.weight": (sizes.words, narrow)}
    found |= {f"{text}.embeddings.position_embeddings.weight": (sizes.places, narrow)}
    norm(f"{text}.embeddings.LayerNorm", narrow)
    for layer in (f"{text}.encoder.layer.{number}" for number in range(sizes.reading)):
        for part, before in (("attention", narrow), ("crossattention", wide)):
            linear(f"{layer}.{part}.self.query", narrow, narrow)
            linear(f"{layer}.{part}.self.key", before, narrow)
            linear(f"{layer}.{part}.self.value", before, narrow)
            linear(f"{layer}.{part}.output.dense", narrow, narrow)
            norm(f"{layer}.{part}.output.LayerNorm", narrow)
        linear(f"{layer}.intermediate.dense", narrow, 4 * narrow)
        linear(f"{layer}.output.dense", 4 * narrow, narrow)
        norm(f"{layer}.output.LayerNorm", narrow)
    linear("blip.vision_proj", wide, sizes.projected)
    linear("blip.text_proj", narrow, sizes.projected)
    for place, before, after in zip((0, 2, 4, 6, 7), (narrow, *sizes.head), (*sizes.head, 1), strict=True):
        linear(f"mlp.layers.{place}", before, after)
    return found


def drawn(sizes: Sizes, seed: int) -> Weights:
    """Weights of chance, none of them 0 or 1 throughout: what is left out or swapped shows in the reward."""
    dice = torch.Generator().manual_seed(seed)
    weights: Weights = {}
    for name, shape in shapes(sizes).items():
        if name.endswith("position_ids"):
            weights[name] = torch.arange(sizes.places).expand(1, -1)
        else:
            scale = 1.5 / math.sqrt(math.prod(shape[1:])) if len(shape) in (2, 4) and "embeddings" not in name else 0.5
            weights[name] = torch.randn(shape, generator=dice) * scale + ("norm" in name.lower())
    return weights


def attention(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None = None) -> Tensor:
    """Of heads of HEAD channels, (n, length, channels); `hidden` (n, keys) is True where nobody looks."""
    asked, there, told = (each.view(*each.shape[:2], -1, HEAD).transpose(1, 2) for each in (query, key, value))
    logits = asked @ there.mT / math.sqrt(HEAD)
    if hidden is not None:
        logits = logits.masked_fill(hidden[:, None, None], -math.inf)
    return (logits.softmax(-1) @ told).transpose(1, 2).flatten(2)


def rewards(weights: Weights, sizes: Sizes, pictures: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """What the published program computes of normalised pictures (n, 3, side, side) and tokens (n, words): (n,)."""

    def linear(name: str, given: Tensor) -> Tensor:
        return functional.linear(given, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str, given: Tensor, epsilon: float) -> Tensor:
        return functional.layer_norm(
            given, given.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], epsilon
        )

    name = "blip.visual_encoder"
    projection = weights[f"{name}.patch_embed.proj.weight"], weights[f"{name}.patch_embed.proj.bias"]
    patches = functional.conv2d(pictures, *projection, stride=sizes.patch).flatten(2).mT
    seen = torch.cat([weights[f"{name}.cls_token"].expand(len(pictures), -1, -1), patches], 1)
    seen = seen + weights[f"{name}.pos_embed"]
    for block in (f"{name}.blocks.{number}" for number in range(sizes.seeing)):
        query, key, value = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", seen, 1e-6)).chunk(3, -1)
        seen = seen + linear(f"{block}.attn.proj", attention(query, key, value))
        inner = functional.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", seen, 1e-6)))
        seen = seen + linear(f"{block}.mlp.fc2", inner)
    seen = norm(f"{name}.norm", seen, 1e-6)

    name = "blip.text_encoder.embeddings"
    read = weights[f"{name}.word_embeddings.weight"][tokens]
    read = read + weights[f"{name}.position_embeddings.weight"][: tokens.shape[1]]
    read = norm(f"{name}.LayerNorm", read, 1e-12)
    for layer in (f"blip.text_encoder.encoder.layer.{number}" for number in range(sizes.reading)):
        for part, looked_at, hidden in (("attention", None, mask == 0), ("crossattention", seen, None)):
            by = f"{layer}.{part}"
            there = read if looked_at is None else looked_at
            asked = linear(f"{by}.self.query", read), linear(f"{by}.self.key", there), linear(f"{by}.self.value", there)
            read = norm(f"{by}.output.LayerNorm", linear(f"{by}.output.dense", attention(*asked, hidden)) + read, 1e-12)
        inner = functional.gelu(linear(f"{layer}.intermediate.dense", read))
        read = norm(f"{layer}.output.LayerNorm", linear(f"{layer}.output.dense", inner) + read, 1e-12)

    value = read[:, 0]
    for place in (0, 2, 4, 6, 7):
        value = linear(f"mlp.layers.{place}", value)
    return (value.squeeze(-1) - 0.16717362830052426) / 1.0333394966054072
