"""Whether a model fits before it is loaded: what its weights take, against what the device has left.

The weights are read off the headers of their files; nothing is loaded to find out.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open

from models.holdings import loaded_from
from models.libraries import part_file
from shared.catalog import Cascade
from shared.errors import ModelError
from shared.model import Model, on_processor
from shared.schema import STAGES

CPU: Final = torch.device("cpu")
GIB: Final = 2**30
CONTEXT_GIB: Final = 0.5  # what a process has on a GPU before it has loaded anything, some hundred MiB; not in profiles
_AVAILABLE: Final = re.compile(r"^MemAvailable:\s+(\d+) kB", re.MULTILINE)
_RECLAIMABLE: Final = re.compile(r"^(?:total_)?inactive_file (\d+)", re.MULTILINE)
# Of a control group, as a container has one: its limit, what it uses, and what of that are files that may be dropped.
_GROUPS: Final = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


def refuse_what_does_not_fit(model: Model, device: torch.device, dtype: torch.dtype, *, hosted: bool = False) -> None:
    """Raise ModelError where the model's weights are larger than what the device has free.

    `hosted`: they are to lie in host memory, and on the device while no other model does.
    """
    needed, free = weights_bytes(model, dtype), free_bytes(CPU if hosted else device)
    if hosted and device.type == "cuda":
        free = min(free, torch.cuda.mem_get_info(device)[1])
    if needed > free:
        where = torch.cuda.get_device_name(device) if device.type == "cuda" else "this machine"
        raise ModelError(
            f"{model.name} needs {needed / GIB:.2f} GiB for its weights alone, and {where} has {free / GIB:.2f} GiB of "
            "memory free: end what else holds memory there, take a larger device, or another cascade; where the two "
            "models of a slot do not fit together, set CASCADE_RESIDENT=host"
        )


def both_fit(cascade: Cascade, gpu: str | None, shares: int = 1) -> bool:
    """Whether both models stay on a device at their largest profiled batches, by the memory that was measured.

    False where that was not measured: then nobody knows. `shares`: how many slots are on one GPU, each with both.
    """
    measured = [cascade.profile(stage, gpu).memory_gib for stage in STAGES]
    on_gpu = not on_processor(gpu) and torch.cuda.is_available()
    # Of a GPU all of it, for the other model may be there already; beside each model torch itself lies there.
    room = torch.cuda.mem_get_info()[1] / shares - len(STAGES) * CONTEXT_GIB * GIB if on_gpu else free_bytes(CPU)
    return all(measured) and sum(max(each.values()) for each in measured if each) * GIB <= room


def weights_bytes(model: Model, dtype: torch.dtype) -> int:
    """Bytes of a model's weights once loaded as `dtype`; the row's own figure where its files are not at hand."""
    folder = model.folder
    files = _weights(model, folder) if folder else []
    try:
        files += [part_file(model, name, part) for name, part in model.parts.items()]
        known = sum(_bytes(file, dtype) for file in files)
    except (OSError, SafetensorError):  # the loader says what is wrong with them
        known = 0
    return known if folder and known else int(model.memory_gib * GIB)


def _weights(model: Model, folder: Path) -> list[Path]:
    """The weight files that the loader takes; none where it would take none, and say so."""
    try:
        return [folder / path for path in loaded_from(model, folder) if path.endswith(".safetensors")]
    except (OSError, ValueError, ModelError):
        return []


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be taken on a device; of a processor's memory, what this process is allowed of it."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    available = _AVAILABLE.search(_text(Path("/proc/meminfo")))
    free = int(available[1]) * 1024 if available else math.inf
    return int(min(free, _group_free(Path("/sys/fs/cgroup")), 2**62))


def _group_free(root: Path) -> float:
    """What the control group mounted at `root` leaves; infinite where there is none or it has no limit."""
    for limit_name, used_name, stat_name in _GROUPS:
        limit, used = _text(root / limit_name).strip(), _text(root / used_name).strip()
        if limit.isdigit() and used.isdigit():
            files = _RECLAIMABLE.search(_text(root / stat_name))
            return int(limit) - int(used) + (int(files[1]) if files else 0)
    return math.inf


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _bytes(file: Path, dtype: torch.dtype) -> int:
    """Bytes of a file's tensors: numbers with a point as `dtype`, the others as they are."""
    total = 0
    with safe_open(file, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 (it is no dictionary)
            found = tensors.get_slice(name)
            kind = str(found.get_dtype())
            size = dtype.itemsize if kind.startswith(("F", "BF")) else int(re.sub(r"\D", "", kind) or 8) // 8
            total += math.prod(found.get_shape()) * size
    return total
