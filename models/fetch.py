"""Gets the weights of a model, or of a cascade's models: `python -m models.fetch --cascade NAME | --model NAME`.

Each repository at the revision that the catalogue pins, and of it what the pipeline is loaded from: safetensors,
settings, tokenizers; never a pickle. Files come into weights/<model> beside the catalogue, each under its name once
its checksum is the hub's, so that a fetch that was interrupted goes on. `--from FOLDER` takes files that were
downloaded by hand; `--list` says what there is and fetches nothing. A gated model needs a token in HF_TOKEN.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Column, Table

from models.byhand import copy_by_hand
from models.disk import GIB, check_room
from models.holdings import INDEX, RECORD, Kept, Record, holdings, needed, others_missing, read_record
from models.hub import Listing, Remote, checksum, download, listing, sha256_of, size_of
from shared.catalog import catalogs, load_model, unmeasured
from shared.errors import ModelError
from shared.model import WEIGHTS, Model
from shared.process import guarded

PARTIAL: Final = ".partial"


@dataclass(frozen=True, slots=True)
class Load:
    """What is to come from one repository into one folder; `missing`: what is not there yet as it should be."""

    name: str
    licence: str
    listed: Listing
    folder: Path
    files: Sequence[Remote]
    missing: Sequence[Remote]

    @property
    def room(self) -> Path:
        """Where the bytes of its files gather: outside of the folder, which a loader would take for a model."""
        return self.folder.parent / PARTIAL

    def partial(self, remote: Remote) -> Path:
        """Where those of one file gather, by its checksum: nothing of another revision is continued."""
        return self.room / remote.checksum


def loads_of(model: Model) -> list[Load]:
    """What of a model the hub is to give; raises ModelError before anything large is downloaded."""
    listed = listing(model.source, model.revision)
    if INDEX not in listed.files:
        raise ModelError(f"{model.source} is no diffusers pipeline: there is no {INDEX}")
    folder = model.home / WEIGHTS / model.name
    index = read_index(listed, folder.parent / PARTIAL)
    made = [_load(model.name, model.licence, listed, folder, needed(model, index, listed.files))]
    for name, part in model.parts.items():
        there = listing(part.source, part.revision)
        if part.file not in there.files:
            raise ModelError(f"{part.source} has no file {part.file} at revision {there.revision}")
        made.append(_load(f"{model.name}-{name}", "", there, model.part_folder(name), [part.file]))
    return made


def _load(name: str, licence: str, listed: Listing, folder: Path, paths: Sequence[str]) -> Load:
    files = [listed.files[path] for path in paths]
    missing = [each for each in files if not _is_there(folder / each.path, each)]
    return Load(name, licence, listed, folder, files, missing)


def _is_there(path: Path, remote: Remote) -> bool:
    # The bytes are looked at, at a gigabyte or two a second: who fetches again may do so because one of them is wrong.
    return path.is_file() and size_of(path) == remote.size and checksum(path, remote) == remote.checksum


def read_index(listed: Listing, room: Path) -> dict[str, Any]:
    """The repository's model_index.json; raises ModelError."""
    remote = listed.files[INDEX]
    partial = room / remote.checksum
    download(listed, remote, partial)
    try:
        return dict(json.loads(partial.read_text()))
    except (ValueError, TypeError) as wrong:
        raise ModelError(f"{listed.source}/{INDEX}: no JSON: {wrong}") from wrong


def fetch(models: Sequence[Model], console: Console) -> None:
    """Have the weights of the models; raises ModelError, before the first large byte where it can be known."""
    loads = [load for model in models for load in loads_of(model)]
    console.print(_table(loads))
    _check_room(loads)
    for load in loads:
        with _alone(load):
            _bring(load, console)


def _check_room(loads: Sequence[Load]) -> None:
    """Raise ModelError where the disk cannot hold what is missing: the folders of one catalogue are on one disk."""
    lack: dict[str, int] = {}
    for load in loads:
        for each in load.missing:
            if _twin(load, each) is None:
                lack[each.checksum] = each.size - size_of(load.partial(each))
    if lack:
        check_room(loads[0].folder, sum(lack.values()))


