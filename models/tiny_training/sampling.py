"""Pictures from the cascade's folders, through the public loaders, in two processes of one thread each."""

from __future__ import annotations

import multiprocessing
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.libraries import pipeline_from

Pictures = NDArray[np.uint8]
Bools = NDArray[np.bool_]
_PROCESSES = 2
_CHUNK = 50


@dataclass(frozen=True)
class Drawing:
    """How a model draws: DDIM steps and classifier-free guidance (0 is none, and half the work)."""

    steps: int
    guidance: float


LIGHT = Drawing(steps=2, guidance=0.0)
HEAVY = Drawing(steps=20, guidance=2.0)


def draw_all(folder: Path, drawing: Drawing, captions: Sequence[str], seed: int, keep: Path | None = None) -> Pictures:
    """uint8 (captions, 64, 64, 3); caption i is drawn from seed + i. Kept in the file `keep`, if given."""
    if keep is not None and keep.exists():
        kept: Pictures = np.load(keep, allow_pickle=False)
        if len(kept) == len(captions):
            return kept
    starts = range(0, len(captions), _CHUNK)
    chunks = [(folder, drawing, captions[i : i + _CHUNK], seed + i) for i in starts]
    with ProcessPoolExecutor(_PROCESSES, multiprocessing.get_context("spawn")) as pool:
        drawn = np.concatenate(list(pool.map(_draw_chunk, chunks)))
    if keep is not None:
        _keep(keep, drawn)
    return drawn


def draw(pipeline: Any, drawing: Drawing, captions: Sequence[str], seeds: Sequence[int]) -> Pictures:
    """One batch, uint8 (captions, 64, 64, 3); a seed belongs to its caption, wherever in the batch that stands."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    images = pipeline(
        list(captions), num_inference_steps=drawing.steps, guidance_scale=drawing.guidance, generator=generators,
        output_type="np",
    ).images  # fmt: skip
    return np.asarray(np.rint(images * 255), np.uint8)


def load_pipeline(folder: Path) -> Any:
    """The StableDiffusionPipeline in a folder, in single precision."""
    return pipeline_from(folder, torch.float32)


def fingerprint(folder: Path) -> str:
    """A short word that changes with any weight under the folder."""
    mark = 0
    for path in sorted(folder.rglob("*.safetensors")):
        mark = zlib.crc32(path.read_bytes(), mark)
    return f"{mark:08x}"


def as_tensor(pictures: Pictures) -> Tensor:
    """uint8 (batch, height, width, 3) -> float32 (batch, 3, height, width) in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0).contiguous()


def as_pictures(images: Tensor) -> Pictures:
    """The way back, clipped."""
    scaled = images.detach().clamp(-1, 1).add(1).mul(127.5).round()
    return np.asarray(scaled.permute(0, 2, 3, 1).to(torch.uint8).numpy())


@cache
def _pipeline(folder: Path) -> Any:
    return load_pipeline(folder)


def _draw_chunk(chunk: tuple[Path, Drawing, Sequence[str], int]) -> Pictures:
    torch.set_num_threads(1)
    folder, drawing, captions, seed = chunk
    return draw(_pipeline(folder), drawing, captions, range(seed, seed + len(captions)))


def _keep(path: Path, drawn: Pictures) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft.npy")
    np.save(draft, drawn, allow_pickle=False)
    draft.replace(path)
