"""What may score light pictures, by the `model_type` of the folder's config.json; another scorer is a row."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from models.discriminator.classifier import CLASSIFIERS, Discriminator
from models.discriminator.folder import CONFIG, read_config
from shared.errors import ModelError

# Pictures (n, 3, height, width) in [0, 1] and their prompts in, numbers in [0, 1] out: higher is better.
Scorer = Callable[[Tensor, Sequence[str]], list[float]]
Opener = Callable[[Path, torch.device], Scorer]


def open_scorer(folder: Path, device: torch.device) -> Scorer:
    """The scorer in a folder, its weights on the device; raises ModelError that says what to do."""
    kind = str(read_config(folder).get("model_type"))
    if kind not in SCORERS:
        raise ModelError(f"{folder}/{CONFIG}: no scorer has model_type {kind!r}; there are {', '.join(SCORERS)}")
    return SCORERS[kind](folder, device)


def is_scorer(folder: Path) -> bool:
    """Whether config.json says that the folder is a scorer's."""
    try:
        return str(read_config(folder).get("model_type")) in SCORERS
    except ModelError:
        return False


def _classifier(folder: Path, device: torch.device) -> Scorer:
    return Discriminator(folder, device).score


def _similarity(folder: Path, device: torch.device) -> Scorer:
    from models.discriminator.similarity import Similarity

    return Similarity(folder, device).score


def _image_reward(folder: Path, device: torch.device) -> Scorer:
    from models.discriminator.image_reward import ImageReward

    return ImageReward(folder, device).score


def _caption(folder: Path, device: torch.device) -> Scorer:
    opened: Scorer = importlib.import_module("models.caption_discriminator").open_scorer(folder, device)
    return opened


SCORERS: Final[Mapping[str, Opener]] = {
    **dict.fromkeys(CLASSIFIERS, _classifier),
    "clip": _similarity,
    "image-reward": _image_reward,
    "caption": _caption,
}
