"""What was measured of models and cascades: seconds per batch, and quality against the heavy share.

Published and measured figures look the same; the `source` column of their tables tells them apart.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Final

from shared.config import Resident
from shared.errors import SettingsError
from shared.tables import Row, rows

BEGINNING: Final = ("load_s", "warm_s", "swap_s")  # columns of a profile that are the same for all batch sizes


@dataclass(frozen=True, slots=True)
class Profile:
    """Seconds per batch of one model on one GPU type, by batch size, ascending; and what it takes to begin.

    `load_s`: until a new process has loaded the weights from disk; `warm_s`: for its first batch; `swap_s`: until the
    weights have come to the device from a copy in host memory. `memory_gib`: by batch size. What was not measured is
    None, and missing.
    """

    model: str
    gpu: str
    p50_s: Mapping[int, float]
    p95_s: Mapping[int, float]
    load_s: float | None = None
    warm_s: float | None = None
    swap_s: float | None = None
    memory_gib: Mapping[int, float] = field(default_factory=dict)

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes that were measured."""
        return tuple(self.p50_s)

    def service_s(self, batch: int) -> float:
        """Seconds for a batch, interpolated linearly between measured sizes, prolonged beyond them."""
        return interpolate(tuple(self.p50_s.items()), batch)

    def slow_s(self, batch: int) -> float:
        """The 95th percentile of the seconds for a batch, likewise."""
        return interpolate(tuple(self.p95_s.items()), batch)

    def turn_s(self, resident: Resident) -> float | None:
        """Seconds until a device that had another model can draw with this one; None where that was not measured."""
        if resident is True:
            return 0.0
        if resident is False:
            return None if self.load_s is None else self.load_s + (self.warm_s or 0.0)
        return self.swap_s

    def up_to(self, ceiling: int) -> Profile:
        """The same profile without the batches that do not fit the GPU's memory; batch 1 stays."""
        small = [batch for batch in self.p50_s if batch <= max(1, ceiling)]
        return replace(
            self,
            p50_s={batch: self.p50_s[batch] for batch in small},
            p95_s={batch: self.p95_s[batch] for batch in small},
            memory_gib={batch: self.memory_gib[batch] for batch in small if batch in self.memory_gib},
        )

    def scaled(self, pace: float) -> Profile:
        """The same profile on a machine that takes `pace` times as long."""
        return replace(
            self,
            p50_s={batch: seconds * pace for batch, seconds in self.p50_s.items()},
            p95_s={batch: seconds * pace for batch, seconds in self.p95_s.items()},
        )


@dataclass(frozen=True, slots=True)
class Curve:
    """Quality against the heavy share, for one way of choosing which prompts go heavy.

    `lower_is_better` holds for the Frechet distance. `assumed`: no one measured it.
    """

    selector: str
    metric: str
    points: tuple[tuple[float, float], ...]
    source: str = ""
    assumed: bool = False

    def at(self, share: float) -> float:
        """Quality at a heavy share in [0, 1], by linear interpolation, without a fit."""
        return interpolate(self.points, min(1.0, max(0.0, share)))

    @property
    def lower_is_better(self) -> bool:
        """Whether smaller values are better."""
        return self.metric == "fid"


def interpolate(points: tuple[tuple[float, float], ...], x: float) -> float:
    """Piecewise linear through ascending points; prolonged with the last slope to either side."""
    if len(points) == 1:
        return points[0][1]
    place = min(max(bisect_left(points, (x,)), 1), len(points) - 1)
    (x0, y0), (x1, y1) = points[place - 1], points[place]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def read_profiles(path: Path) -> dict[str, Profile]:
    """`model,gpu,batch,p50_s,p95_s,...` -> GPU type -> profile; raises SettingsError with file and line.

    The seconds of loading and the like are the GPU type's: of its rows the first that gives them counts.
    """
    p50: dict[str, dict[int, float]] = {}
    p95: dict[str, dict[int, float]] = {}
    memory: dict[str, dict[int, float]] = {}
    begin: dict[str, dict[str, float]] = {}
    for row in rows(path):
        gpu, batch, seconds = row.text("gpu"), row.count("batch"), row.number("p50_s")
        if seconds <= 0:
            raise row.wrong(f"p50_s must be positive, not {seconds:g}")
        known = p50.setdefault(gpu, {})
        if not known and batch != 1:
            raise row.wrong(f"batch 1 of GPU {gpu!r} is missing: a prompt may have to be drawn alone")
        if known and batch <= max(known):
            raise row.wrong(f"batch {batch} comes after {max(known)}")
        known[batch] = seconds
        p95.setdefault(gpu, {})[batch] = row.number("p95_s", seconds)
        if p95[gpu][batch] < seconds:
            raise row.wrong(f"p95_s must be at least p50_s, not {p95[gpu][batch]:g}")
        if row.get("memory_gib"):
            memory.setdefault(gpu, {})[batch] = _not_negative(row, "memory_gib")
        for name in BEGINNING:
            if row.get(name):
                begin.setdefault(gpu, {}).setdefault(name, _not_negative(row, name))
    return {
        gpu: Profile(path.stem, gpu, p50[gpu], p95[gpu], memory_gib=memory.get(gpu, {}), **begin.get(gpu, {}))
        for gpu in p50
    }


def _not_negative(row: Row, name: str) -> float:
    if (value := row.number(name)) < 0:
        raise row.wrong(f"{name} must not be negative, not {value:g}")
    return value


def read_curves(path: Path) -> dict[tuple[str, str], Curve]:
    """`selector,heavy_share,<metric>...,source` -> (selector, metric) -> curve; raises SettingsError."""
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    sources: dict[tuple[str, str], str] = {}
    for row in rows(path):
        share = row.number("heavy_share")
        if not 0 <= share <= 1:
            raise row.wrong(f"heavy_share must lie between 0 and 1, not {share:g}")
        for metric in ("fid", "accuracy"):
            if not row.get(metric):
                continue
            key = (row.text("selector"), metric)
            points.setdefault(key, []).append((share, row.number(metric)))
            sources[key] = row.get("source") or ""
            if any(after[0] <= before[0] for before, after in pairwise(points[key])):
                raise row.wrong(f"heavy_share {share:g} comes after {points[key][-2][0]:g}")
    for (selector, metric), found in points.items():
        if (found[0][0], found[-1][0]) != (0.0, 1.0):
            raise SettingsError(f"{path}: {metric} of selector {selector!r} must reach from heavy_share 0 to 1")
    return {key: Curve(*key, tuple(points[key]), sources[key]) for key in points}
