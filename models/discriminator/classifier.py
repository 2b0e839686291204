"""P(real) by a classifier of pictures: an EfficientNet of transformers, or EfficientNet-V2-S as it was published."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from models.discriminator.efficientnet_v2 import MODEL_TYPE, EfficientNetV2S
from models.discriminator.folder import CONFIG, TEMPERATURE, WEIGHTS, number, read_config
from models.discriminator.scoring import Preparing, finite
from models.libraries import WEIGHTS_WRONG, classifier_from
from shared.errors import ModelError

REAL: Final = "real"
HALF: Final = (0.5, 0.5, 0.5)  # mean and spread that bring [0, 1] to [-1, 1]
AT_ONCE: Final = 64  # pictures; more than a light batch, as an evaluation scores thousands


class Discriminator:
    """A classifier with the labels `fake` and `real`."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Load from a folder; raises ModelError."""
        config = read_config(folder)
        kind = str(config.get("model_type"))
        try:
            network = CLASSIFIERS[kind](folder, config)
        except KeyError as unknown:
            raise ModelError(f"cannot load the discriminator in {folder}: model_type or field {unknown}") from None
        except WEIGHTS_WRONG as wrong:
            raise ModelError(f"cannot load the discriminator in {folder}: {wrong}") from wrong
        if REAL not in (config.get("label2id") or {}):
            raise ModelError(f"{folder}/{CONFIG}: label2id has no label {REAL!r}")
        self._device = device
        self._network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._real = int(config["label2id"][REAL])
        self._side = int(number(config, "image_size", 0, folder))
        self._preparing = Preparing(config, folder, device, HALF, HALF)
        self._temperature = number(config, TEMPERATURE, 1.0, folder)

    def score(self, pictures: Tensor, prompts: Sequence[str]) -> list[float]:  # noqa: ARG002 (it sees no prompt)
        """P(real) of each picture.

        `pictures`: (n, 3, height, width) in [0, 1], shrunk to the size that the network was trained on;
        `prompts`: what each was to show. Raises ModelError where a score is not finite.
        """
        scores = [
            score
            for first in range(0, len(pictures), AT_ONCE)
            for score in (self._margins(pictures[first : first + AT_ONCE]) / self._temperature).sigmoid().tolist()
        ]
        return finite(scores, "the discriminator's")

    @torch.inference_mode()
    def _margins(self, pictures: Tensor) -> Tensor:
        """How far the logit of `real` stands above those of the other labels together."""
        prepared = self._preparing(shrunk(pictures.to(self._device), self._side))
        logits = logits_of(self._network(prepared.contiguous(memory_format=torch.channels_last)))
        others = [label for label in range(logits.shape[1]) if label != self._real]
        return logits[:, self._real] - logits[:, others].logsumexp(dim=-1)


def shrunk(pictures: Tensor, side: int) -> Tensor:
    """The pictures as float32 squares of that side, smoothed where they shrink."""
    pictures = pictures.float()
    if pictures.shape[-2:] == (side, side):
        return pictures
    return functional.interpolate(pictures, (side, side), mode="bilinear", antialias=True)


def logits_of(answer: Any) -> Tensor:
    """The logits of a network of transformers, or of one that returns them bare."""
    logits: Tensor = answer if isinstance(answer, Tensor) else answer.logits
    return logits


def _efficientnet(folder: Path, _config: Mapping[str, Any]) -> nn.Module:
    network: nn.Module = classifier_from(folder)
    return network


def _efficientnet_v2(folder: Path, config: Mapping[str, Any]) -> nn.Module:
    network = EfficientNetV2S(len(config["label2id"]))
    network.load_state_dict(load_file(folder / WEIGHTS))
    return network.float().eval()


CLASSIFIERS: Final[Mapping[str, Callable[[Path, Mapping[str, Any]], nn.Module]]] = {
    "efficientnet": _efficientnet,
    MODEL_TYPE: _efficientnet_v2,
}
