"""What scorers do alike: pictures are normalised, values mapped to [0, 1], and scores that are no numbers refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.discriminator.folder import MEAN, SPREAD, number, triple
from shared.errors import ModelError

Colours = tuple[float, float, float]


class Preparing:
    """Normalises pictures in [0, 1] by the mean and spread of each colour of config.json, or by the default ones."""

    def __init__(
        self, config: dict[str, Any], folder: Path, device: torch.device, mean: Colours, spread: Colours
    ) -> None:
        """Raises ModelError where config.json has other than three numbers."""
        self._mean, self._spread = (
            torch.tensor(triple(config, name, default, folder), device=device).view(3, 1, 1)
            for name, default in ((MEAN, mean), (SPREAD, spread))
        )

    def __call__(self, pictures: Tensor) -> Tensor:
        return (pictures - self._mean) / self._spread


class Logistic:
    """1 / (1 + exp((centre - value) / width)), with config.json's score_centre and score_width, or the default ones."""

    def __init__(
        self, config: dict[str, Any], folder: Path, centre: float, width: float, *, signed: bool = False
    ) -> None:
        """`signed`: the centre may be negative. Raises ModelError where config.json has no such numbers."""
        self._centre = number(config, "score_centre", centre, folder, signed=signed)
        self._width = number(config, "score_width", width, folder)

    def __call__(self, values: Tensor) -> list[float]:
        scores: list[float] = torch.sigmoid((values - self._centre) / self._width).tolist()
        return scores


def finite(scores: list[float], whose: str) -> list[float]:
    """The scores as they are; raises ModelError where one is not finite."""
    if not all(math.isfinite(score) for score in scores):
        raise ModelError(f"{whose} score is not finite")
    return scores
