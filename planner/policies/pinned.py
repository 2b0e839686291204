"""`pinned`: counts, batches and threshold from a file; for parity tests, and for who knows better.

    light_workers = 4          # TOML, or the same names in JSON
    heavy_workers = 12
    light_batch = 16
    heavy_batch = 4
    threshold = 0.02

Further fields, all optional, are those of `Pinned`.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from planner.deferral import deferral
from planner.drafting import Policy, Setup
from shared.catalog import Cascade
from shared.errors import SettingsError
from shared.plans import Plan, View
from shared.schema import STAGES

NAME: Final = "pinned"


class Pinned(BaseModel):
    """What the file says; names and units as in `Plan`. `heavy_share` is what the recorded scores say, unless given."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    light_workers: int = Field(ge=0)
    heavy_workers: int = Field(ge=0)
    light_batch: int = Field(ge=1)
    heavy_batch: int = Field(ge=1)
    threshold: float = Field(ge=0, le=1)
    tie_share: float = Field(0.0, ge=0, le=1)
    heavy_share: float | None = Field(None, ge=0, le=1)
    heavy_direct: float = Field(0.0, ge=0, le=1)
    direct_above: float = Field(1.0, ge=0, le=1)
    direct_tie_share: float = Field(0.0, ge=0, le=1)
    lot: bool = False
    light_hold_s: float = Field(0.0, ge=0)
    heavy_hold_s: float = Field(0.0, ge=0)


def pinned(setup: Setup) -> Policy:
    """The plan of the file, whatever the view; where slots are missing light comes first, as in `placement`."""
    if setup.pinned is None:
        raise SettingsError("pinned: the policy `pinned` needs a TOML or JSON file with its plan")
    fixed = plan_of(read_pinned(setup.pinned, setup.cascade), setup.cascade)
    wanted = fixed.light_workers + fixed.heavy_workers
    source = f"pinned by {setup.pinned.name}"

    def policy(view: View) -> Plan:
        slots = sum(1 for slot in view.slots if slot.stages)
        able = {stage: sum(stage in slot.stages for slot in view.slots) for stage in STAGES}
        light = min(fixed.light_workers, able["light"])
        heavy = min(fixed.heavy_workers, able["heavy"], slots - light)
        missing = wanted - light - heavy
        why = f"{source}; slots for {missing} of {wanted} workers are missing" if missing else source
        plan = replace(fixed, light_workers=light, heavy_workers=heavy, made=view.now, why=why)
        if heavy:
            return plan
        return replace(plan, threshold=0.0, tie_share=0.0, heavy_share=0.0, heavy_direct=0.0)

    return policy


def plan_of(said: Pinned, cascade: Cascade) -> Plan:
    """The plan, with seconds per batch from the profiles."""
    recorded = deferral((), cascade.scores)
    share = recorded.share_below(said.threshold) if said.heavy_share is None else said.heavy_share
    given = said.model_dump(exclude={"heavy_share"})
    light_s, heavy_s = (cascade.service_s(stage, given[f"{stage}_batch"]) for stage in STAGES)
    return Plan(NAME, light_service_s=light_s, heavy_service_s=heavy_s, heavy_share=share, **given)


def read_pinned(path: Path, cascade: Cascade) -> Pinned:
    """Read and check the file; raises SettingsError with file, line and field."""
    try:
        text = path.read_text()
        raw: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        said = Pinned.model_validate(raw)
    except OSError as wrong:
        raise SettingsError(f"{path}: {wrong.strerror}") from None
    except ValidationError as wrong:
        first = wrong.errors()[0]
        raise _wrong(path, text, str(first["loc"][0]) if first["loc"] else "plan", first["msg"]) from None
    except ValueError as wrong:  # no text, no TOML, no JSON: each says where
        raise SettingsError(f"{path}: {wrong}") from None
    if not said.light_workers and said.heavy_direct < 1:
        raise _wrong(path, text, "light_workers", "without light workers heavy_direct must be 1")
    if said.lot and said.heavy_share is None:
        raise _wrong(path, text, "lot", "lots need a heavy_share to draw for")
    for stage in STAGES:
        batch, known = getattr(said, f"{stage}_batch"), cascade.batches(stage)
        if batch not in known:
            table = f"models/profiles/{cascade.models[stage].name}.csv has {', '.join(map(str, known))}"
            raise _wrong(path, text, f"{stage}_batch", f"no profile for batch {batch}: {table}")
    return said


def _wrong(path: Path, text: str, field: str, reason: str) -> SettingsError:
    lines = enumerate(text.splitlines(), start=1)
    named = re.compile(rf'^[\s{{,"]*{re.escape(field)}"?\s*[=:]')
    place = next((f":{number}" for number, line in lines if named.match(line)), "")
    return SettingsError(f"{path}{place}: {field}: {reason}")
