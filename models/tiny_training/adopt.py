"""Starts a run from published weights: the first courses of denoiser and decoder are taken as run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from models.tiny_training import checkpoint, decoder, denoiser
from models.tiny_training.loop import snapshot
from shared.errors import SettingsError

ADOPTED = ("text", "decoder", "denoiser")


def adopt(work: Path, folder: Path) -> int:
    """Writes what the later stages read: the averages of both models and of the decoder. What is there, stays.

    Returns the samples that the heavy model has seen; raises SettingsError.
    """
    try:
        figures: dict[str, Any] = json.loads((folder / "figures.json").read_text())
        steps = {name: int(figures[name]["samples"]) // denoiser.SAMPLES_PER_STEP for name in ("light", "heavy")}
        if figures["heavy"].get("course", denoiser.NAME) != denoiser.NAME:
            raise SettingsError(f"{folder}: its heavy model has been through the harder course already")
        _keep(work / f"{denoiser.NAME}.safetensors", _model(folder / "heavy"), steps["heavy"])
        _keep(snapshot(work, denoiser.NAME, steps["light"]), _model(folder / "light"), steps["light"])
        _keep(work / f"{decoder.COURSE.name}.safetensors", _part(folder / "heavy", "vae"), decoder.COURSE.steps)
        return steps["heavy"] * denoiser.SAMPLES_PER_STEP
    except (OSError, KeyError, ValueError) as wrong:
        raise SettingsError(f"{folder} holds no tiny cascade to go on from: {wrong}") from wrong


def _model(folder: Path) -> dict[str, Tensor]:
    return _part(folder, "unet") | _part(folder, "text_encoder", "text")


def _part(folder: Path, name: str, called: str = "") -> dict[str, Tensor]:
    (path,) = (folder / name).glob("*.safetensors")
    return {f"{called or name}.{key}": value.float() for key, value in load_file(path).items()}


def _keep(path: Path, average: dict[str, Tensor], step: int) -> None:
    if not path.exists():
        checkpoint.save(path, {"average": average}, {"step": str(step), "course": path.stem})
