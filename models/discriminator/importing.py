"""Takes over a published discriminator: from a .pt file to safetensors and a config.json that says what it is."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors.torch import save_file
from torch import Tensor, nn

from models.discriminator import image_reward
from models.discriminator.architectures import LABELS
from models.discriminator.efficientnet_v2 import MODEL_TYPE
from models.discriminator.folder import CONFIG, MEAN, SPREAD, TEMPERATURE, WEIGHTS
from models.discriminator.image_reward import CENTRE, WIDTH
from models.discriminator.published import efficientnet_of, read_tensors
from models.discriminator.published_reward import is_reward, reward_of, tokenizer_of, vocabulary_for
from models.tiny_training.publish import replace_folder
from shared.errors import ModelError, SettingsError

# How the DiffServe artifact prepares a picture (src/worker/model.py): 224 a side, one mean and spread for all colours.
SIDE: Final = 224
ARTIFACT_MEAN, ARTIFACT_SPREAD = 0.507395516207, 0.255128989415


@dataclass(frozen=True)
class Preparation:
    """How pictures are prepared for the network. The defaults are the artifact's."""

    side: int = SIDE
    mean: tuple[float, ...] = (ARTIFACT_MEAN,) * 3
    spread: tuple[float, ...] = (ARTIFACT_SPREAD,) * 3


def take_over(path: Path, folder: Path, prepared: Preparation, vocabulary: Path | None = None) -> int:
    """Write the folder from a checkpoint; returns the number of parameters. Raises ModelError, SettingsError.

    Which network it is, the names of its tensors say. `vocabulary`: of ImageReward, the words that it reads.
    """
    tensors = read_tensors(path)
    if not folder.parent.is_dir() and folder.parent.exists():
        raise ModelError(f"{folder.parent}: is no folder")
    if is_reward(tensors):
        if prepared != Preparation():
            raise SettingsError(
                f"{path} is ImageReward, which says itself how pictures are prepared: no --side, --mean"
            )
        made = _reward(tensors, path, vocabulary)
    else:
        made = _efficientnet(tensors, path, prepared)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside the folder, as ImageReward is larger than what /tmp may hold.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".import-") as draft:
        inner = Path(draft) / folder.name  # the draft itself is its owner's alone, and a copy would be too
        inner.mkdir()
        made.write(inner, path)
        replace_folder(inner, folder)
    return sum(each.numel() for each in made.network.parameters())


@dataclass(frozen=True)
class _Made:
    """A folder to be: the network, what config.json says of it, and the tokenizer of a network that reads."""

    network: nn.Module
    config: dict[str, Any]
    tokenizer: Any = None

    def write(self, draft: Path, path: Path) -> None:
        weights = {name: value.contiguous() for name, value in self.network.state_dict().items()}
        save_file(weights, draft / WEIGHTS)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(draft)
        with path.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        config = {**self.config, "imported_from": path.name, "imported_sha256": checksum}
        (draft / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def _efficientnet(tensors: Mapping[str, Tensor], path: Path, prepared: Preparation) -> _Made:
    network = efficientnet_of(tensors, path)
    classes = len(network.state_dict()["classifier.1.bias"])
    names = LABELS if classes == len(LABELS) else tuple(str(number) for number in range(classes))
    config = {
        "model_type": MODEL_TYPE,
        "image_size": prepared.side,
        MEAN: list(prepared.mean),
        SPREAD: list(prepared.spread),
        "id2label": dict(enumerate(names)),
        "label2id": {label: number for number, label in enumerate(names)},
        TEMPERATURE: 1.0,
    }
    return _Made(network, config)


def _reward(tensors: Mapping[str, Tensor], path: Path, vocabulary: Path | None) -> _Made:
    network = reward_of(tensors, path)
    words = tokenizer_of(vocabulary_for(path, vocabulary), network.words)
    config = {"model_type": image_reward.MODEL_TYPE, "score_centre": CENTRE, "score_width": WIDTH}
    return _Made(network, config, words)
