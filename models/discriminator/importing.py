"""Takes over a published discriminator: from a .pt file to safetensors and a config.json that says what it is."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safetensors.torch import save_file

from models.discriminator.architectures import LABELS
from models.discriminator.efficientnet_v2 import MODEL_TYPE
from models.discriminator.folder import CONFIG, MEAN, SPREAD, TEMPERATURE, WEIGHTS
from models.discriminator.published import read_published
from models.tiny_training.publish import replace_folder
from shared.errors import ModelError

# How the DiffServe artifact prepares a picture (src/worker/model.py): 224 a side, one mean and spread for all colours.
SIDE: Final = 224
ARTIFACT_MEAN, ARTIFACT_SPREAD = 0.507395516207, 0.255128989415


@dataclass(frozen=True)
class Preparation:
    """How pictures are prepared for the network. The defaults are the artifact's."""

    side: int = SIDE
    mean: tuple[float, ...] = (ARTIFACT_MEAN,) * 3
    spread: tuple[float, ...] = (ARTIFACT_SPREAD,) * 3


def take_over(path: Path, folder: Path, prepared: Preparation) -> int:
    """Write the folder from a checkpoint; returns the number of parameters. Raises ModelError."""
    network = read_published(path)
    weights = network.state_dict()
    classes = len(weights["classifier.1.bias"])
    names = LABELS if classes == len(LABELS) else tuple(str(number) for number in range(classes))
    if not folder.parent.is_dir() and folder.parent.exists():
        raise ModelError(f"{folder.parent}: is no folder")
    with tempfile.TemporaryDirectory() as draft:
        save_file({name: value.contiguous() for name, value in weights.items()}, Path(draft) / WEIGHTS)
        config = {
            "model_type": MODEL_TYPE,
            "image_size": prepared.side,
            MEAN: list(prepared.mean),
            SPREAD: list(prepared.spread),
            "id2label": dict(enumerate(names)),
            "label2id": {label: number for number, label in enumerate(names)},
            TEMPERATURE: 1.0,
            "imported_from": path.name,
            "imported_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        (Path(draft) / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        folder.parent.mkdir(parents=True, exist_ok=True)
        replace_folder(Path(draft), folder)
    return sum(each.numel() for each in network.parameters())
