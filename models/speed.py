"""What a worker does beyond plain diffusers to draw faster: each switch is a function over a loaded pipeline.

    pipeline ──switches──> Quick: called as the pipeline is, draws the same pictures unless a switch says otherwise

channels_last      convolutions keep the channels of a pixel together, as tensor cores read them
fused_projections  one product for query, key and value
cached_prompts     the empty prompt is encoded once, and the last prompts are not encoded again
host_schedule      no step asks the device for a number (models/schedule.py)
threaded_encoding  pictures are encoded side by side, while the discriminator looks at them (models/encoding.py)
compile            denoiser and decoder compiled ahead (models/compiled.py)
guidance_until, cached_features, int8   change the picture (models/shortcuts.py)

A switch that a model or a machine can't have is passed over, and the log says so once.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any, Final

import torch
from torch import Tensor, nn

from models.compiled import Compiled, filled, keep_compiled_in, lacking
from models.prompts import RETURNED, PromptCache
from models.schedule import host_schedule
from models.shortcuts import DOUBLED, CachedFeatures, end_guidance, quantise
from models.switches import Switches
from shared.model import WEIGHTS, Model

STEP_ENDED: Final = "callback_on_step_end"
LOOKED_AT: Final = "callback_on_step_end_tensor_inputs"

_logger: Final = logging.getLogger("cascade")
StepEnded = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]


class NotApplicable(Exception):
    """This switch can't be had with this model on this machine; the text says why."""


