"""The discriminator: P(real) of a picture, the score by which the light stage escalates."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from models.libraries import WEIGHTS_WRONG, classifier_from
from shared.errors import ModelError

REAL: Final = "real"

Scorer = Callable[[Tensor, Sequence[str]], list[float]]


def open_scorer(folder: Path, device: torch.device) -> Scorer:
    """The scorer in a folder, by the `model_type` of its config.json; raises ModelError."""
    config = folder / "config.json"
    if config.is_file() and json.loads(config.read_text()).get("model_type") == "caption":
        from models import caption_discriminator

        return caption_discriminator.open_scorer(folder, device)
    return Discriminator(folder, device).score


class Discriminator:
    """An EfficientNet with the labels `fake` and `real`."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Load from a folder; raises ModelError."""
        if not folder.is_dir():
            raise ModelError(
                f"no discriminator in {folder}: put the weights there (for the tiny cascade: python -m "
                "models.train_tiny), or name another folder in models/catalog.toml"
            )
        try:
            network = classifier_from(folder)
        except WEIGHTS_WRONG as wrong:
            raise ModelError(f"cannot load the discriminator in {folder}: {wrong}") from wrong
        if REAL not in network.config.label2id:
            raise ModelError(f"{folder}/config.json: label2id has no label {REAL!r}")
        self._network = network.to(device)
        self._real = int(network.config.label2id[REAL])
        self._side = int(network.config.image_size)

    @torch.inference_mode()
    def score(self, pictures: Tensor, prompts: Sequence[str]) -> list[float]:  # noqa: ARG002 (it sees no prompt)
        """P(real) of each picture.

        `pictures`: (n, 3, height, width) in [0, 1], shrunk to the size that the network was trained on;
        `prompts`: what each was to show. Raises ModelError where a score is not finite.
        """
        pictures = pictures.float()
        if pictures.shape[-2:] != (self._side, self._side):
            size = (self._side, self._side)
            pictures = functional.interpolate(pictures, size, mode="bilinear", antialias=True)
        logits: Tensor = self._network(pictures * 2 - 1).logits
        scores: list[float] = logits.softmax(dim=-1)[:, self._real].tolist()
        if not all(math.isfinite(score) for score in scores):
            raise ModelError("the discriminator's score is not finite")
        return scores
