"""Sizes of pictures, written `<width>x<height>` in pixels: in the catalogue, and as a prompt's parameter `size`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from shared.messages import Job

SIZE: Final = "size"  # the parameter of a prompt
AUTO: Final = "auto"  # each model's own
_SIZE: Final = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")


def measures(size: str) -> tuple[int, int]:
    """Width and height in pixels; raises ValueError."""
    found = _SIZE.fullmatch(size)
    if found is None:
        raise ValueError(f"a size is <width>x<height> in pixels, such as 512x512, not {size!r}"[:120])
    return int(found[1]), int(found[2])


def allowed_sizes(given: Iterable[str], own: int) -> tuple[str, ...]:
    """What a model may be asked for: its own square alone where nothing is given; raises ValueError, TypeError."""
    sizes = tuple(given) or (f"{own}x{own}",)
    for size in sizes:
        measures(size)
    if f"{own}x{own}" not in sizes:
        raise ValueError(f"sizes: {own}x{own}, the model's own, is missing")
    return sizes


def asked_size(job: Job) -> str | None:
    """The size that a prompt asks for; None where it leaves that to the model."""
    size = job.parameters.get(SIZE)
    return None if size in (None, AUTO) else str(size)