def _bring(load: Load, console: Console) -> None:
    """Fetch what is missing, file by file; the record says what is there."""
    for each in load.missing:
        target, partial = load.folder / each.path, load.partial(each)
        linked = _linked(load, each)
        if not linked:
            download(load.listed, each, partial)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(target)
        console.print(f"{load.name}: {each.path}{', the same as another model has' if linked else ''}", highlight=False)
    record = read_record(load.folder)
    for path in record.files.keys() - {each.path for each in load.files} if record is not None else ():
        # Of another revision or variant: the loader would take it for this one's.
        (load.folder / path).unlink(missing_ok=True)
    kept = {each.path: Kept(each.size, each.sha256 or sha256_of(load.folder / each.path)) for each in load.files}
    Record(load.listed.source, load.listed.revision, kept).write(load.folder)
    for each in load.files:
        load.partial(each).unlink(missing_ok=True)
    console.print(f"{load.name}: {len(load.files)} files in {load.folder}, checksums right", highlight=False)


def _twin(load: Load, remote: Remote) -> Path | None:
    """A large file of the same checksum that another model has: text encoders are shared by whole families."""
    for place in load.folder.parent.glob(f"*/{RECORD}") if remote.sha256 else ():
        record = read_record(place.parent)
        for path, kept in record.files.items() if record is not None else ():
            if kept.sha256 == remote.sha256 and size_of(place.parent / path) == remote.size:
                return place.parent / path
    return None


def _linked(load: Load, remote: Remote) -> bool:
    twin, partial = _twin(load, remote), load.partial(remote)
    if twin is None or checksum(twin, remote) != remote.checksum:
        return False
    load.room.mkdir(parents=True, exist_ok=True)
    partial.unlink(missing_ok=True)
    with suppress(OSError):  # a file system without links: then it is downloaded
        partial.hardlink_to(twin)
        return True
    return False


@contextmanager
def _alone(load: Load) -> Iterator[None]:
    """Two fetches would append to one file; raises ModelError where another is under way."""
    load.room.mkdir(parents=True, exist_ok=True)
    with (load.room / f"{load.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ModelError(f"another fetch of {load.name} is under way") from None
        yield


def _table(loads: Sequence[Load]) -> Table:
    table = Table("model", "from", "revision", "licence", "GiB", "to come")
    for load in loads:
        sizes = [sum(each.size for each in files) / GIB for files in (load.files, load.missing)]
        said = [load.licence, load.listed.licence]
        licence = " / ".join(dict.fromkeys(filter(None, said))) + (", gated" if load.listed.gated else "")
        row = (load.name, load.listed.source, load.listed.revision[:8], licence, *(f"{size:.2f}" for size in sizes))
        table.add_row(*row)
    return table


def listed_here(models: Sequence[Model]) -> Table:
    """Where each lies on this machine; nothing is asked of the hub."""
    table = Table("model", "from", "revision", "licence", Column("where", overflow="fold"))
    for model in models:
        for held in holdings(model):
            part = model.parts.get(held.name.removeprefix(f"{model.name}-"))
            revision = (part or model).revision[:8]
            where = str(held.place) if held.place else f"missing: {held.lacks}"
            table.add_row(held.name, held.source, revision, model.licence, where)
    return table


def everything() -> list[Model]:
    """Every model of the catalogues; raises SettingsError."""
    names = dict.fromkeys(name for catalog in catalogs() for name in catalog.models)
    return [load_model(name) for name in names]


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch, take or list."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = options.add_mutually_exclusive_group()
    which.add_argument("--cascade", metavar="NAME", help="both models of a row of [cascades]")
    which.add_argument("--model", metavar="NAME", help="a row of [models]")
    options.add_argument(
        "--list",
        action="store_true",
        help="say what there is on this machine, of the whole catalogue without a name; fetch nothing",
    )
    options.add_argument("--from", dest="folder", type=Path, metavar="FOLDER", help="files downloaded by hand")
    given = options.parse_args(arguments)
    console = Console()
    cascade = unmeasured(given.cascade) if given.cascade else None
    if not (given.list or cascade or given.model):
        options.error("one of the arguments --cascade --model is required")
    named = [load_model(given.model)] if given.model else everything()
    models = list(cascade.models.values()) if cascade else named
    if given.list:
        console.print(listed_here(models))
    else:
        bring(models, given.folder, console)
    for line in others_missing(cascade) if cascade else ():
        console.print(line, highlight=False)
    return 0


def bring(models: Sequence[Model], folder: Path | None, console: Console) -> None:
    """Have the weights of those that did not come with the catalogue: from a folder where one is named, or the hub."""
    for model in models:
        if not model.fetched:
            console.print(f"{model.name}: came with the catalogue, nothing to fetch", highlight=False)
    wanted = [model for model in models if model.fetched]
    if folder is None:
        fetch(wanted, console)
        return
    for model in wanted:
        copy_by_hand(model, folder, console)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    guarded(main)
