"""Reads the tables under `models/`: models, cascades, profiles, quality curves, recorded scores.

A model or a cascade is a row in a table and no code. Published and measured figures look the same;
their `source` column tells them apart.
"""

from __future__ import annotations

import tomllib
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from shared.blocklist import read_blocked
from shared.errors import SettingsError
from shared.schema import STAGES, Stage
from shared.scores import recorded_scores, scores_file
from shared.sizes import allowed_sizes
from shared.tables import rows

TABLES: Final = Path(__file__).resolve().parent.parent / "models"


@dataclass(frozen=True, slots=True)
class Model:
    """A row of [models]: a diffusion pipeline and how it is called. `sizes`: what may be asked for."""

    name: str
    source: str
    steps: int
    guidance: float
    size: int
    memory_gib: float
    licence: str = ""
    sizes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", allowed_sizes(self.sizes, self.size))


@dataclass(frozen=True, slots=True)
class Profile:
    """Seconds per batch of one model on one GPU type, by batch size, ascending."""

    model: str
    gpu: str
    p50_s: Mapping[int, float]
    p95_s: Mapping[int, float]

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

    def up_to(self, ceiling: int) -> Profile:
        """The same profile without the batches that do not fit the GPU's memory; batch 1 stays."""
        small = [batch for batch in self.p50_s if batch <= max(1, ceiling)]
        return replace(
            self,
            p50_s={batch: self.p50_s[batch] for batch in small},
            p95_s={batch: self.p95_s[batch] for batch in small},
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


@dataclass(frozen=True, slots=True)
class Cascade:
    """A light and a heavy model, the deadline they promise, and what is known of both.

    `blocked`: phrases that no prompt may hold. `safety_checker`: hub id or folder of what looks at the pictures.
    """

    name: str
    models: Mapping[Stage, Model]
    deadline_s: float
    gpu: str
    metric: str
    discriminator: str
    discriminator_s: float
    profiles: Mapping[Stage, Mapping[str, Profile]]
    curves: Mapping[tuple[str, str], Curve] = field(default_factory=dict)
    scores: tuple[float, ...] = ()
    scores_from: str = ""
    blocked: tuple[str, ...] = ()
    safety_checker: str = ""

    @property
    def sizes(self) -> tuple[str, ...]:
        """The sizes that both models draw; none where only their own differ."""
        return tuple(size for size in self.models["light"].sizes if size in self.models["heavy"].sizes)

    def sizes_of(self, route: str) -> tuple[str, ...]:
        """What a prompt of that route may ask for: one sent straight to heavy may still be drawn light."""
        return self.models["light"].sizes if route == "light" else self.sizes

    def profile(self, stage: Stage, gpu: str | None = None) -> Profile:
        """The stage's profile on a GPU type (default: the cascade's own); raises SettingsError."""
        by_gpu = self.profiles[stage]
        try:
            return by_gpu[gpu or self.gpu]
        except KeyError:
            raise SettingsError(
                f"models/profiles/{self.models[stage].name}.csv has no rows for GPU {gpu or self.gpu!r}; "
                f"it knows {', '.join(by_gpu) or 'none'}"
            ) from None

    def service_s(self, stage: Stage, batch: int, gpu: str | None = None) -> float:
        """Seconds per batch; the light stage includes the discriminator."""
        extra = self.discriminator_s if stage == "light" else 0.0
        return self.profile(stage, gpu).service_s(batch) + extra

    def batches(self, stage: Stage, gpu: str | None = None) -> tuple[int, ...]:
        """The batch sizes a plan may choose from."""
        return self.profile(stage, gpu).batches

    def curve(self, selector: str = "discriminator", metric: str | None = None) -> Curve:
        """The quality curve of a selector; by lot it is the straight line where none was measured."""
        metric = metric or self.metric
        if (selector, metric) in self.curves:
            return self.curves[selector, metric]
        known = self.curve("discriminator", metric) if selector != "discriminator" else None
        if known is None:
            raise SettingsError(f"models/quality/{self.name}.csv has no {metric} of selector {selector!r}")
        ends = ((0.0, known.at(0.0)), (1.0, known.at(1.0)))
        return Curve(selector, metric, ends, "straight line between all light and all heavy", assumed=True)

    def capped(self, ceilings: Mapping[Stage, Mapping[str, int]]) -> Cascade:
        """This cascade without the batches above the ceilings, stage -> GPU type -> most prompts of a batch.

        A GPU type that was never profiled is known from here on as the cascade's own, up to its ceiling.
        """
        profiles = {stage: dict(by_gpu) for stage, by_gpu in self.profiles.items()}
        for stage, by_gpu in ceilings.items():
            for gpu, ceiling in by_gpu.items():
                profiles[stage][gpu] = profiles[stage].get(gpu, self.profile(stage)).up_to(ceiling)
        return replace(self, profiles=profiles)

    def paced(self, pace: Mapping[Stage, float]) -> Cascade:
        """This cascade on machines that take `pace` times the profiled seconds."""
        return replace(
            self,
            profiles={
                stage: {gpu: profile.scaled(pace.get(stage, 1.0)) for gpu, profile in by_gpu.items()}
                for stage, by_gpu in self.profiles.items()
            },
        )


def interpolate(points: tuple[tuple[float, float], ...], x: float) -> float:
    """Piecewise linear through ascending points; prolonged with the last slope to either side."""
    if len(points) == 1:
        return points[0][1]
    place = min(max(bisect_left(points, (x,)), 1), len(points) - 1)
    (x0, y0), (x1, y1) = points[place - 1], points[place]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def unmeasured(name: str, tables: Path = TABLES) -> Cascade:
    """The cascade as the catalogue has it, without profiles and curves: those of a new one are yet to be measured.

    Raises SettingsError.
    """
    path = tables / "catalog.toml"
    try:
        catalog = tomllib.loads(path.read_text())
        if name not in catalog["cascades"]:
            raise SettingsError(f"no cascade {name!r} in {path}; it has {', '.join(catalog['cascades'])}")
        row: dict[str, Any] = catalog["cascades"][name]
        return Cascade(
            name=name,
            models={stage: Model(name=row[stage], **catalog["models"][row[stage]]) for stage in STAGES},
            deadline_s=float(row["deadline_s"]),
            gpu=row["gpu"],
            metric=row["metric"],
            discriminator=row["discriminator"],
            discriminator_s=float(row["discriminator_s"]),
            profiles={},
            blocked=read_blocked(row.get("blocked", []), tables),
            safety_checker=str(row.get("safety_checker", "")),
        )
    except (OSError, tomllib.TOMLDecodeError, TypeError, ValueError) as wrong:
        raise SettingsError(f"{path}: {wrong}") from None
    except KeyError as missing:
        raise SettingsError(f"{path}: cascade {name!r}: no {missing}") from None


def load_cascade(name: str, tables: Path = TABLES) -> Cascade:
    """The cascade of that name with everything known about it; raises SettingsError."""
    cascade = unmeasured(name, tables)
    files = {stage: tables / "profiles" / f"{model.name}.csv" for stage, model in cascade.models.items()}
    known = replace(
        cascade,
        profiles={stage: read_profiles(path) for stage, path in files.items()},
        curves=read_curves(tables / "quality" / f"{name}.csv"),
        scores=recorded_scores(name, tables),
        scores_from=_name(scores_file(name, tables)),
    )
    for stage in STAGES:
        known.profile(stage)  # raises, now and not at the first plan
    return known


def _name(path: Path | None) -> str:
    return path.name if path else "none recorded"


def read_profiles(path: Path) -> dict[str, Profile]:
    """`model,gpu,batch,p50_s,p95_s,...` -> GPU type -> profile; raises SettingsError with file and line."""
    p50: dict[str, dict[int, float]] = {}
    p95: dict[str, dict[int, float]] = {}
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
    return {gpu: Profile(path.stem, gpu, p50[gpu], p95[gpu]) for gpu in p50}


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
