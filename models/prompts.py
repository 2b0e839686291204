"""Embeddings of prompts, kept: the empty one that guidance pushes away from, and the last others within a budget."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

BUDGET: Final = 64 * 2**20  # bytes on the device: two hundred prompts of SDXL, some twenty of SD3
_NEGATIVE: Final = "negative_"
# What encode_prompt of a pipeline returns, by the names under which its call takes it.
_PLAIN: Final = ("prompt_embeds", "negative_prompt_embeds")
_POOLED: Final = (*_PLAIN, "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
RETURNED: Final[Mapping[str, tuple[str, ...]]] = {
    "StableDiffusionPipeline": _PLAIN,
    "StableDiffusionXLPipeline": _POOLED,
    "StableDiffusion3Pipeline": _POOLED,
}

Embeddings = Mapping[str, Tensor]  # each (1, ...)


class PromptCache:
    """The embeddings of prompts for one of the pipelines in RETURNED."""

    def __init__(self, pipeline: Any, budget: int = BUDGET) -> None:
        self._pipeline = pipeline
        self._names = RETURNED[type(pipeline).__name__]
        self._budget = budget
        self._known: OrderedDict[str, Embeddings] = OrderedDict()
        self._held = 0
        self._empty: Embeddings | None = None

    def arguments(self, prompts: Sequence[str], *, guided: bool) -> dict[str, Tensor]:
        """What the pipeline's call takes in place of the prompts; tensors (prompts, ...) on its device."""
        fresh = self._encoded([prompt for prompt in dict.fromkeys(prompts) if prompt not in self._known])
        found = [fresh[prompt] if prompt in fresh else self._used(prompt) for prompt in prompts]
        self._keep(fresh)
        joined = {name: torch.cat([each[name] for each in found]) for name in found[0]}
        if guided:
            joined |= {name: kept.expand(len(prompts), *kept.shape[1:]) for name, kept in self._unguided().items()}
        return joined

    def _encoded(self, prompts: Sequence[str]) -> dict[str, Embeddings]:
        if not prompts:
            return {}
        whole = self._encode(prompts, guided=False)
        names = [name for name in self._names if not name.startswith(_NEGATIVE)]
        # Rows of their own: a view would hold the whole batch in memory for as long as one of its prompts is kept.
        return {prompt: {name: whole[name][[row]] for name in names} for row, prompt in enumerate(prompts)}

    def _unguided(self) -> Embeddings:
        if self._empty is None:
            # Asked for as guidance asks, for some pipelines take zeros in place of an empty prompt's embedding.
            whole = self._encode([""], guided=True)
            self._empty = {name: whole[name] for name in self._names if name.startswith(_NEGATIVE)}
        return self._empty

    def _encode(self, prompts: Sequence[str], *, guided: bool) -> dict[str, Tensor]:
        more = dict.fromkeys(("prompt_2", "prompt_3")) if self._names == _POOLED else {}
        if type(self._pipeline).__name__ == "StableDiffusionXLPipeline":
            del more["prompt_3"]
        encoded = self._pipeline.encode_prompt(
            prompt=list(prompts), device=self._pipeline.device, num_images_per_prompt=1,
            do_classifier_free_guidance=guided, **more,
        )  # fmt: skip
        return dict(zip(self._names, encoded, strict=True))

    def _used(self, prompt: str) -> Embeddings:
        self._known.move_to_end(prompt)
        return self._known[prompt]

    def _keep(self, fresh: Mapping[str, Embeddings]) -> None:
        self._known.update(fresh)
        self._held += sum(map(_bytes, fresh.values()))
        while self._held > self._budget and self._known:
            _, oldest = self._known.popitem(last=False)
            self._held -= _bytes(oldest)


def _bytes(embeddings: Embeddings) -> int:
    return sum(each.nbytes for each in embeddings.values())
