"""How much people would like a picture for its prompt, by ImageReward (Xu et al. 2023, arXiv 2304.05977).

BLIP's picture network sees the picture, BLIP's text network reads the prompt and looks at the picture in each layer,
and five linear layers make one number of the first token, [CLS]. `python -m models.discriminator import
ImageReward.pt` writes the folder. The published weights could not be had where this was written: the file itself was
not read. What is below comes from public code:

- MEAN, SPREAD_OF_REWARDS, WORDS, the head's widths and that it has no activation, the picture's side of 224 and its
  normalisation (CLIP's): THUDM/ImageReward, ImageReward/ImageReward.py, as `score` computes it. The first token is that
  of `score`; train/src/ImageReward.py takes the last one for one of its ways of training.
- ViT-L/16, 24 layers, and 16 heads: create_vit of BLIP (train/src/models/blip.py there); its epsilon of 1e-6:
  models/vit.py of salesforce/BLIP. transformers' default is 1e-5.
- BERT-base, 12 layers and 12 heads, a vocabulary of 30,524, epsilon 1e-12: BLIP's configs/med_config.json, read in a
  public copy. transformers' default is 8 heads. Attention goes both ways (`is_decoder=False` in
  train/src/models/med.py), but transformers wants a decoder's configuration for the layers that look at the picture.
- [DEC] and [ENC] after the words of bert-base-uncased: init_tokenizer of train/src/models/blip.py. `score` gives them
  to no prompt: they only make the vocabulary as long as the weights.

A file of random numbers in this layout, as torch saves it, has 1,786,876,153 bytes; another public program says that
the published one has 1,786,880,927.

The reward is standardised, so mostly between -2 and 2. Escalation asks for numbers in [0, 1]: the reward is mapped by
1 / (1 + exp((CENTRE - reward) / WIDTH)), unless config.json has its own score_centre and score_width.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models.discriminator.classifier import AT_ONCE
from models.discriminator.folder import WEIGHTS, read_config
from models.discriminator.scoring import Logistic, Preparing, finite
from models.discriminator.similarity import CLIP_MEAN, CLIP_SPREAD, middle_square
from models.libraries import WEIGHTS_WRONG, blip_without_weights, words_from
from shared.errors import ModelError

MODEL_TYPE: Final = "image-reward"
MEAN: Final = 0.16717362830052426
SPREAD_OF_REWARDS: Final = 1.0333394966054072
WORDS: Final = 35  # tokens of a prompt, [CLS] and [SEP] among them; the rest is cut off
CENTRE: Final = 0.0
WIDTH: Final = 1.0
_HEAD: Final = 64  # channels of an attention head, of ViT-L/16 (1024 / 16) and of BERT-base (768 / 12)
_PLACES: Final = (0, 2, 4, 6, 7)  # of the linear layers in the published head; at the others it has dropout
_SIDES: Final = {"vision": {"layer_norm_eps": 1e-6}, "text": {"layer_norm_eps": 1e-12}}


class RewardNetwork(nn.Module):
    """Pictures (n, 3, side, side), normalised, and the numbers of the prompts' tokens -> rewards (n,)."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """Built as large as the weights are, and given them; raises ModelError where they are another network's."""
        super().__init__()
        try:
            vision, text = _configurations(weights)
            self.vision, self.text = blip_without_weights(vision, text)
            shapes = [weights[f"head.{place}.weight"].shape for place in _PLACES]
        except KeyError as missing:
            raise ModelError(f"there is no {missing.args[0]}: not the weights of ImageReward") from None
        except (*WEIGHTS_WRONG, IndexError, ZeroDivisionError) as wrong:
            raise ModelError(f"not the weights of ImageReward: {str(wrong).splitlines()[0]}") from None
        with torch.device("meta"):
            layers = [(str(place), nn.Linear(*shape[::-1])) for place, shape in zip(_PLACES, shapes, strict=True)]
        self.head = nn.Sequential(OrderedDict(layers))
        if unlike := _unlike(weights, self.state_dict()):
            raise ModelError(f"{unlike}: not the weights of ImageReward")
        self.load_state_dict({name: value.float() for name, value in weights.items()}, assign=True)
        self.eval().requires_grad_(False)

    @property
    def side(self) -> int:
        """Pixels a side of the pictures."""
        return int(self.vision.config.image_size)

    @property
    def words(self) -> int:
        """How many tokens it knows."""
        return int(self.text.config.vocab_size)

    def forward(self, pictures: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        seen = self.vision(pixel_values=pictures).last_hidden_state
        read = self.text(input_ids=tokens, attention_mask=mask, encoder_hidden_states=seen, is_decoder=False)
        rewards: Tensor = self.head(read.last_hidden_state[:, 0]).squeeze(-1)
        return (rewards - MEAN) / SPREAD_OF_REWARDS


def _configurations(weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What transformers is to build, read off the shapes of the weights; raises KeyError, ValueError, IndexError."""
    _, positions, wide = weights["vision.embeddings.position_embedding"].shape
    patch = weights["vision.embeddings.patch_embedding.weight"].shape[-1]
    words, narrow = weights["text.embeddings.word_embeddings.weight"].shape
    if wide % _HEAD or narrow % _HEAD:
        raise ValueError(f"widths of {wide} and {narrow} are no multiples of {_HEAD}")
    vision = {
        "hidden_size": wide,
        "num_attention_heads": wide // _HEAD,
        "num_hidden_layers": _layers(weights, "vision.encoder.layers."),
        "intermediate_size": len(weights["vision.encoder.layers.0.mlp.fc1.bias"]),
        "image_size": math.isqrt(positions - 1) * patch,
        "patch_size": patch,
        "hidden_act": "gelu",
    }
    text = {
        "hidden_size": narrow,
        "encoder_hidden_size": wide,
        "num_attention_heads": narrow // _HEAD,
        "num_hidden_layers": _layers(weights, "text.encoder.layer."),
        "intermediate_size": len(weights["text.encoder.layer.0.intermediate.dense.bias"]),
        "max_position_embeddings": len(weights["text.embeddings.position_embeddings.weight"]),
        "vocab_size": words,
        "hidden_act": "gelu",
        "is_decoder": True,  # only then are there layers that look at the picture
    }
    return vision | _SIDES["vision"], text | _SIDES["text"]


