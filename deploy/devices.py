"""Which GPU, or which MIG instance of one, each slot of a node sees."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from typing import Final

from shared.errors import SettingsError
from shared.model import VISIBLE

LISTING_S: Final = 60.0  # a driver without persistence mode wakes up for it
_DEVICE: Final = re.compile(r"\d+|(GPU|MIG)-[\w/-]+")
_LISTED: Final = re.compile(r"^(GPU|\s+MIG) .*\(UUID: ((?:GPU|MIG)-[\w/-]+)\)", re.MULTILINE)


def devices_of(
    given: str, slots: int, environment: Mapping[str, str], listing: Callable[[], str] = str
) -> tuple[str, ...]:
    """What CUDA_VISIBLE_DEVICES is on each slot: numbers or UUIDs of GPUs, or UUIDs of their MIG instances.

    `given`: one a slot, with commas; one named twice is shared by two slots. Where none is given, the GPUs that
    the environment makes visible, or all, in order; where GPUs are parted, which `listing` (`nvidia-smi -L`) tells,
    their instances. Raises SettingsError.
    """
    visible = environment.get(VISIBLE, "")
    source, listed = ("devices", given) if given else (VISIBLE, visible)
    if not listed:
        source, listed = "nvidia-smi -L", ",".join(parted(listing()))
    if not listed:
        return tuple(str(slot) for slot in range(slots))
    names = [name.strip() for name in listed.split(",")]
    for name in names:
        if not _DEVICE.fullmatch(name):
            raise SettingsError(f"{source}: {name!r} is no device; name numbers (0,1) or UUIDs (GPU-..., MIG-...)")
    if len(names) < slots or (given and len(names) > slots):
        raise SettingsError(
            f"{source}: {len(names)} for {slots} slots; name one a slot, such as --devices "
            f"{','.join((names * slots)[:slots])} where slots share"
        )
    return tuple(names[:slots])


def parted(listing: str) -> list[str]:
    """The UUIDs of all MIG instances, and of the GPUs that are not parted; none where no GPU is.

    Numbers do not do there: CUDA counts an instance by its UUID alone, and a process sees only one.
    """
    found: list[str] = []
    for kind, uuid in _LISTED.findall(listing):
        if kind != "GPU" and found and found[-1].startswith("GPU-"):
            found.pop()  # the GPU whose instances these are
        found.append(uuid)
    return found if any(uuid.startswith("MIG-") for uuid in found) else []


def gpu_listing() -> str:
    """What `nvidia-smi -L` says, one GPU or MIG instance a line; empty where it can't be asked."""
    try:
        asked = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=LISTING_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout
