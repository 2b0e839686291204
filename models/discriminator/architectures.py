"""The networks that can be trained as a discriminator, by name; another is a row."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors.torch import load_file, save_file
from torch import nn
from transformers import EfficientNetConfig, EfficientNetForImageClassification

from models.discriminator.efficientnet_v2 import MODEL_TYPE, EfficientNetV2S
from models.discriminator.folder import CONFIG, TEMPERATURE, WEIGHTS
from shared.errors import ModelError

LABELS: Final = ("fake", "real")


@dataclass(frozen=True)
class Architecture:
    """A network for pictures of `side` x `side`; `build` makes it anew, and `rate` is AdamW's to train it with."""

    build: Callable[[], nn.Module]
    side: int
    batch: int
    rate: float


def efficientnet(side: int, width: float, depth: float, hidden: int) -> EfficientNetForImageClassification:
    """An EfficientNet of transformers, initialised anew.

    As transformers does it, batch norm starts near 0 and no gradient passes.
    """
    config = EfficientNetConfig(
        image_size=side, width_coefficient=width, depth_coefficient=depth, hidden_dim=hidden, batch_norm_momentum=0.1,
        dropout_rate=0.1, drop_connect_rate=0.0, id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
    )  # fmt: skip
    network = EfficientNetForImageClassification(config)
    _initialise(network)
    return network


def _v2_s() -> EfficientNetV2S:
    network = EfficientNetV2S(len(LABELS))
    _initialise(network)
    return network


def _initialise(network: nn.Module) -> None:
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out")


ARCHITECTURES: Final[Mapping[str, Architecture]] = {
    "small": Architecture(lambda: efficientnet(64, 0.25, 0.5, 320), 64, 48, 2e-3),
    "b0": Architecture(lambda: efficientnet(224, 1.0, 1.0, 1280), 224, 64, 1e-3),
    "v2-s": Architecture(_v2_s, 224, 64, 5e-4),
}


def begin_from(network: nn.Module, folder: Path) -> int:
    """Take over the weights of a folder that fit, such as those of a network trained on other pictures.

    Returns how many tensors were taken; raises ModelError where hardly any fits.
    """
    try:
        given = load_file(folder / WEIGHTS)
    except OSError as wrong:
        raise ModelError(f"{folder}: no weights to begin from: {wrong}") from None
    own = network.state_dict()
    fitting = {name: value.float() for name, value in given.items() if name in own and own[name].shape == value.shape}
    if len(fitting) < len(own) - 4:  # a head for other classes may differ
        raise ModelError(f"{folder}: {len(fitting)} of {len(own)} tensors fit this network: it is another one's")
    network.load_state_dict(own | fitting)
    return len(fitting)


def save(network: nn.Module, folder: Path, side: int, temperature: float, more: Mapping[str, Any]) -> None:
    """Write model.safetensors and config.json, from which `open_scorer` loads the network."""
    if isinstance(network, EfficientNetForImageClassification):
        network.save_pretrained(folder)
        config = json.loads((folder / CONFIG).read_text())
    else:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / WEIGHTS)
        labels = dict(enumerate(LABELS))
        config = {
            "model_type": MODEL_TYPE,
            "image_size": side,
            "id2label": labels,
            "label2id": {label: number for number, label in labels.items()},
        }
    config |= {TEMPERATURE: temperature, **more}
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