def _layers(weights: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in weights if name.startswith(prefix)})


def _unlike(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """How the tensors given differ from those wanted, in words; "" where they do not."""
    if missing := sorted(wanted.keys() - given.keys()):
        return f"there is no {missing[0]}" + (f" (nor {len(missing) - 1} others)" if len(missing) > 1 else "")
    if strange := sorted(given.keys() - wanted.keys()):
        return f"there is a {strange[0]}" + (f" (and {len(strange) - 1} others)" if len(strange) > 1 else "")
    other = next((name for name, value in wanted.items() if given[name].shape != value.shape), "")
    return f"{other} is {tuple(given[other].shape)}, not {tuple(wanted[other].shape)}" if other else ""


class ImageReward:
    """ImageReward from a folder with model.safetensors, config.json and the tokenizer's files."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Load from a folder; raises ModelError."""
        config = read_config(folder)
        try:
            network = RewardNetwork(load_file(folder / WEIGHTS))
            self._tokenizer = words_from(folder)
        except (*WEIGHTS_WRONG, ModelError) as wrong:
            raise ModelError(f"cannot load ImageReward in {folder}: {wrong}") from wrong
        if len(self._tokenizer) != network.words:
            counts = f"{len(self._tokenizer):,} tokens, the weights {network.words:,}"
            raise ModelError(f"cannot load ImageReward in {folder}: its tokenizer has {counts}")
        self._network = network.to(device)
        self._device = device
        self._preparing = Preparing(config, folder, device, CLIP_MEAN, CLIP_SPREAD)
        self._mapping = Logistic(config, folder, CENTRE, WIDTH, signed=True)

    def score(self, pictures: Tensor, prompts: Sequence[str]) -> list[float]:
        """The rewards, mapped to [0, 1]; pictures (n, 3, height, width) in [0, 1]. Raises ModelError."""
        return finite(self._mapping(self.rewards(pictures, prompts)), "ImageReward's")

    @torch.inference_mode()
    def rewards(self, pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        """The standardised reward of each picture for its own prompt, (n,), without bounds."""
        made = [
            self._some(pictures[first : first + AT_ONCE], prompts[first : first + AT_ONCE])
            for first in range(0, len(pictures), AT_ONCE)
        ]
        return torch.cat(made) if made else torch.zeros(0)

    def _some(self, pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        words = self._tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=WORDS, return_tensors="pt"
        ).to(self._device)
        prepared = self._preparing(middle_square(pictures.to(self._device), self._network.side))
        rewards: Tensor = self._network(prepared, words["input_ids"], words["attention_mask"])
        return rewards
