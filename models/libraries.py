"""Loads weights with diffusers and transformers: no network, no pickle, no progress bars, no harmless warnings.

The only file here that imports them, so that the environment is set before they read it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from shared.model import Model, Part

# Read when huggingface_hub is first imported: a worker must not wait for a hub that it cannot reach.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import diffusers
import torch
import transformers
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file

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
    "that should be kept in float32: []",
    "Potential NSFW content was detected",  # the prompt's outcome says so
)


def pipeline_from(folder: Path, dtype: torch.dtype) -> Any:
    """The diffusers pipeline in a folder that says all about itself; raises one of WEIGHTS_WRONG."""
    return _loaded("", str(folder), dtype)


def pipeline_of(model: Model, source: str, dtype: torch.dtype) -> Any:
    """The pipeline that a row of the catalogue describes, from a folder or the hub's cache.

    Parts that come from elsewhere take their places, and the row's scheduler its. Raises one of WEIGHTS_WRONG.
    """
    whole = {} if Path(source).is_dir() else {"revision": model.revision or None}
    if model.variant:
        whole["variant"] = model.variant
    made = {name: _part(model, source, name, part, dtype, whole) for name, part in model.parts.items()}
    return scheduled(_loaded(model.pipeline, source, dtype, **whole, **dict.fromkeys(model.without), **made), model)


def scheduled(pipeline: Any, model: Model) -> Any:
    """The pipeline with the row's scheduler, or its settings; raises ValueError."""
    if model.scheduler or model.scheduler_settings:
        kind = getattr(diffusers, model.scheduler, None) if model.scheduler else type(pipeline.scheduler)
        if kind is None:
            raise ValueError(f"scheduler: diffusers has no {model.scheduler}")
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **model.scheduler_settings)
    return pipeline


def _loaded(kind: str, source: str, dtype: torch.dtype, **more: Any) -> Any:
    quieten()
    pipeline = pipeline_class(kind).from_pretrained(
        source, local_files_only=True, use_safetensors=True, dtype=dtype, **_UNCHECKED.get(kind, {}), **more
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


# What must be said to a pipeline that would check its pictures itself; the project's own checker is a field of the
# cascade. Others do not know these words.
_UNCHECKED: Final = {
    "": {"safety_checker": None, "requires_safety_checker": False},
    "StableDiffusionPipeline": {"safety_checker": None, "requires_safety_checker": False},
}


def pipeline_class(name: str) -> Any:
    """The pipeline of diffusers of that name, or the one that finds the class out; raises ValueError."""
    found = getattr(diffusers, name or "DiffusionPipeline", None)
    if found is None or not issubclass(found, diffusers.DiffusionPipeline):
        raise ValueError(f"pipeline: diffusers has no {name}")
    return found


def class_of(library: str, name: str) -> Any:
    """A class of diffusers or transformers; raises ValueError."""
    found = getattr({"diffusers": diffusers, "transformers": transformers}.get(library), name, None)
    if found is None:
        raise ValueError(f"{library} has no {name}")
    return found


def _part(model: Model, source: str, name: str, part: Part, dtype: torch.dtype, whole: Mapping[str, Any]) -> Any:
    """A part whose weights are another file's: its architecture from the whole, its weights from the file."""
    kind = _classes_of(source, whole).get(name)
    if kind is None:
        raise ValueError(f"parts: {model.name} has no part {name!r}")
    config = kind.load_config(source, subfolder=name, local_files_only=True, **_revision(whole))
    with torch.device("meta"):
        network = kind.from_config(config)
    weights = load_file(part_file(model, name, part))
    network.load_state_dict(weights, strict=True, assign=True)
    return network.to(dtype)


def part_file(model: Model, name: str, part: Part) -> Path:
    """Where the file of a part lies: fetched beside the catalogue, or in the hub's cache; raises OSError."""
    fetched = model.part_folder(name) / part.file
    if fetched.is_file():
        return fetched
    try:
        return Path(hf_hub_download(part.source, part.file, revision=part.revision or None, local_files_only=True))
    except LocalEntryNotFoundError:
        raise FileNotFoundError(f"its {name}, {part.file} of {part.source}, is neither {fetched} nor cached") from None


def _classes_of(source: str, whole: Mapping[str, Any]) -> dict[str, Any]:
    """The diffusers classes of a pipeline's parts, as its model_index.json names them."""
    index = diffusers.DiffusionPipeline.load_config(source, local_files_only=True, **_revision(whole))
    named = {name: value[1] for name, value in index.items() if isinstance(value, (list, tuple)) and len(value) == 2}
    return {name: getattr(diffusers, kind) for name, kind in named.items() if kind and hasattr(diffusers, kind)}


def _revision(whole: Mapping[str, Any]) -> dict[str, Any]:
    return {"revision": whole["revision"]} if "revision" in whole else {}


def modules_of(pipeline: Any) -> list[torch.nn.Module]:
    """The networks of a pipeline, or of one that another object calls; without scheduler and tokenizers."""
    whole = getattr(pipeline, "pipeline", pipeline)
    return [part for part in whole.components.values() if isinstance(part, torch.nn.Module)]


def classifier_from(folder: Path) -> Any:
    """An EfficientNet in single precision, ready to judge; raises one of WEIGHTS_WRONG."""
    quieten()
    network = transformers.EfficientNetForImageClassification.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
    )
    return network.eval()


def clip_from(folder: Path) -> tuple[Any, Any]:
    """A CLIP model in single precision, ready to compare, and its tokenizer; raises one of WEIGHTS_WRONG."""
    quieten()
    network = transformers.CLIPModel.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
    )
    return network.eval(), transformers.CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def blip_without_weights(vision: Mapping[str, Any], text: Mapping[str, Any]) -> tuple[Any, Any]:
    """BLIP's network for pictures, and that for texts which looks at them, on the meta device: weights are to be
    assigned. Raises one of WEIGHTS_WRONG.
    """
    quieten()
    with torch.device("meta"):
        seeing = transformers.BlipVisionModel(transformers.BlipVisionConfig(**vision))
        reading = transformers.BlipTextModel(transformers.BlipTextConfig(**text), add_pooling_layer=False)
    # It is not among the weights: on the meta device it would have no values for ever.
    reading.embeddings.position_ids = torch.arange(reading.config.max_position_embeddings).expand(1, -1)
    return seeing, reading


def words_from(folder: Path) -> Any:
    """A BERT tokenizer; raises one of WEIGHTS_WRONG."""
    return transformers.BertTokenizer.from_pretrained(folder, local_files_only=True)


def words_of(vocabulary: Mapping[str, int], start: str, further: Sequence[str]) -> Any:
    """A BERT tokenizer of words and their numbers; after them come the sign of a start and further signs."""
    made = transformers.BertTokenizer(vocab=dict(vocabulary))
    made.add_special_tokens({"bos_token": start})
    made.add_special_tokens({"additional_special_tokens": list(further)})
    return made


def checker_from(source: str) -> tuple[Any, Any, set[str]]:
    """A safety checker in single precision from a folder or the hub's cache, its image processor, and the names of
    weights that the source lacks; raises one of WEIGHTS_WRONG.
    """
    quieten()
    network, told = StableDiffusionSafetyChecker.from_pretrained(
        source, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
    )
    processor = transformers.CLIPImageProcessor.from_pretrained(source, local_files_only=True)
    return network.eval(), processor, set(told["missing_keys"])


def quieten() -> None:
    """Keep the libraries from saying what helps nobody."""
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


quieten()  # further parts of the libraries are imported when they are first asked for, and speak then
