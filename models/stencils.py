"""The five shapes of the scenes as stencils: how much of each pixel a shape of a given radius covers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

MARGIN = 16
_FINE = 8


@cache
def stencil(shape: str, radius: int) -> NDArray[np.float32]:
    """How much of each pixel the shape covers, float32 of shape (32, 32, 1), its middle at (16, 16)."""
    steps = (np.arange(2 * MARGIN * _FINE) + 0.5) / _FINE - MARGIN
    y, x = np.meshgrid(steps / radius, steps / radius, indexing="ij")
    inside = _INSIDE[shape](x, y).reshape(2 * MARGIN, _FINE, 2 * MARGIN, _FINE)
    return np.asarray(inside.mean(axis=(1, 3))[..., None], np.float32)


_Plane = NDArray[np.float64]
_INSIDE: dict[str, Callable[[_Plane, _Plane], NDArray[np.bool_]]] = {
    "circle": lambda x, y: x**2 + y**2 <= 1,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) <= 0.86,
    "triangle": lambda x, y: (y <= 0.85) & (abs(x) <= (y + 1) / 1.85),
    "ring": lambda x, y: (x**2 + y**2 <= 1) & (x**2 + y**2 >= 0.25),
    "cross": lambda x, y: (np.maximum(abs(x), abs(y)) <= 1) & (np.minimum(abs(x), abs(y)) <= 0.33),
}
