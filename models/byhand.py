"""Takes weights that somebody downloaded by hand, as a clone of the repository or in the layout of weights/."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from safetensors import SafetensorError, safe_open

from models.disk import copy_files
from models.holdings import INDEX, Kept, Record, files_in, needed, read_record
from models.hub import sha256_of
from shared.errors import ModelError
from shared.model import WEIGHTS, Model

# Where `hf download --local-dir` notes the commit and the checksum of each file.
_NOTES = Path(".cache") / "huggingface" / "download"


def copy_by_hand(model: Model, folder: Path, console: Console) -> None:
    """Copy the files that the row needs from below `folder` into weights/; raises ModelError, before anything is
    copied where something is missing or spoilt.
    """
    if not folder.is_dir():
        raise ModelError(f"--from: there is no folder {folder}")
    whole = _find(model.source, model.name, INDEX, folder)
    try:
        index = json.loads((whole / INDEX).read_text())
    except (OSError, ValueError) as wrong:
        raise ModelError(f"{whole / INDEX}: {wrong}") from wrong
    jobs = [(whole, model.home / WEIGHTS / model.name, needed(model, index, files_in(whole)), model.source)]
    for name, part in model.parts.items():
        there = _find(part.source, f"{model.name}-{name}", part.file, folder)
        jobs.append((there, model.part_folder(name), [part.file], part.source))
    revisions = [model.revision, *(part.revision for part in model.parts.values())]
    checked = [_checked(place, paths, rev) for (place, _, paths, _), rev in zip(jobs, revisions, strict=True)]
    for (place, target, _, source), kept, revision in zip(jobs, checked, revisions, strict=True):
        copy_files(place, target, list(kept))
        Record(source, revision, kept).write(target)
        console.print(f"{target.name}: {len(kept)} files of {place} copied to {target}", highlight=False)


def _find(source: str, name: str, file: str, folder: Path) -> Path:
    """The folder at or below the one given that holds the file; raises ModelError."""
    places = [folder / name, folder / source.rpartition("/")[2], folder / source, folder]
    for place in places:
        if (place / file).is_file():
            return place
    raise ModelError(f"--from: no {file} of {source} in {', '.join(str(place) for place in places)}")


def _checked(place: Path, paths: list[str], revision: str) -> dict[str, Kept]:
    """Size and checksum of each file, held against what came with it: a record of ours, or the hub's own notes."""
    record = read_record(place)
    kept: dict[str, Kept] = {}
    for path in paths:
        file = place / path
        if path.endswith(".safetensors"):
            _look_into(file)
        kept[path] = Kept(file.stat().st_size, sha256_of(file))
        told = record.files.get(path) if record is not None else None
        for checksum in [*([told.sha256] if told else []), *_noted(place, path, revision)]:
            if checksum != kept[path].sha256:
                raise ModelError(
                    f"{file}: SHA-256 {kept[path].sha256[:12]}..., not {checksum[:12]}...; download it again"
                )
    return kept


def _noted(place: Path, path: str, revision: str) -> Iterator[str]:
    """The SHA-256 that the hub's downloader noted; raises ModelError where it noted another revision."""
    note = place / _NOTES / f"{path}.metadata"
    lines = note.read_text().split() if note.is_file() else []
    if not lines:
        return
    if revision and lines[0] != revision:
        raise ModelError(f"{place / path} is of revision {lines[0][:8]}, not of {revision[:8]} that the catalogue pins")
    if len(lines) > 1 and len(lines[1]) == 64:
        yield lines[1]


def _look_into(file: Path) -> None:
    try:
        with safe_open(file, framework="numpy") as tensors:
            tensors.keys()
    except (SafetensorError, OSError) as wrong:
        raise ModelError(f"{file}: no safetensors file, or a cut one: {wrong}") from wrong
