"""How well a picture fits its prompt, by a CLIP model: CLIPScore, or PickScore where the weights are its.

Both are a cosine of the picture's and the prompt's embedding, CLIPScore times 2.5 and cut at 0 (Hessel et al. 2021),
PickScore times a learnt scale (Kirstain et al. 2023). Escalation asks for the order alone, and for numbers in [0, 1]:
the cosine is mapped by 1 / (1 + exp((CENTRE - cosine) / WIDTH)), unless config.json has its own score_centre and
score_width. Neither score is a probability of anything. ImageReward has a file of its own, image_reward.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from models.discriminator.folder import read_config
from models.discriminator.scoring import Logistic, Preparing, finite
from models.libraries import WEIGHTS_WRONG, clip_from
from shared.errors import ModelError

# Cosines of drawn pictures with their prompts lie between .15 and .35 with the published CLIP models.
CENTRE: Final = 0.25
WIDTH: Final = 0.05
CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
CLIP_SPREAD: Final = (0.26862954, 0.26130258, 0.27577711)


class Similarity:
    """A CLIP model from a folder with model.safetensors, config.json and the tokenizer's files."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Load from a folder; raises ModelError."""
        config = read_config(folder)
        try:
            network, self._tokenizer = clip_from(folder)
        except WEIGHTS_WRONG as wrong:
            raise ModelError(f"cannot load the CLIP model in {folder}: {wrong}") from wrong
        self._network = network.to(device)
        self._device = device
        self._side = int(network.config.vision_config.image_size)
        self._words = int(network.config.text_config.max_position_embeddings)
        self._preparing = Preparing(config, folder, device, CLIP_MEAN, CLIP_SPREAD)
        self._mapping = Logistic(config, folder, CENTRE, WIDTH)

    def score(self, pictures: Tensor, prompts: Sequence[str]) -> list[float]:
        """The cosines, mapped to [0, 1]; pictures (n, 3, height, width) in [0, 1]. Raises ModelError."""
        return finite(self._mapping(self.cosines(pictures, prompts)), "the CLIP model's")

    @torch.inference_mode()
    def cosines(self, pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        """Cosine of each picture with its own prompt, (n,)."""
        words = self._tokenizer(
            list(prompts), padding=True, truncation=True, max_length=self._words, return_tensors="pt"
        ).to(self._device)
        seen = self._network(pixel_values=self._prepared(pictures), **words)
        return functional.cosine_similarity(seen.image_embeds, seen.text_embeds)

    def features(self, pictures: Tensor) -> Tensor:
        """Embeddings of the pictures, (n, width), of length 1."""
        with torch.inference_mode():
            found = self._network.get_image_features(pixel_values=self._prepared(pictures))
            return functional.normalize(found if isinstance(found, Tensor) else found.pooler_output, dim=-1)

    def _prepared(self, pictures: Tensor) -> Tensor:
        return self._preparing(middle_square(pictures.to(self._device), self._side))


def middle_square(pictures: Tensor, side: int) -> Tensor:
    """The middle square of pictures in [0, 1], as float32 of that side, as CLIP was trained on."""
    height, width = pictures.shape[-2:]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    square = pictures[..., top : top + edge, left : left + edge].float()
    return functional.interpolate(square, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