class Quick:
    """A diffusers pipeline with switches: called by keywords as the pipeline is, with prompts and generators as lists.

    `asked`: what was asked for; `applied`: what is on, by name; `passed_over`: what is not, and why.
    """

    def __init__(self, pipeline: Any, model: Model, asked: Switches) -> None:
        self.pipeline = pipeline
        self.model = model
        self.asked = asked
        self.applied: list[str] = []
        self.passed_over: dict[str, str] = {}
        self.prompts: PromptCache | None = None
        self.features: CachedFeatures | None = None
        self.compiled: Compiled | None = None
        self.guidance_until = 1.0
        self.__signature__ = inspect.signature(pipeline)

    @property
    def denoiser(self) -> nn.Module:
        """The network that every step runs."""
        found: nn.Module = self.pipeline.unet if hasattr(self.pipeline, "unet") else self.pipeline.transformer
        return found

    def __call__(self, prompt: list[str], generator: list[torch.Generator], **asked: Any) -> tuple[Tensor, ...]:
        """The pipeline's own answer, for `output_type="pt"` and `return_dict=False`."""
        own_size = not asked.keys() & {"width", "height"}
        batch = self._filled(len(prompt)) if own_size else len(prompt)
        surplus = batch - len(prompt)
        prompts = prompt + prompt[-1:] * surplus
        generators = generator + [torch.Generator().manual_seed(0) for _ in range(surplus)]
        try:
            drawn = self._drawn(prompts, generators, asked)
        except RuntimeError as wrong:
            if not (self.compiled and self.compiled.undone_by(wrong)):
                raise
            self.applied.remove("compile")
            self.pass_over("compile", " ".join(str(wrong).split())[:200])
            self.compiled = None
            drawn = self._drawn(prompts, generators, asked)
        return (drawn[0][: len(prompt)], *drawn[1:])

    def _drawn(
        self, prompts: list[str], generators: list[torch.Generator], asked: dict[str, Any]
    ) -> tuple[Tensor, ...]:
        if self.features:
            self.features.restart()
        own_size = not asked.keys() & {"width", "height"}
        with self.compiled.drawing(len(prompts) if own_size else 0) if self.compiled else nullcontext():
            drawn: tuple[Tensor, ...] = self.pipeline(
                **self._worded(prompts, asked), generator=generators, **self._stepping(asked)
            )
        return drawn

    def pass_over(self, name: str, reason: str) -> None:
        """Remember, and say once, that a switch is off and why."""
        self.passed_over[name] = reason
        told = {"switch": name, "model": self.model.name, "reason": reason}
        _logger.warning("a speed switch is passed over", extra=told)

    def _filled(self, batch: int) -> int:
        return filled(batch, sorted(self.compiled.sizes)) if self.compiled and not self.compiled.warming else batch

    def _worded(self, prompts: list[str], asked: Mapping[str, Any]) -> dict[str, Any]:
        if self.prompts is None:
            return {"prompt": prompts}
        return self.prompts.arguments(prompts, guided=asked["guidance_scale"] > 1)

    def _stepping(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        if self.guidance_until == 1.0:
            return dict(asked)
        told: StepEnded = asked.get(STEP_ENDED, lambda _pipeline, _step, _time, tensors: tensors)

        def step_ended(pipeline: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            return end_guidance(pipeline, step, self.guidance_until, told(pipeline, step, time, tensors))

        looked_at = ["latents", *(name for name in self.pipeline._callback_tensor_inputs if name in DOUBLED)]
        return {**asked, STEP_ENDED: step_ended, LOOKED_AT: looked_at}


def quickened(pipeline: Any, model: Model, asked: Switches) -> Quick:
    """The pipeline, changed in place, with the switches that it can have; the others are named in the log."""
    quick = Quick(pipeline, model, asked)
    for name in asked.names:
        try:
            if name in _APPLIED:
                _APPLIED[name](quick)
        except NotApplicable as reason:
            quick.pass_over(name, str(reason))
        else:
            quick.applied.append(name)
    return quick


def _channels_last(quick: Quick) -> None:
    networks = [quick.denoiser, quick.pipeline.vae]
    for network in networks:
        network.to(memory_format=torch.channels_last)


def _fused_projections(quick: Quick) -> None:
    attentions: list[Any] = [each for each in quick.denoiser.modules() if hasattr(each, "fuse_projections")]
    if not attentions:
        raise NotApplicable("the denoiser has no attention that could be fused")
    if any(getattr(each, "norm_q", None) is not None or getattr(each, "add_q_proj", None) for each in attentions):
        # diffusers' fused processors leave out the norms between projection and product.
        raise NotApplicable("its attention normalises queries, or is joint: diffusers would fuse it into another")
    networks: tuple[Any, ...] = (quick.denoiser, quick.pipeline.vae)
    for network in networks:
        if hasattr(network, "fuse_qkv_projections"):
            network.fuse_qkv_projections()
            _forget_single_projections(network)


def _forget_single_projections(network: nn.Module) -> None:
    """What was fused is there twice otherwise."""
    modules: Iterable[Any] = network.modules()
    for each in modules:
        if hasattr(each, "to_qkv"):
            del each.to_q, each.to_k, each.to_v
        elif hasattr(each, "to_kv"):
            del each.to_k, each.to_v


def _cached_prompts(quick: Quick) -> None:
    if type(quick.pipeline).__name__ not in RETURNED:
        raise NotApplicable(f"what a {type(quick.pipeline).__name__} makes of a prompt is not known here")
    quick.prompts = PromptCache(quick.pipeline)


def _host_schedule(quick: Quick) -> None:
    host_schedule(quick.pipeline)


def _guidance_until(quick: Quick) -> None:
    if quick.model.guidance <= 1:
        raise NotApplicable("it draws without guidance")
    if STEP_ENDED not in inspect.signature(quick.pipeline).parameters:
        raise NotApplicable("its pipeline tells no one of its steps")
    quick.guidance_until = quick.asked.guidance_until


def _cached_features(quick: Quick) -> None:
    if len(getattr(quick.denoiser, "up_blocks", ())) < 2:
        # The caches of diffusers for transformers decide by the mean over a batch: a picture would not be its own.
        raise NotApplicable("only for a UNet: the caches for transformers let a picture depend on its batch")
    if quick.model.steps < 2:
        raise NotApplicable("it draws in one step")
    quick.features = CachedFeatures(quick.denoiser, quick.asked.cached_features)


def _int8(quick: Quick) -> None:
    quantise(quick.denoiser)


def _compile(quick: Quick) -> None:
    keep_compiled_in(quick.model.home / WEIGHTS / ".compiled", _logger)
    if lack := lacking(quick.pipeline.device):
        raise NotApplicable(lack)
    keep_wide(quick.pipeline)
    quick.compiled = Compiled([quick.denoiser, quick.pipeline.vae.decoder], quick.pipeline.device)


def keep_wide(pipeline: Any) -> None:
    """Let the decoder of a pipeline that draws in single precision stay in it.

    The pipeline of SDXL widens it for each batch and narrows it again: its weights would move in memory, where a graph
    that was captured, or who takes them off the device, would look for them in vain.
    """
    vae = pipeline.vae
    if not (hasattr(pipeline, "upcast_vae") and vae.dtype == torch.float16 and vae.config.force_upcast):
        return
    vae.to(torch.float32)
    decode = vae.decode
    vae.decode = lambda latents, **named: decode(latents.to(torch.float32), **named)


# threaded_encoding is the backend's, not the pipeline's.
_APPLIED: Final[Mapping[str, Callable[[Quick], None]]] = {
    "channels_last": _channels_last,
    "fused_projections": _fused_projections,
    "cached_prompts": _cached_prompts,
    "host_schedule": _host_schedule,
    "guidance_until": _guidance_until,
    "cached_features": _cached_features,
    "int8": _int8,
    "compile": _compile,
}
