"""What the doctor says of this machine: its GPUs, its models, its room on disk, the planner's solver."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from huggingface_hub import constants

from models.holdings import holdings, others_missing
from planner.engines import ROOT, find_licence
from services.doctor.finding import Finding, Level
from shared.catalog import Cascade, load_cascade
from shared.config import Settings
from shared.errors import SettingsError
from shared.model import TABLES, WEIGHTS, on_processor

SOON_DAYS: Final = 14
MIB: Final = 2**20
LEAST_MIB: Final = 64  # free, of a disk that is not full; what a log, a picture and a record take in an hour
LITTLE_MIB: Final = 1024
FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class Place(NamedTuple):
    """A folder that something is written to. `setting`: what names another; `written`: by the services, all day.

    `matters`: whether they miss something where it is full.
    """

    what: str
    folder: Path
    setting: str
    written: bool
    matters: bool


def of_licence(path: Path | None, text: str | None, today: date, asked: bool) -> Finding:
    """Whether Gurobi's licence is there, and until when. `asked`: Gurobi is the solver by setting."""
    if path is None:
        words = "no Gurobi licence"
        return Finding(
            "solver", "note", f"{words}: the bundled one is for evaluation only" if asked else f"{words}: HiGHS"
        )
    if text is None:
        return Finding("solver", "wrong", f"{path} cannot be read")
    found = re.search(r"^\s*EXPIRATION\s*=\s*(\d{4}-\d{2}-\d{2})", text, re.MULTILINE | re.IGNORECASE)
    if found is None:
        return Finding("solver", "ok", f"Gurobi, {path}: it names no end")
    left = (date.fromisoformat(found[1]) - today).days
    if left < 0:
        return Finding("solver", "wrong", f"Gurobi's licence {path} ended on {found[1]}")
    return Finding(
        "solver", "note" if left < SOON_DAYS else "ok", f"Gurobi, {path}: until {found[1]}, {left} days left"
    )


def of_solver(settings: Settings) -> Finding:
    """What is to be said of the planner's solver."""
    path = find_licence(os.environ, ROOT)
    try:
        text = path.read_text(errors="replace") if path else None
    except OSError:
        text = None
    if path and find_spec("gurobipy") is None:
        return Finding(
            "solver", "wrong" if settings.solver == "gurobi" else "note", f"{path} is there, gurobipy is not"
        )
    return of_licence(path, text, date.today(), settings.solver == "gurobi")


def of_gpu(needed: str = "") -> Finding:
    """Which GPUs this machine has. `needed`: what draws on them here, in words; empty where nothing does."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return _no_gpu("nvidia-smi is not installed", needed)
    command = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as wrong:
        return Finding("gpu", "wrong", f"nvidia-smi does not answer ({wrong}): install or restart NVIDIA's driver")
    found = "; ".join(said.stdout.strip().splitlines())
    if "No devices" in f"{found} {said.stderr}" or (said.returncode == 0 and not found):
        return _no_gpu("nvidia-smi finds no device", needed)
    if said.returncode != 0:
        told = " ".join((said.stderr or found).split())[:200]
        return Finding("gpu", "wrong", f"nvidia-smi fails ({told}): mend NVIDIA's driver")
    return Finding("gpu", "ok", found)


def _no_gpu(why: str, needed: str) -> Finding:
    if not needed:
        return Finding("gpu", "note", f"none: {why}")
    help_ = "install NVIDIA's driver, and in a container reserve the device (deploy/compose.gpu-node.yml)"
    return Finding("gpu", "wrong", f"none, and {needed}: {why}; {help_}")


def of_models(settings: Settings, on_node: bool) -> Iterator[Finding]:
    """Whether this machine can draw the cascade's pictures; a node must, unless its workers sleep."""
    try:
        cascade = load_cascade(settings.cascade)
    except SettingsError as wrong:
        yield of_gpu()
        yield Finding("weights", "wrong", str(wrong))
        return
    gpu = settings.gpu or cascade.gpu
    draws = on_node and settings.backend == "diffusers" and not on_processor(gpu)
    yield of_gpu(f"cascade {cascade.name} draws on {gpu}" if draws else "")
    yield from of_weights(settings, cascade, on_node)


