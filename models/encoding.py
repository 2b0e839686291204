"""From pixels to a file that says where it comes from, off the device's path.

pictures on the device ──one copy──> pinned memory ──a thread for each picture──> WebP or PNG
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from shared.formats import PictureFormat, asked_format
from shared.messages import Job

# A small picture stays exact for 2 kB; at 512 x 512 lossless costs some 400 kB, which would fill Redis.
LOSSLESS_SIDE: Final = 128
QUALITY: Final = 92
EFFORT: Final = 1  # the default of 4 takes 3 ms for 64 x 64, a tenth of a light drawing, to save 5 %
THREADS: Final = 8  # a batch of 32 of 512 x 512 takes a second in one thread, longer than the lightest models draw
_IMAGE_DESCRIPTION: Final = 0x010E  # the EXIF tag that viewers show as the description

Encoded = Callable[[], bytes]  # waits until a picture is encoded


def encode(pixels: NDArray[np.uint8], job: Job, model: str) -> bytes:
    """A file of `pixels` (height, width, 3): WebP, lossless up to 128 pixels a side, or PNG where the prompt asks.

    Its EXIF description is JSON with `prompt_id`, `prompt`, `seed` and `model`.
    """
    exif = Image.Exif()
    exif[_IMAGE_DESCRIPTION] = json.dumps({"prompt_id": job.id, "prompt": job.prompt, "seed": job.seed, "model": model})
    buffer = io.BytesIO()
    _SAVERS[asked_format(job) or "webp"](Image.fromarray(pixels), buffer, exif.tobytes())
    return buffer.getvalue()


def _webp(picture: Image.Image, buffer: io.BytesIO, exif: bytes) -> None:
    lossless = max(picture.size) <= LOSSLESS_SIDE
    picture.save(buffer, "WEBP", lossless=lossless, quality=QUALITY, method=EFFORT, exif=exif)


def _png(picture: Image.Image, buffer: io.BytesIO, exif: bytes) -> None:
    picture.save(buffer, "PNG", compress_level=EFFORT, exif=exif)


_SAVERS: Final[dict[PictureFormat, Callable[[Image.Image, io.BytesIO, bytes], None]]] = {"webp": _webp, "png": _png}


class Encoder:
    """Encodes batches: in threads of its own, or, without any, in the caller's when it asks for a picture."""

    def __init__(self, model: str, threads: int = 0) -> None:
        self._model = model
        self._pool = ThreadPoolExecutor(threads, "encoder") if threads > 0 else None

    @property
    def threaded(self) -> bool:
        """Whether pictures are encoded while the caller goes on."""
        return self._pool is not None

    def begin(self, pictures: Tensor, jobs: Sequence[Job]) -> list[Encoded]:
        """Encodings under way, one per job, while the caller goes on.

        `pictures`: (n, 3, height, width) in [0, 1], rounded here to 256 levels.
        """
        levels, copied = _to_host((pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous())

        def encoded(place: int) -> bytes:
            copied()
            return encode(levels[place].numpy(), jobs[place], self._model)

        places = range(len(jobs))
        if self._pool is None:
            return [lambda place=place: encoded(place) for place in places]  # type: ignore[misc]
        return [self._pool.submit(encoded, place).result for place in places]


def encoding_threads() -> int:
    """How many threads pay off here: none of their own on a single core."""
    cores = len(os.sched_getaffinity(0))
    return min(THREADS, cores) if cores > 1 else 0


def _to_host(pictures: Tensor) -> tuple[Tensor, Callable[[], None]]:
    """The pictures in the host's memory, and what waits until they have arrived there."""
    if pictures.device.type != "cuda":
        return pictures, lambda: None
    pinned = torch.empty(pictures.shape, dtype=pictures.dtype, pin_memory=True)
    pinned.copy_(pictures, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()
    return pinned, arrived.synchronize
