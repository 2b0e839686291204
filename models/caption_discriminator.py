"""A discriminator that sees the caption: P(the picture shows what its prompt asked for).

A small convolutional network reads the picture and the cascade's text encoder the prompt, both into one space: what
stands in each of nine cells, and the ground. How far the readings agree, and how the picture looks by itself, gives
the score. `models/tiny_training/pairs.py` says on what it was trained.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from models.discriminator.scoring import finite
from models.libraries import WEIGHTS_WRONG
from shared.errors import ModelError

MODEL_TYPE: Final = "caption"
CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
_CHANNELS: Final = (3, 24, 48, 96, 128)
_WIDTH: Final = 128
_LEAST: Final = 1e-4
CELLS: Final = 9

# Logits of the ground (batch, grounds), and of each attribute in each of nine cells (batch, 9, values).
Reading = tuple[Tensor, dict[str, Tensor]]


class CaptionNetwork(nn.Module):
    """Pictures (batch, 3, 64, 64) in [-1, 1] and token ids (batch, tokens) -> logit of P(right), (batch,)."""

    def __init__(self, text: nn.Module, text_width: int, grounds: int, attributes: Mapping[str, int]) -> None:
        super().__init__()
        self.text = text
        self.picture = nn.Sequential(
            *(_stage(before, after) for before, after in pairwise(_CHANNELS)),
            nn.Flatten(), nn.Linear(_CHANNELS[-1] * 16, _WIDTH), nn.SiLU(),
        )  # fmt: skip
        self.seen = LayoutReader(_WIDTH, grounds, attributes)
        self.asked = LayoutReader(text_width, grounds, attributes)
        self.weigh = nn.Linear(1 + len(attributes), 1)
        self.look = nn.Linear(_WIDTH, 1)
        nn.init.constant_(self.weigh.weight, 0.5)
        nn.init.constant_(self.weigh.bias, 2.0)

    def forward(self, pictures: Tensor, tokens: Tensor) -> Tensor:
        return self.compared(pictures, tokens)[0]

    def compared(self, pictures: Tensor, tokens: Tensor) -> tuple[Tensor, Reading, Reading]:
        """The logit, what is seen in the picture and what is asked for."""
        features = self.picture(pictures)
        with torch.no_grad():  # the encoder has learnt to read, and there are too few pictures to teach it more
            read = self.text(tokens).pooler_output
        seen, asked = self.seen(features), self.asked(read)
        agreed = [_agreement(seen[0], asked[0])]
        agreed += [_agreement(seen[1][name], asked[1][name]).sum(-1) for name in seen[1]]
        logit: Tensor = (self.weigh(torch.stack(agreed, dim=-1)) + self.look(features)).squeeze(-1)
        return logit, seen, asked


class LayoutReader(nn.Module):
    """A layout's logits from features (batch, width)."""

    def __init__(self, width: int, grounds: int, attributes: Mapping[str, int]) -> None:
        super().__init__()
        self.ground = nn.Linear(width, grounds)
        self.cells = nn.ModuleDict({name: nn.Linear(width, CELLS * values) for name, values in attributes.items()})

    def forward(self, features: Tensor) -> Reading:
        return self.ground(features), {
            name: head(features).unflatten(1, (CELLS, -1)) for name, head in self.cells.items()
        }


def _agreement(seen: Tensor, asked: Tensor) -> Tensor:
    """Log of the chance that two readings mean the same value."""
    return torch.log((seen.softmax(-1) * asked.softmax(-1)).sum(-1) + _LEAST)


def tokeniser(words: Mapping[str, int], tokens: int, start: int, end: int) -> Callable[[Sequence[str]], Tensor]:
    """Prompts -> token ids int64 (batch, tokens). Words that are not known are dropped, and so is what is too long."""

    def tokenise(prompts: Sequence[str]) -> Tensor:
        known = [[words[word] for word in re.findall(r"\w+", prompt.lower()) if word in words] for prompt in prompts]
        rows = [[start, *ids[: tokens - 2]] for ids in known]
        return torch.tensor([row + [end] * (tokens - len(row)) for row in rows])

    return tokenise


class CaptionDiscriminator:
    """The discriminator in a folder: `config.json` with its words and calibration, `model.safetensors`."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Load from a folder; raises ModelError."""
        if not folder.is_dir():
            raise ModelError(
                f"no discriminator in {folder}: put the weights there (for the tiny cascade: python -m "
                "models.train_tiny), or name another folder in models/catalog.toml"
            )
        try:
            self._read(json.loads((folder / CONFIG).read_text()), load_file(folder / WEIGHTS))
        except WEIGHTS_WRONG as wrong:
            raise ModelError(f"cannot load the discriminator in {folder}: {wrong}") from wrong
        self._device = device
        self._network.to(device).eval()

    def _read(self, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        if config.get("model_type") != MODEL_TYPE:
            raise ValueError(f"{CONFIG}: model_type is not {MODEL_TYPE!r}")
        self._side, tokens = int(config["image_size"]), config["tokens"]
        self._tokenise = tokeniser(config["words"], tokens["most"], tokens["start"], tokens["end"])
        self._scale, self._shift = (float(config["calibration"][name]) for name in ("scale", "shift"))
        self._network = network_for(config["text"], config["grounds"], config["attributes"])
        self._network.load_state_dict({name: value.float() for name, value in weights.items()})

    @torch.inference_mode()
    def score(self, pictures: Tensor, prompts: Sequence[str]) -> list[float]:
        """P(right) of each picture, higher is better, also for a prompt that describes no scene.

        `pictures`: (n, 3, height, width) in [0, 1], shrunk to the side that the network was trained on; `prompts`:
        what each was to show. Raises ModelError where a score is not finite.
        """
        pictures = pictures.float()
        if pictures.shape[-2:] != (self._side, self._side):
            size = (self._side, self._side)
            pictures = functional.interpolate(pictures, size, mode="bilinear", antialias=True)
        logits = self._network(pictures * 2 - 1, self._tokenise(prompts).to(self._device))
        scores: list[float] = torch.sigmoid(self._scale * logits + self._shift).tolist()
        return finite(scores, "the discriminator's")


def open_scorer(folder: Path, device: torch.device) -> Callable[[Tensor, Sequence[str]], list[float]]:
    """The scorer in a folder; raises ModelError."""
    return CaptionDiscriminator(folder, device).score


def network_for(text: Mapping[str, Any], grounds: int, attributes: Mapping[str, int]) -> CaptionNetwork:
    """The network beside a text encoder of this configuration, its weights by chance.

    `attributes`: how many values each has, nothing among them.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    encoder = CLIPTextModel(CLIPTextConfig(**text))
    return CaptionNetwork(encoder, int(text["hidden_size"]), int(grounds), attributes)


def _stage(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU())
