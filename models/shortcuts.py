"""Switches that change the picture: less guidance, features used twice, coarse weights. Off unless asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

# What a pipeline's loop holds twice over while it guides: the unguided half first, the guided one behind it.
DOUBLED: Final = ("prompt_embeds", "add_text_embeds", "add_time_ids", "pooled_prompt_embeds")
_Forward = Callable[..., Any]


def end_guidance(pipeline: Any, step: int, share: float, tensors: dict[str, Any]) -> dict[str, Any]:
    """After the last guided step, the second halves of what guidance doubled; otherwise the tensors as they are.

    `step`: the one that ended, from 0. `share` of the steps are guided; the denoiser's batch is half as large from
    then on (Kynkaanniemi et al. 2024, arXiv 2404.07724, find late guidance of little use).
    """
    if not pipeline.do_classifier_free_guidance or step + 1 < math.ceil(share * pipeline.num_timesteps):
        return tensors
    pipeline._guidance_scale = 1.0  # the next call sets it anew
    return tensors | {name: kept.chunk(2)[1] for name, kept in tensors.items() if name in DOUBLED}


class CachedFeatures:
    """A UNet whose deep blocks run in every n-th step; between, what they last put out is used again.

    Only the first block down and the last one up run then, on the features kept from before (DeepCache, Ma et al.
    2024, arXiv 2312.00858). A step whose batch is another one than the kept features' runs all blocks.
    """

    def __init__(self, unet: nn.Module, every: int) -> None:
        self._every = every
        self._step = 0
        self._shallow = False
        self._kept: Tensor | None = None
        downs, ups = list(_blocks(unet, "down_blocks"))[1:], list(_blocks(unet, "up_blocks"))[:-1]
        for down in downs:
            self._replace(down, self._passed_down(down))
        if isinstance(unet.mid_block, nn.Module):
            self._replace(unet.mid_block, lambda sample, *_, **__: sample)
        for up in ups:
            self._replace(up, lambda *_, **__: self._kept)
        ups[-1].register_forward_hook(self._keep)
        unet.register_forward_pre_hook(self._decide, with_kwargs=True)

    def restart(self) -> None:
        """Another batch begins: nothing that was kept is of use to it."""
        self._step, self._kept = 0, None

    def _decide(self, _unet: nn.Module, given: tuple[Any, ...], _named: dict[str, Any]) -> None:
        alike = self._kept is not None and len(self._kept) == len(given[0])
        self._shallow = alike and self._step % self._every != 0
        self._step += 1

    def _keep(self, _block: nn.Module, _given: tuple[Any, ...], features: Tensor) -> None:
        self._kept = features

    def _replace(self, block: nn.Module, stand_in: _Forward) -> None:
        whole: _Forward = block.forward
        block.forward = lambda *given, **named: (stand_in if self._shallow else whole)(*given, **named)

    @staticmethod
    def _passed_down(block: nn.Module) -> _Forward:
        # As many residuals as the block would give: the blocks that they are for do not run either.
        residuals = len(_blocks(block, "resnets")) + bool(getattr(block, "downsamplers", None))
        return lambda hidden_states, *_, **__: (hidden_states, (hidden_states,) * residuals)


def _blocks(network: nn.Module, name: str) -> nn.ModuleList:
    found = getattr(network, name)
    assert isinstance(found, nn.ModuleList)
    return found


class Int8Linear(nn.Module):
    """A linear layer whose weights are kept as 8-bit integers with a scale for each output; computed as before.

    It halves the memory of the weights of half-precision models and makes nothing faster by itself: compiled, the
    weights are widened within the product.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        scale = linear.weight.detach().abs().amax(1, keepdim=True).clamp(min=1e-8) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("weight", (linear.weight.detach() / scale).round().to(torch.int8))
        self.bias = linear.bias

    def forward(self, inputs: Tensor) -> Tensor:
        scale, weight = self.scale, self.weight
        assert isinstance(scale, Tensor)
        assert isinstance(weight, Tensor)
        return functional.linear(inputs, weight.to(inputs.dtype) * scale, self.bias)


def quantise(network: nn.Module) -> int:
    """Put Int8Linear in the place of every linear layer; returns how many."""
    found = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear
    ]
    for parent, name, child in found:
        setattr(parent, name, Int8Linear(child))
    return len(found)
