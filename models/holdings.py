"""Which files of a diffusers repository a row of the catalogue needs, and which of them are on this machine.

    model_index.json ──> parts ──> settings of each, and its safetensors: the row's variant where there is one

Weights that are no safetensors are never needed: a repository that has nothing else is refused. What was fetched is
recorded beside it, so that a fetch goes on where it was broken off and a folder can be checked without the hub.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from huggingface_hub import try_to_load_from_cache

from shared.catalog import Cascade
from shared.errors import ModelError
from shared.files import write_text
from shared.model import Model

INDEX: Final = "model_index.json"
RECORD: Final = "fetched.json"
PICKLES: Final = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
MARKED: Final = 2**20  # bytes at either end of a file that its fingerprint is of
# Neither fetched nor loaded: the checker is a field of the cascade.
UNUSED: Final = ("safety_checker",)
_SETTINGS: Final = (".json", ".txt", ".model")
_LICENCE: Final = re.compile(r"^(LICEN[CS]E|NOTICE)[^/]*$", re.IGNORECASE)
_NAME: Final = r"^(?:diffusion_pytorch_model|pytorch_model|model)"
_SHARD: Final = r"(?:-\d{5}-of-(?P<count>\d{5}))"


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that was fetched: its size in bytes and its SHA-256."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Record:
    """What a folder was fetched from, and what came."""

    source: str
    revision: str
    files: Mapping[str, Kept]

    def write(self, folder: Path) -> None:
        """Keep it in the folder; raises OSError."""
        files = {path: {"size": kept.size, "sha256": kept.sha256} for path, kept in sorted(self.files.items())}
        told = {"source": self.source, "revision": self.revision, "files": files}
        write_text(folder / RECORD, json.dumps(told, indent=1) + "\n")


class Holding(NamedTuple):
    """One thing that a model needs, and where it lies; `place` is None where it is not here, `lacks` says why not."""

    name: str
    source: str
    place: Path | None
    lacks: str


def read_record(folder: Path) -> Record | None:
    """The folder's record; None where there is none that can be read, and then everything is fetched anew."""
    try:
        told = json.loads((folder / RECORD).read_text())
        files = {path: Kept(int(kept["size"]), str(kept["sha256"])) for path, kept in told["files"].items()}
        return Record(str(told["source"]), str(told["revision"]), files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def needed(model: Model, index: Mapping[str, Any], files: Collection[str]) -> list[str]:
    """The paths, of a repository's `files`, that the row's pipeline is loaded from.

    `index`: what its model_index.json says. Raises ModelError where weights are lacking or come as pickles only, and
    where no part has the row's variant.
    """
    parts = list(parts_of(model, index))
    wanted = [INDEX, *(path for path in files if _LICENCE.match(path))]
    for part in parts:
        wanted += _of_part(model, part, [path for path in files if path.startswith(f"{part}/")])
    if model.variant and not any(_weights(path.rpartition("/")[2], model.variant) for path in wanted):
        # Diffusers would refuse it; and it may be another file, with other pictures, that is meant.
        raise ModelError(f"{model.source} has no weights of the variant {model.variant!r}; leave it out of the row")
    return wanted


def parts_of(model: Model, index: Mapping[str, Any]) -> Iterator[str]:
    """The parts of a pipeline that the row uses, as the index names them."""
    for name, value in index.items():
        named = isinstance(value, list) and len(value) == 2 and all(value)
        if named and name not in model.without and name not in UNUSED:
            yield name


def _of_part(model: Model, part: str, files: Collection[str]) -> list[str]:
    names = sorted(path.removeprefix(f"{part}/") for path in files)
    names = [name for name in names if "/" not in name]
    settings = [name for name in names if name.endswith(_SETTINGS) and ".index." not in name]
    # Of a part whose weights come from elsewhere, the architecture alone.
    weights = [] if part in model.parts else chosen(names, model.variant, f"{model.source}: {part}")
    has_weights = "config.json" in names or any(name.endswith(PICKLES) for name in names)
    if not weights and has_weights and part not in model.parts:
        pickles = [name for name in names if name.endswith(PICKLES)]
        only = f"has its weights as a pickle only ({pickles[0]})" if pickles else _without(model.variant)
        raise ModelError(f"{model.source}: {part} {only}; safetensors are needed")
    if not names:
        raise ModelError(f"{model.source}: there is no folder {part}, which its {INDEX} names")
    return [f"{part}/{name}" for name in (*settings, *weights)]


def _without(variant: str) -> str:
    return f"has no weights of the variant {variant!r}, and no plain ones" if variant else "has no weights"


def chosen(names: Collection[str], variant: str, place: str) -> list[str]:
    """Of the files of a part, its safetensors: one file, or shards with their index; of the variant where it has such.

    Raises ModelError where a shard is missing.
    """
    for kind in dict.fromkeys((variant, "")):
        found = {name: match for name in names if (match := _weights(name, kind))}
        if alone := [name for name, match in found.items() if not match["count"]]:
            return alone
        if found:
            count = int(next(iter(found.values()))["count"])
            if len(found) != count:
                raise ModelError(f"{place} has {len(found)} of {count} shards of its weights")
            return [*found, *(name for name in names if _is_index(name, kind))]
    return []


def _weights(name: str, variant: str) -> re.Match[str] | None:
    middle = rf"\.{re.escape(variant)}{_SHARD}?" if variant else rf"{_SHARD}?"
    older = re.match(rf"{_NAME}{_SHARD}\.{re.escape(variant)}\.safetensors$", name) if variant else None
    return re.match(rf"{_NAME}{middle}\.safetensors$", name) or older


def _is_index(name: str, variant: str) -> bool:
    endings = (f".index.{variant}.json", f".{variant}.index.json") if variant else (".safetensors.index.json",)
    return ".safetensors." in name and name.endswith(endings)


def lacking(model: Model, folder: Path) -> str:
    """What keeps the folder from being loaded, in words; "" where nothing is seen to."""
    record = read_record(folder)
    if record is not None and record.revision and model.revision and record.revision != model.revision:
        return f"{folder} holds revision {record.revision[:8]}, not {model.revision[:8]}"
    try:
        wanted = loaded_from(model, folder)
    except (OSError, ValueError) as wrong:
        return f"{folder / INDEX}: {getattr(wrong, 'strerror', None) or 'no JSON'}"
    except ModelError as wrong:
        return str(wrong)
    kept = record.files if record is not None else {}
    cut = [path for path in wanted if path in kept and (folder / path).stat().st_size != kept[path].size]
    return f"{folder / cut[0]} is not as it was fetched" if cut else ""


def loaded_from(model: Model, folder: Path) -> list[str]:
    """The paths in a folder that the row's pipeline is loaded from.

    Raises OSError or ValueError where its index cannot be read, and ModelError as `needed` does.
    """
    return needed(model, json.loads((folder / INDEX).read_text()), files_in(folder))


def files_in(folder: Path) -> list[str]:
    """The paths below a folder, relative to it, without hidden ones."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in found if not any(step.startswith(".") for step in path.parts))


def holdings(model: Model) -> list[Holding]:
    """Where the model's pipeline and its parts lie: beside the catalogue, or in the cache, as for the loader."""
    found = [_whole(model)]
    for name, part in model.parts.items():
        folder = model.part_folder(name)
        beside = folder / part.file if (folder / part.file).is_file() else None
        place = beside or cached(part.source, part.file, part.revision)
        lacks = "" if place else f"neither {folder / part.file} nor the hub's cache has it"
        found.append(Holding(f"{model.name}-{name}", f"{part.source}/{part.file}", place, lacks))
    return found


def _whole(model: Model) -> Holding:
    folder = model.folder
    if folder is None and (index := cached(model.source, INDEX, model.revision)):
        folder = index.parent
    if folder is None:
        places = ", ".join(str(each) for each in model.folders)
        return Holding(model.name, model.source, None, f"neither {places} nor the hub's cache has it")
    lacks = lacking(model, folder)
    return Holding(model.name, model.source, None if lacks else folder, lacks)


def others_missing(cascade: Cascade) -> list[str]:
    """What else a cascade's workers need and have not, a line each: the hub has no discriminator of ours."""
    lines = []
    discriminator = cascade.home / cascade.discriminator
    if not any(discriminator.glob("*.safetensors")):
        lines.append(
            f"discriminator: none in {discriminator}; train one, or import a checkpoint "
            "(python -m models.discriminator --help)"
        )
    checker = cascade.safety_checker
    here = any((cascade.home / checker).glob("*.safetensors")) or cached(checker, "config.json", "")
    if checker and not here:
        lines.append(f"safety checker: no {cascade.home / checker}; `hf download {checker}` unless the cache has it")
    return lines


def cached(source: str, path: str, revision: str) -> Path | None:
    """Where the hub's cache has a file of a repository at a revision; None where it has not."""
    try:
        found = try_to_load_from_cache(source, path, revision=revision or None)
    except ValueError:  # no hub id
        return None
    return Path(found) if isinstance(found, str) else None


def fingerprint(folder: Path) -> str:
    """A short word that changes with the weights and configurations under a folder; empty where there are none.

    Of each file its size, its first and its last mebibyte count: weights that were trained anew differ in both, and
    gigabytes are not read. The tiny models' training has its own (tiny_training/sampling.py), of every byte of the
    weights and of nothing else: they are small, and another wording of a configuration must not cost kept pictures.
    """
    mark = 0
    for path in sorted(each for each in folder.rglob("*") if each.suffix in (".safetensors", ".json")):
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            for start in (0, max(0, size - MARKED)):
                file.seek(start)
                mark = zlib.crc32(file.read(MARKED), mark)
        mark = zlib.crc32(f"{path.relative_to(folder)} {size}".encode(), mark)
    return f"{mark:08x}" if mark else ""


def drawn_by(cascade: Cascade) -> dict[str, str]:
    """What draws a cascade's pictures, by stage: its name, settings and weights, for who keeps pictures."""
    said: dict[str, str] = {}
    for stage, model in cascade.models.items():
        folder = model.folder
        weights = fingerprint(folder) if folder else model.revision
        said[stage] = f"{model.name}, {model.steps} steps, guidance {model.guidance:g}, weights {weights}"
    return said
