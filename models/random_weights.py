"""Builds a model from its architecture alone, its weights drawn from a seed: for profiles and tests without weights.

The configuration of each model of the catalogue stands under architectures/, as its repository has it; that of a model
of one's own beside its catalogue, or in the folder that its row names. It takes the time and the memory of the model,
and draws noise. No vocabulary is committed: the tokenizer made here has the right number of tokens, of which it uses
those of single characters.
"""

from __future__ import annotations

import atexit
import inspect
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from torch.nn import functional

from models.libraries import class_of, pipeline_class, quieten, scheduled
from shared.errors import ModelError
from shared.model import TABLES, Model

ARCHITECTURES: Final = "architectures"
DISCRIMINATOR: Final = "discriminator"
SEED: Final = 0
_START, _END, _STOP = "<|startoftext|>", "<|endoftext|>", "</w>"


def random_pipeline(model: Model, device: torch.device, dtype: torch.dtype, seed: int = SEED) -> Any:
    """A pipeline of the row's class with the row's scheduler and weights of chance; raises ModelError."""
    quieten()
    folder = architecture_of(model)
    index = _read(folder / "model_index.json")
    made: dict[str, Any] = {}
    with _drawn(seed, device, dtype):
        for name, value in index.items():
            if not isinstance(value, list):
                made[name] = value
            elif all(value) and name not in model.without:
                made[name] = _part(folder, name, value[1], value[0])
    try:
        kind = pipeline_class(model.pipeline or str(index["_class_name"]))
        wanted = inspect.signature(kind.__init__).parameters
        lacking = {name: None for name, each in wanted.items() if name != "self" and each.default is each.empty}
        pipeline = kind(**lacking | {name: part for name, part in made.items() if name in wanted})
        pipeline.set_progress_bar_config(disable=True)
        # Buffers are made in single precision whatever the default is.
        return scheduled(pipeline, model).to(device, dtype)
    except (ValueError, TypeError, KeyError) as wrong:
        raise ModelError(f"{folder} is no architecture of {model.name}: {wrong}") from wrong


def architecture_of(model: Model) -> Path:
    """The folder with the model's configuration; raises ModelError."""
    beside = [home / ARCHITECTURES / model.name for home in dict.fromkeys((model.home, TABLES))]
    for folder in (*beside, *model.folders):
        if (folder / "model_index.json").is_file():
            return folder
    raise ModelError(
        f"no architecture of {model.name}: put model_index.json and the config.json of each part into {beside[0]}"
    )


def network_of(folder: Path, kind: Any) -> nn.Module:
    """A network as the config.json in the folder describes it, initialised as its library does it."""
    config = _read(folder / "config.json")
    if hasattr(kind, "from_config"):  # diffusers
        made: nn.Module = kind.from_config(config)
    else:
        made = kind(kind.config_class(**config))
    return made.eval()


def _part(folder: Path, name: str, kind: str, library: str) -> Any:
    if name.startswith("tokenizer"):
        encoder = _read(folder / name.replace("tokenizer", "text_encoder") / "config.json")
        return stand_in_tokenizer(class_of(library, kind), int(encoder["vocab_size"]), encoder)
    if name == "scheduler":
        return class_of(library, kind).from_config(_read(folder / name / "scheduler_config.json"))
    return network_of(folder / name, class_of(library, kind))


def stand_in_tokenizer(kind: Any, size: int, encoder: Mapping[str, Any]) -> Any:
    """A CLIP tokenizer of `size` tokens, of which the bytes are used, each also as a word's last, start and end.

    A prompt is longer in it than in the model's own, which changes no time: all are cut and padded to one length.
    """
    bytes_ = sorted(ByteLevel.alphabet())
    pieces = [*bytes_, *(each + _STOP for each in bytes_)]
    places = [place for place in range(size) if place not in (size - 2, size - 1)]
    vocabulary = dict(zip(pieces, places, strict=False))
    vocabulary |= {f"<|unused-{place}|>": place for place in places[len(pieces) :]}
    # Encoders find the end as the largest token, where it has no number of its own.
    return kind(
        vocab=vocabulary | {_START: size - 2, _END: size - 1},
        merges=[],
        unk_token=_END,
        bos_token=_START,
        eos_token=_END,
        pad_token=_END,
        model_max_length=int(encoder["max_position_embeddings"]),
    )


@cache
def random_discriminator() -> Path:
    """A folder with an EfficientNet-B0 whose weights are drawn by chance: it goes when this process ends.

    A folder and not a network, so that it is opened as any other discriminator.
    """
    quieten()
    kept = tempfile.TemporaryDirectory(prefix="cascade-discriminator-")
    atexit.register(kept.cleanup)
    kind = class_of("transformers", "EfficientNetForImageClassification")
    with _drawn(SEED, torch.device("cpu"), torch.float32):
        network: Any = network_of(TABLES / ARCHITECTURES / DISCRIMINATOR, kind)
        _let_through(network, int(network.config.image_size))
    network.save_pretrained(kept.name)
    return Path(kept.name)


def _let_through(network: Any, side: int) -> None:
    """As transformers initialises an EfficientNet, nothing of a picture reaches its score: all would have the same.

    Batch norms learn what comes at them from one batch of coloured clouds, from wide ones to single pixels.
    """
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
            part.momentum = 1.0
        elif isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_in")
    grains = [torch.rand(2, 3, grain, grain) * 2 - 1 for grain in (1, 8, 32, side)]
    clouds = [functional.interpolate(each, (side, side), mode="bilinear") for each in grains]
    with torch.inference_mode():
        network.train()(torch.cat(clouds))
    network.eval()


@contextmanager
def _drawn(seed: int, device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """What is made within has its weights from the seed, on the device and in the number type at once: half of
    eight billion numbers fit where single ones do not. Others' draws are left alone.
    """
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as wrong:
        raise ModelError(f"{path}: {wrong}") from wrong
