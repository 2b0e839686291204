"""A scorer's folder: config.json says what it is, model.safetensors holds the weights. Nothing else is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from shared.errors import ModelError

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
TEMPERATURE: Final = "calibration_temperature"  # logits are divided by it: P(real) then means what it says
MEAN, SPREAD = "image_mean", "image_std"
_PICKLES: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def read_config(folder: Path) -> dict[str, Any]:
    """What config.json says; raises ModelError that says what to do where the folder is no scorer's."""
    if not folder.is_dir():
        raise ModelError(
            f"no discriminator in {folder}: put the weights there (for the tiny cascade: python -m "
            "models.train_tiny; a published one: python -m models.discriminator import FILE.pt), or name another "
            "folder in models/catalog.toml"
        )
    if not any(folder.glob("*.safetensors")) and (pickled := _pickled(folder)):
        raise ModelError(
            f"{folder} holds {pickled} and no safetensors: pickles are not loaded; python -m models.discriminator "
            "import FILE.pt rewrites a published discriminator"
        )
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as wrong:
        raise ModelError(f"cannot load the discriminator in {folder}: {path.name}: {wrong}") from None
    if not isinstance(config, dict):
        raise ModelError(f"cannot load the discriminator in {folder}: {path.name} is no table")
    return config


def number(config: dict[str, Any], name: str, default: float, folder: Path, *, signed: bool = False) -> float:
    """A positive number of config.json, or any where it may have a sign; raises ModelError."""
    value = config.get(name, default)
    least = float("-inf") if signed else 0
    if not isinstance(value, int | float) or not least < value < float("inf"):
        raise ModelError(f"{folder}/{CONFIG}: {name} must be a {'' if signed else 'positive '}number, not {value!r}")
    return float(value)


def triple(config: dict[str, Any], name: str, default: tuple[float, ...], folder: Path) -> tuple[float, ...]:
    """Three numbers of config.json, one a colour; raises ModelError."""
    value = config.get(name, default)
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(isinstance(one, int | float) for one in value):
        raise ModelError(f"{folder}/{CONFIG}: {name} must be three numbers, not {value!r}")
    return tuple(float(one) for one in value)


def _pickled(folder: Path) -> str:
    return next((path.name for kind in _PICKLES for path in sorted(folder.glob(kind))), "")
