"""Reads a published discriminator from a .pt file, and nothing that such a file could hide.

The DiffServe artifact publishes the whole module, pickled: a file that names classes of its own program. Here each
named class of a network is replaced by an empty shell before the file is read, `weights_only`, so that no code of the
file or of the named library ever runs; a file that names anything else is refused with that name.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch._weights_only_unpickler import UnpicklingError  # type: ignore[attr-defined]

from models.discriminator.efficientnet_v2 import EfficientNetV2S
from shared.errors import ModelError

# What a pickled network names: torch's layers, torchvision's blocks, and the program's own class around them.
_LAYERS: Final = re.compile(
    r"torch\.nn\.modules\.\w+\.\w+|torchvision\.(models|ops)\.[\w.]+|([\w.]+\.)?EfficientNet\w*|torch\.nn\.functional\.\w+"
)
_READ_WRONG: Final = (OSError, EOFError, ValueError, KeyError, RuntimeError, UnpicklingError, AttributeError, TypeError)
_WEIGHT_GROUPS: Final = ("state_dict", "model_state_dict", "model", "net")


class _Shell:
    """Stands for a layer while a file is read: it keeps what the layer kept, and can do nothing."""

    _parameters: Mapping[str, Tensor | None]
    _buffers: Mapping[str, Tensor | None]
    _modules: Mapping[str, _Shell | None]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint: a state dict, a table that holds one, or a whole module; raises ModelError."""
    return _tensors(_read(path), path)


def efficientnet_of(tensors: Mapping[str, Tensor], path: Path) -> EfficientNetV2S:
    """The network of those weights; raises ModelError, in which `path` says where they were read."""
    weights = _of_network(tensors, path)
    network = EfficientNetV2S(classes=len(weights["classifier.1.bias"]))
    try:
        network.load_state_dict(weights)
    except RuntimeError as wrong:
        reason = " ".join(str(wrong).split())[:300]
        raise ModelError(f"{path}: not the weights of an EfficientNet-V2-S: {reason}") from None
    return network.float().eval()


def _read(path: Path) -> Any:
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file")
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
        if strange := [name for name in named if not _LAYERS.fullmatch(name)]:
            raise ModelError(f"{path}: a pickle that would run {strange[0]}: refused, nothing of it was run")
        with _shells(named):
            return torch.load(path, map_location="cpu", weights_only=True)
    except _READ_WRONG as wrong:
        reason = str(wrong).strip().split("\n")[0][:200]
        raise ModelError(f"{path}: cannot be read as weights only: {reason}") from None


@contextlib.contextmanager
def _shells(named: list[str]) -> Iterator[None]:
    """While it lasts, each of the names means a shell of its own; torch asks this list and imports nothing."""
    shells: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (type(f"_Shell{number}", (_Shell,), {}), name) for number, name in enumerate(named)
    ]
    with torch.serialization.safe_globals(shells):
        yield


def _tensors(found: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(found, _Shell):
        return dict(_walk(found, ""))
    for group in _WEIGHT_GROUPS:
        if isinstance(found, Mapping) and isinstance(found.get(group), Mapping | _Shell):
            return _tensors(found[group], path)
    if not isinstance(found, Mapping):
        raise ModelError(f"{path}: holds {type(found).__name__}, no weights")
    return {str(name): value for name, value in found.items() if isinstance(value, Tensor)}


def _walk(shell: _Shell, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for held in (vars(shell).get("_parameters") or {}, vars(shell).get("_buffers") or {}):
        yield from ((prefix + name, value.detach()) for name, value in held.items() if isinstance(value, Tensor))
    for name, inner in (vars(shell).get("_modules") or {}).items():
        if isinstance(inner, _Shell):
            yield from _walk(inner, f"{prefix}{name}.")


def _of_network(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Without what stands before the names where a program, or training on several GPUs, wrapped the network."""
    last = "classifier.1.bias"
    wrapped = next((name.removesuffix(last) for name in tensors if name.endswith(last)), None)
    if wrapped is None:
        raise ModelError(f"{path}: no {last} in it: not the weights of an EfficientNet-V2-S, nor ImageReward's")
    return {name.removeprefix(wrapped): value for name, value in tensors.items() if name.startswith(wrapped)}
