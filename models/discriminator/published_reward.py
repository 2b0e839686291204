"""ImageReward as it was published: the names of its tensors onto ours, and the words that it reads.

The file has the names of BLIP's own program. The text network's are those of transformers; the picture network's are
told onto them as convert_blip_original_pytorch_to_hf.py of transformers does it. The words are not in the file, but
those of bert-base-uncased, in its vocab.txt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from models.discriminator.image_reward import RewardNetwork
from models.holdings import cached
from models.libraries import WEIGHTS_WRONG, words_of
from shared.errors import ModelError, SettingsError

VOCABULARY: Final = "vocab.txt"
START: Final = "[DEC]"
FURTHER: Final = ("[ENC]",)
_HUB_NAMES: Final = ("google-bert/bert-base-uncased", "bert-base-uncased")
_MARK: Final = "blip.visual_encoder.cls_token"
_BLOCK: Final = r"blip\.visual_encoder\.blocks\.(\d+)\."
_OURS: Final = tuple(
    (re.compile(published), ours)
    for published, ours in (
        (r"blip\.visual_encoder\.cls_token", "vision.embeddings.class_embedding"),
        (r"blip\.visual_encoder\.pos_embed", "vision.embeddings.position_embedding"),
        (r"blip\.visual_encoder\.patch_embed\.proj\.(\w+)", r"vision.embeddings.patch_embedding.\1"),
        (_BLOCK + r"norm([12])\.(\w+)", r"vision.encoder.layers.\1.layer_norm\2.\3"),
        (_BLOCK + r"attn\.qkv\.(\w+)", r"vision.encoder.layers.\1.self_attn.qkv.\2"),
        (_BLOCK + r"attn\.proj\.(\w+)", r"vision.encoder.layers.\1.self_attn.projection.\2"),
        (_BLOCK + r"mlp\.(fc[12])\.(\w+)", r"vision.encoder.layers.\1.mlp.\2.\3"),
        (r"blip\.visual_encoder\.norm\.(\w+)", r"vision.post_layernorm.\1"),
        (r"blip\.text_encoder\.(.+)", r"text.\1"),
        (r"mlp\.layers\.(\d+)\.(\w+)", r"head.\1.\2"),
    )
)
# Of BLIP's other tasks, and a count from 0 that transformers makes anew.
_UNUSED: Final = re.compile(r"blip\.(vision|text)_proj\.\w+|blip\.text_encoder\.embeddings\.position_ids")


def is_reward(names: Iterable[str]) -> bool:
    """Whether tensors of these names are ImageReward's, or a part of them."""
    return any(name.endswith(_MARK.removeprefix("blip.")) for name in names)


def reward_of(tensors: Mapping[str, Tensor], path: Path) -> RewardNetwork:
    """The network of those weights; raises ModelError, in which `path` says where they were read."""
    try:
        return RewardNetwork(dict(_renamed(tensors)))
    except ModelError as wrong:
        raise ModelError(f"{path}: {wrong}") from None


def _renamed(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Under our names; one that is not known keeps its own, and is named when it finds no place."""
    wrapped = next((name.removesuffix(_MARK) for name in tensors if name.endswith(_MARK)), "")
    for published, value in tensors.items():
        name = published.removeprefix(wrapped)
        if not _UNUSED.fullmatch(name):
            known = (found.expand(ours) for each, ours in _OURS if (found := each.fullmatch(name)))
            yield next(known, name), value


def vocabulary_for(path: Path, given: Path | None) -> Path:
    """The file of words: the one named, else that beside the checkpoint or in the hub's cache; raises SettingsError."""
    kept = (cached(name, VOCABULARY, "") for name in _HUB_NAMES)
    places = [given] if given else [path.with_name(VOCABULARY), *filter(None, kept)]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise SettingsError(
            f"{places[0]}: there is no such file; ImageReward reads the words of bert-base-uncased: `hf download "
            f"{_HUB_NAMES[0]} {VOCABULARY}`, or name that file with --vocabulary"
        )
    return found


def tokenizer_of(vocabulary: Path, size: int) -> Any:
    """The tokenizer for a network that knows `size` tokens; raises ModelError where the words are others."""
    try:
        words = vocabulary.read_text(encoding="utf-8").split("\n")
        places = {word: place for place, word in enumerate(words) if word}
        made = words_of(places, START, FURTHER)
    except WEIGHTS_WRONG as wrong:
        raise ModelError(f"{vocabulary}: no list of words: {wrong}") from None
    if made.convert_tokens_to_ids([START, *FURTHER]) != [size - 2, size - 1] or len(made) != size:
        wanted = f"{size - 1 - len(FURTHER):,}"
        raise ModelError(f"{vocabulary}: {len(places):,} words, not the {wanted} that ImageReward's weights are for")
    return made
