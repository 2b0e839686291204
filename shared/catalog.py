"""Reads the catalogue, `models/catalog.toml`, and what is known of its cascades.

A model or a cascade is a row in a table and no code. The file that the variable CASCADE_CATALOG names adds rows of
one's own, with `profiles/` and `quality/` beside it; of two rows with one name its own is meant.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from shared.blocklist import read_blocked
from shared.errors import SettingsError
from shared.measured import Curve, Profile, read_curves, read_profiles
from shared.model import TABLES, Model
from shared.schema import STAGES, Stage
from shared.scores import recorded_scores, scores_file

OWN_CATALOG: Final = "CASCADE_CATALOG"  # a file of the user's: its rows stand before those of the project

__all__ = ["TABLES", "Cascade", "load_cascade", "load_model", "unmeasured"]


@dataclass(frozen=True, slots=True)
class Cascade:
    """A light and a heavy model, the deadline they promise, and what is known of both.

    `discriminator`: folder below `home`, the catalogue's, of what scores light pictures. `blocked`: phrases that no
    prompt may hold. `safety_checker`: hub id, or folder below `home`, of what looks at the pictures.
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
    home: Path = TABLES

    @property
    def sizes(self) -> tuple[str, ...]:
        """The sizes that both models draw; none where only their own differ."""
        return tuple(size for size in self.models["light"].sizes if size in self.models["heavy"].sizes)

    def sizes_of(self, route: str) -> tuple[str, ...]:
        """What a prompt of that route may ask for: one sent straight to heavy may still be drawn light."""
        return self.models["light"].sizes if route == "light" else self.sizes

    def steps_of(self, route: str) -> tuple[int, ...]:
        """The steps that a prompt of that route may ask for, ascending."""
        return tuple(sorted({steps for model in self._on(route) for steps in model.steps_allowed}))

    def guidance_of(self, route: str) -> tuple[float, ...]:
        """The guidance that it may ask for, likewise."""
        return tuple(sorted({guidance for model in self._on(route) for guidance in model.guidance_allowed}))

    def _on(self, route: str) -> list[Model]:
        return [model for stage, model in self.models.items() if route in ("cascade", stage)]

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

    def at_random(self) -> Cascade:
        """This cascade with its models' architectures and weights of chance: to profile and try what is not here."""
        models = {stage: replace(model, random_weights=True) for stage, model in self.models.items()}
        return replace(self, models=models)

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


@dataclass(frozen=True, slots=True)
class Catalog:
    """A catalogue's file and its rows as they were read."""

    path: Path
    models: Mapping[str, dict[str, Any]]
    cascades: Mapping[str, dict[str, Any]]

    @property
    def home(self) -> Path:
        """The folder that relative paths of its rows start from; profiles and curves of its rows lie below it."""
        return self.path.parent


def catalogs(tables: Path = TABLES) -> list[Catalog]:
    """The catalogues in the order in which a name is looked up: the user's own, if there is one, then `tables`'.

    Raises SettingsError.
    """
    own = os.environ.get(OWN_CATALOG, "")
    return [read_catalog(path) for path in ([Path(own).resolve()] if own else []) + [tables / "catalog.toml"]]


def read_catalog(path: Path) -> Catalog:
    """Read a file's tables [models] and [cascades]; raises SettingsError."""
    try:
        raw = tomllib.loads(path.read_text())
    except (OSError, ValueError) as wrong:
        raise SettingsError(f"{path}: {wrong}") from None
    found = {kind: raw.get(kind, {}) for kind in ("models", "cascades")}
    if unknown := raw.keys() - found.keys():
        raise SettingsError(f"{path}: [{min(unknown)}] is no table of a catalogue; there are [models] and [cascades]")
    for kind, rows_ in found.items():
        if not isinstance(rows_, dict) or not all(isinstance(row, dict) for row in rows_.values()):
            raise SettingsError(f"{path}: [{kind}] must hold one table a row")
    return Catalog(path, **found)


def load_model(name: str, tables: Path = TABLES) -> Model:
    """The model of that name; raises SettingsError, which names the file, the row and the field."""
    known = catalogs(tables)
    for catalog in known:
        if name in catalog.models:
            try:
                return Model(name=name, home=catalog.home, **catalog.models[name])
            except ValidationError as wrong:
                first = wrong.errors()[0]
                field_name = ".".join(str(part) for part in first["loc"]) or "sizes"
                raise SettingsError(f"{catalog.path}: model {name!r}: {field_name}: {first['msg']}") from None
            except (TypeError, ValueError) as wrong:
                raise SettingsError(f"{catalog.path}: model {name!r}: {wrong}") from None
    raise SettingsError(_unknown("model", name, known, [each.models for each in known]))


def unmeasured(name: str, tables: Path = TABLES) -> Cascade:
    """The cascade as the catalogue has it, without profiles and curves: those of a new one are yet to be measured.

    Raises SettingsError.
    """
    known = catalogs(tables)
    for catalog in known:
        if name in catalog.cascades:
            return _cascade(name, catalog, tables)
    raise SettingsError(_unknown("cascade", name, known, [each.cascades for each in known]))


def _unknown(kind: str, name: str, known: list[Catalog], rows_: list[Mapping[str, Any]]) -> str:
    has = ", ".join(dict.fromkeys(each for names in rows_ for each in names))
    return f"no {kind} {name!r} in {' or '.join(str(each.path) for each in known)}; there is {has or 'none'}"


def _cascade(name: str, catalog: Catalog, tables: Path) -> Cascade:
    row = catalog.cascades[name]
    try:
        return Cascade(
            name=name,
            models={stage: load_model(row[stage], tables) for stage in STAGES},
            deadline_s=_positive(row["deadline_s"], "deadline_s"),
            gpu=row["gpu"],
            metric=row["metric"],
            discriminator=row["discriminator"],
            discriminator_s=float(row["discriminator_s"]),
            profiles={},
            blocked=read_blocked(row.get("blocked", []), catalog.home),
            safety_checker=str(row.get("safety_checker", "")),
            home=catalog.home,
        )
    except KeyError as missing:
        raise SettingsError(f"{catalog.path}: cascade {name!r}: no {missing}") from None
    except (TypeError, ValueError) as wrong:
        raise SettingsError(f"{catalog.path}: cascade {name!r}: {wrong}") from None


def _positive(value: Any, field_name: str) -> float:
    number = float(value)
    if not 0 < number < float("inf"):
        raise ValueError(f"{field_name} must be positive, not {value}")
    return number


def load_cascade(name: str, tables: Path = TABLES) -> Cascade:
    """The cascade of that name with everything known about it; raises SettingsError."""
    cascade = unmeasured(name, tables)
    files = {stage: model.home / "profiles" / f"{model.name}.csv" for stage, model in cascade.models.items()}
    known = replace(
        cascade,
        profiles={stage: read_profiles(path) for stage, path in files.items()},
        curves=read_curves(cascade.home / "quality" / f"{name}.csv"),
        scores=recorded_scores(name, cascade.home),
        scores_from=_name(scores_file(name, cascade.home)),
    )
    for stage in STAGES:
        known.profile(stage)  # raises, now and not at the first plan
    return known


def _name(path: Path | None) -> str:
    return path.name if path else "none recorded"