def of_weights(settings: Settings, cascade: Cascade, on_node: bool = True) -> Iterator[Finding]:
    """Whether the weights of the cascade are on this machine; a worker that sleeps needs none."""
    needs_none = not on_node or settings.backend != "diffusers" or settings.random_weights
    absent: Level = "note" if needs_none else "wrong"
    held = [each for model in cascade.models.values() for each in holdings(model)]
    yield from (Finding("weights", "ok", f"{each.name}: {each.place}") for each in held if each.place)
    lacking = list({each.name: each for each in held if not each.place}.values())
    if lacking:
        names, how = ", ".join(each.name for each in lacking), f"`python -m models.fetch --cascade {cascade.name}`"
        if read_only(cascade.home / WEIGHTS):
            how = "`docker compose run --rm fetch` on the host, or the job fetch on Kubernetes,"
        yield Finding("weights", absent, f"{names}: {lacking[0].lacks}; {how} gets {'them' if lacking[1:] else 'it'}")
    for line in others_missing(cascade):
        yield Finding("weights", absent, line)
    discriminator = cascade.home / cascade.discriminator
    if any(discriminator.glob("*.safetensors")):
        yield Finding("weights", "ok", f"discriminator: {discriminator}")


def places(settings: Settings, fetches: bool) -> list[Place]:
    """Where logs, pictures and models of this machine go; `fetches`: models are still to come."""
    try:
        home = load_cascade(settings.cascade).home
    except SettingsError:
        home = TABLES
    given = settings.log_dir is not None
    found = [Place("logs", settings.log_dir or ROOT / "logs", "CASCADE_LOG_DIR", given, True)]
    if settings.pictures_at and "://" not in settings.pictures_at:
        found.append(Place("pictures", Path(settings.pictures_at), "CASCADE_PICTURES_AT", True, True))
    if not read_only(home / WEIGHTS):  # else who fetches does it elsewhere: its room is no matter of ours
        found.append(Place("models", home / WEIGHTS, "", False, fetches))
    return [*found, Place("the hub's cache", Path(constants.HF_HUB_CACHE), "HF_HOME", False, False)]


def read_only(folder: Path) -> bool:
    """Whether the folder is mounted for reading alone, as a container has its weights."""
    return folder.exists() and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def of_disk(known: Sequence[Place]) -> Iterator[Finding]:
    """Whether there is room where something is written; a line for each disk, however much goes there."""
    full: dict[int, list[Place]] = {}
    free: dict[int, float] = {}
    for place in known:
        folder = next(each for each in (place.folder, *place.folder.absolute().parents) if each.exists())
        try:
            disk = folder.stat().st_dev
            free[disk] = shutil.disk_usage(folder).free / MIB
            if place.written:
                _try(folder)
        except OSError as wrong:
            if wrong.errno not in FULL:
                words = f"{place.what} cannot be written to {place.folder} ({wrong.strerror})"
                yield Finding("disk", "wrong", f"{words}: let this user write there, or set {place.setting}")
                continue
            free[disk] = 0.0
        full.setdefault(disk, []).append(place)
    for disk, there in full.items():
        yield _of_room(there, free[disk])


def _try(folder: Path) -> None:
    """Write as much as must fit; raises OSError. A quota, or a disk that can't be written, shows in nothing else."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\0" * MIB)
        file.flush()
        os.fsync(file.fileno())


def _of_room(there: Sequence[Place], free_mib: float) -> Finding:
    names = ", ".join(f"{place.what} ({place.folder})" for place in there)
    left = f"{free_mib / 1024:.1f} GiB" if free_mib >= LITTLE_MIB else f"{free_mib:.0f} MiB"
    if free_mib >= LITTLE_MIB:
        return Finding("disk", "ok", f"{left} free for {names}")
    if free_mib >= LEAST_MIB:
        return Finding("disk", "note", f"only {left} free for {names}")
    others = " or ".join(dict.fromkeys(place.setting for place in there if place.setting))
    level: Level = "wrong" if any(place.matters for place in there) else "note"
    return Finding(
        "disk", level, f"full, {left} free for {names}: make room there{f', or set {others}' if others else ''}"
    )
