"""The safety checker: which of the drawn pictures nobody shall see.

It compares what CLIP sees in a picture with concepts that come with its weights, each with a limit of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.libraries import WEIGHTS_WRONG, checker_from
from shared.errors import ModelError


class SafetyChecker:
    """A StableDiffusionSafetyChecker and the image processor that it was trained with."""

    def __init__(self, source: str, tables: Path, device: torch.device) -> None:
        """Load from a folder under `tables`, or from the hub's cache; raises ModelError."""
        folder = tables / source
        try:
            network, processor, missing = checker_from(str(folder) if folder.is_dir() else source)
        except WEIGHTS_WRONG as wrong:
            reason = str(wrong).strip().split("\n")[0]
            raise ModelError(
                f"cannot load the safety checker {source!r}: {reason}; there must be a folder {folder} with its "
                f"config.json, model.safetensors and preprocessor_config.json, or `hf download {source}` once"
            ) from wrong
        if missing:  # other weights of the same shape would load, and a checker made up of chance flags anything
            raise ModelError(f"{source!r} is no safety checker: its weights lack {', '.join(sorted(missing)[:3])}")
        self._network = network.to(device)
        self._processor = processor
        self._device = device

    @torch.inference_mode()
    def flags(self, pictures: Tensor) -> list[bool]:
        """Which pictures are flagged.

        `pictures`: (n, 3, height, width) in [0, 1]. Raises ModelError where what CLIP sees is not finite.
        """
        levels = (pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        seen: Any = self._processor(list(levels), return_tensors="pt").pixel_values
        if not bool(torch.isfinite(seen).all()):
            raise ModelError("the safety checker got a picture that is not finite")
        # It blackens what it flags, in the array that it is given: a small one, for nobody looks at it.
        spare = np.zeros((len(levels), 1, 1, 3))
        _, flagged = self._network(clip_input=seen.to(self._device), images=spare)
        return [bool(flag) for flag in flagged]
