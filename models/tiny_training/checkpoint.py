"""Checkpoints as safetensors: named groups of tensors and a few words, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

Groups = dict[str, dict[str, Tensor]]
_SEPARATOR = "|"


def save(path: Path, groups: Mapping[str, Mapping[str, Tensor]], words: Mapping[str, str]) -> None:
    """Replaces the file in one move, so that a kill leaves the old checkpoint or the new one, never half of one."""
    flat = {
        f"{group}{_SEPARATOR}{name}": tensor.detach().clone().contiguous()
        for group, tensors in groups.items()
        for name, tensor in tensors.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    save_file(flat, draft, metadata=dict(words))
    os.replace(draft, path)


def load(path: Path) -> tuple[Groups, dict[str, str]]:
    """What `save` wrote: the groups of tensors and the words."""
    groups: Groups = {}
    with safe_open(path, framework="pt") as file:
        words = dict(file.metadata() or {})
        for key in file.keys():  # noqa: SIM118 (a safetensors file is no mapping)
            group, name = key.split(_SEPARATOR, 1)
            groups.setdefault(group, {})[name] = file.get_tensor(key)
    return groups, words
