"""Loads weights with diffusers and transformers: no network, no pickle, no progress bars, no harmless warnings.

The only file here that imports them, so that the environment is set before they read it.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Final

# Read when huggingface_hub is first imported: a worker must not wait for a hub that it cannot reach.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import diffusers
import torch
import transformers
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors import SafetensorError

# What the loaders raise over a folder that is no model: missing or cut files, wrong JSON, wrong shapes.
WEIGHTS_WRONG: Final = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)

_HARMLESS: Final = (
    "requires torchvision",  # the image processors are not used: tensors go in directly
    "`accelerate` was not found",  # pays off for models larger than memory
    "Expected types for vae",  # AutoencoderTiny works in its place
    "were passed to AutoencoderTiny",  # a field that its own save_pretrained writes
    "disabled the safety checker",  # told so on purpose
    "'safety_checker': None",  # pipelines that never had one
    "truncated because CLIP can only handle",  # true of every long prompt, and there are thousands
    "Token indices sequence length is longer",
    "Potential NSFW content was detected",  # the prompt's outcome says so
)


def pipeline_from(source: str, dtype: torch.dtype) -> Any:
    """A diffusers pipeline from a folder or the hub's cache; raises one of WEIGHTS_WRONG."""
    _quieten()
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        source,
        local_files_only=True,
        use_safetensors=True,
        safety_checker=None,
        requires_safety_checker=False,
        dtype=dtype,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def classifier_from(folder: Path) -> Any:
    """An EfficientNet in single precision, ready to judge; raises one of WEIGHTS_WRONG."""
    _quieten()
    network = transformers.EfficientNetForImageClassification.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
    )
    return network.eval()


def checker_from(source: str) -> tuple[Any, Any, set[str]]:
    """A safety checker in single precision from a folder or the hub's cache, its image processor, and the names of
    weights that the source lacks; raises one of WEIGHTS_WRONG.
    """
    _quieten()
    network, told = StableDiffusionSafetyChecker.from_pretrained(
        source, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
    )
    processor = transformers.CLIPImageProcessor.from_pretrained(source, local_files_only=True)
    return network.eval(), processor, set(told["missing_keys"])


def _quieten() -> None:
    # Other warnings still appear.
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    for library in ("diffusers", "transformers"):
        for handler in logging.getLogger(library).handlers:
            if _matters not in handler.filters:
                handler.addFilter(_matters)


def _matters(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    return not any(known in text for known in _HARMLESS)
