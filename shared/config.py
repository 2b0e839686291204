"""One frozen `Settings` for every service: command line over environment over file over default.

`CASCADE_<NAME>` sets a field from the environment (and `REDIS_URL` the address), `--config FILE` names a
TOML file, and `--<name>` wins over both. A wrong value is one line that names its source.
"""

from __future__ import annotations

import argparse
import os
import socket
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from shared.errors import SettingsError
from shared.schema import Stage

PREFIX: Final = "CASCADE_"
# Of the deadline. Longer, and a dead worker's prompts come back too late to be drawn; shorter, and a worker that
# loads a model or starves on a shared machine loses prompts that it would have drawn.
LEASE_SHARE: Final = 0.4
Resident = bool | Literal["host", "auto"]


class Settings(BaseModel):
    """What a service is told from outside. Saved with each run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    redis_url: str = Field("redis://127.0.0.1:6379/0", description="address of Redis (redis://, rediss://, unix://)")
    deployment: str = Field("cascade", pattern=r"^[\w.-]+$", description="name in braces before every key")
    cascade: str = Field("tiny", description="a row of [cascades] in models/catalog.toml")
    policy: str = Field("quality", description="the planner's policy")
    solver: Literal["auto", "gurobi", "highs", "exhaustive"] = Field("auto", description="who solves the program")
    backend: Literal["diffusers", "sleeping", "faulty"] = Field(
        "diffusers", description="sleeping: draw nothing, take the time; faulty: with faults that prompts ask for"
    )
    deadline_s: float | None = Field(None, gt=0, description="promise on latency; default: the cascade's")
    node: str = Field(default_factory=socket.gethostname, pattern=r"^[\w.-]+$", description="this machine's name")
    random_weights: bool = Field(False, description="draw with the models' architectures and weights of chance")
    resident: Resident = Field(
        True,
        description="true: both models of a slot stay on its GPU; host: the one that does not draw waits in host "
        "memory; auto: host unless the profiles show that both fit; false: one is loaded, the agent swaps them",
    )
    slots: int = Field(1, ge=1, le=512, description="GPUs, or shares of one, on this node")
    shares: int = Field(1, ge=1, description="how many slots share this slot's GPU, and its memory")
    gpu: str | None = Field(None, description="GPU type of this node; default: the cascade's")
    stage: Stage | None = Field(None, description="which model a worker runs")
    slot: int = Field(0, ge=0, description="the slot a worker draws on")
    lease_s: float = Field(2.0, gt=0, description="a worker unheard of for this long has lost its prompts")
    hang_s: float = Field(10.0, gt=0, description="a batch is given at least this long before it counts as hung")
    grace_s: float = Field(10.0, gt=0, description="how long a worker told to stop may go on drawing its batch")
    margin_s: float = Field(0.15, gt=0, description="how long before a deadline the keeper settles a prompt")
    plan_period_s: float = Field(1.0, gt=0, description="seconds between two looks of the planner")
    peak_per_s: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="prompts/s that the policy `static` is solved for"
    )
    pinned: Path | None = Field(None, description="TOML or JSON file with the plan of the policy `pinned`")
    dwell_s: float = Field(3.0, ge=0, description="worker counts change at most once in a period so long")
    picture_ttl_s: float = Field(600.0, gt=0, description="how long pictures and records stay")
    pictures_at: str = Field("", description="where pictures live: a Redis address or a folder; empty: the same Redis")
    picture_budget_mib: float | None = Field(
        None, gt=0, description="MiB of pictures kept; default: a quarter of Redis' memory limit, or 256 without one"
    )
    done_keep_s: float = Field(3600.0, gt=0, description="how long outcomes stay in the done stream")
    http_host: str = Field("127.0.0.1", description="address of the gateway; beyond this machine only with keys")
    http_port: int = Field(8000, ge=0, le=65535, description="port the gateway listens on; 0: any that is free")
    http_keys: Path | None = Field(None, description="TOML file with the gateway's API keys (services.ctl key add)")
    supervisor_socket: Path = Field(Path("logs/supervisor.sock"), description="unix socket of the node's supervisor")
    beats: Path | None = Field(
        None, description="folder in which each service touches a file of its name, for health checks; default: none"
    )
    log_dir: Path | None = Field(None, description="folder for JSON-line logs; default: standard error only")

    @field_validator("resident", mode="before")
    @classmethod
    def _resident_is_known(cls, given: Any) -> Any:
        known = {"true": True, "1": True, "false": False, "0": False, "host": "host", "auto": "auto"}
        if str(given).lower() not in known:
            raise ValueError("must be true, false, host or auto")
        return known[str(given).lower()]

    @model_validator(mode="after")
    def _lease_fits_the_deadline(self) -> Settings:
        if self.deadline_s is not None and self.lease_s > LEASE_SHARE * self.deadline_s:
            raise ValueError(
                f"lease_s ({self.lease_s}) must be at most {LEASE_SHARE} of deadline_s ({self.deadline_s})"
            )
        return self


def parser(description: str, names: Sequence[str]) -> argparse.ArgumentParser:
    """A parser with `--config` and one option per named field of Settings."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--config", type=Path, help="TOML file with any of these settings")
    for name in names:
        made.add_argument(f"--{name.replace('_', '-')}", dest=name, help=_about(name))
    return made


def _about(name: str) -> str:
    known = Settings.model_fields[name]
    default = "" if known.default is None or known.default_factory else f" (default: {known.default})"
    return f"{known.description}{default}".replace("%", "%%")


def load(arguments: argparse.Namespace | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Gather the settings; raises SettingsError with one line that names the field."""
    given = vars(arguments) if arguments is not None else {}
    values = _from_file(given.get("config"))
    if "REDIS_URL" in environment:
        values["redis_url"] = environment["REDIS_URL"]
    for name in Settings.model_fields:
        if PREFIX + name.upper() in environment:
            values[name] = environment[PREFIX + name.upper()]
        if given.get(name) is not None:
            values[name] = given[name]
    try:
        return Settings(**values)
    except ValidationError as wrong:
        first = wrong.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "settings"
        raise SettingsError(f"{place}: {first['msg']} (got {first['input']!r})"[:300]) from None


def _from_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as wrong:
        raise SettingsError(f"{path}: {wrong}") from None
