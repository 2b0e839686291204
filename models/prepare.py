"""Gets what a cascade needs into models/ and datasets/: `python -m models.prepare --cascade sdturbo|sdxs|sdxlltn|all`.

    weights ──> discriminator ──> prompts, traces and scores ──> real pictures ──> a table: what is there, what to do

What is there already is left alone, so that it can be run again; one thing that cannot be had does not keep the others
from coming. `--from` names a folder of weights downloaded by hand, `--discriminator` a checkpoint that the authors
publish or a folder of ours, `--reference` a folder of real pictures, or COCO's val2017.zip.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from models.disk import copy_files
from models.fetch import bring
from models.holdings import files_in, holdings
from models.references import COCO, REFERENCES, pictures_in, take_pictures
from shared.catalog import Cascade, unmeasured
from shared.errors import CascadeError
from shared.model import Model
from shared.process import guarded
from shared.scores import FETCHED, PUBLISHED_SCORES

SCORED: Final = ("sdturbo", "sdxs")  # sdxlltn's file in the artifact is a copy of another's
PUBLISHED: Final = ("sdturbo", "sdxs", "sdxlltn")
ROOT: Final = Path(__file__).resolve().parent.parent
ENOUGH: Final = 1000  # pictures: a Frechet distance over fewer is mostly noise
DIFFSERVE: Final = "github.com/qizhengyang98/DiffServe at 7f2e4d7 (no licence file was found there)"


class Item(NamedTuple):
    """One line of the table: `place` is None where it is missing, and then `words` say what to do."""

    cascade: str
    what: str
    place: Path | None
    words: str


def prepare(names: Sequence[str], given: argparse.Namespace, console: Console) -> list[Item]:
    """Get all that can be had; the table's lines, and what went wrong in them."""
    cascades = [unmeasured(name) for name in names]
    said = {model.name: _weights(model, given.folder, console) for each in cascades for model in each.models.values()}
    items: list[Item] = []
    for cascade in cascades:
        for model in cascade.models.values():
            items += [
                Item(cascade.name, held.name, held.place, model.licence if held.place else said[model.name])
                for held in holdings(model)
            ]
        items.append(discriminator_of(cascade, given.discriminator if len(cascades) == 1 else None))
    console.rule("prompts, traces and scores")
    fetch_traces()
    return [*items, *of_traces(names), of_pictures(given.reference)]


def fetch_traces() -> None:
    """Get what the artifact publishes; the command says itself what it cannot have."""
    subprocess.run([sys.executable, "-m", "traces.fetch"], cwd=ROOT, check=False)


def _weights(model: Model, folder: Path | None, console: Console) -> str:
    """Get the model's weights where something is lacking; what went wrong, in a line."""
    if all(held.place for held in holdings(model)):
        return ""
    console.rule(model.name)
    return _tried(lambda: bring([model], folder, console))


def _tried(act: Callable[[], object]) -> str:
    """What went wrong, in a line; "" where nothing did."""
    try:
        act()
    except CascadeError as wrong:
        return str(wrong)
    return ""


def discriminator_of(cascade: Cascade, given: Path | None) -> Item:
    """The cascade's discriminator, taken from a folder or imported from a checkpoint where one is given."""
    folder = cascade.home / cascade.discriminator
    said = ""
    if given is not None and given.is_dir():
        said = _tried(lambda: copy_files(given, folder, files_in(given)))
    elif given is not None:
        said = _imported(given, cascade.name)
    if any(folder.glob("*.safetensors")):
        return Item(cascade.name, "discriminator", folder, said)
    how = "name a checkpoint or a folder with --discriminator, or train one: python -m models.discriminator train"
    return Item(cascade.name, "discriminator", None, said or f"{how} --cascade {cascade.name} (into {folder})")


def _imported(file: Path, cascade: str) -> str:
    """Have the checkpoint as safetensors; what went wrong, in a line."""
    if not file.is_file():
        return f"there is no {file}"
    if not (ROOT / "models" / "discriminator" / "__main__.py").is_file():
        return f"this version imports no checkpoints: put config.json and model.safetensors in its place, not {file}"
    command = [sys.executable, "-m", "models.discriminator", "import", str(file), "--cascade", cascade]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return "" if ended.returncode == 0 else (ended.stderr.strip().splitlines() or [f"{file} was not imported"])[-1]


def of_traces(names: Sequence[str]) -> Iterator[Item]:
    """What the artifact publishes, as far as it is here; where it is not, made ones stand in."""
    for what, path in (("prompts", "prompts_diffusiondb_5k.txt"), ("traces", "traces/trace_4to32qps.txt")):
        yield _fetched("all", what, path)
    for name in names:
        if name in SCORED:
            yield _fetched(name, "scores", f"{PUBLISHED_SCORES}{name}.csv")


def _fetched(cascade: str, what: str, path: str) -> Item:
    folders = [Path(folder) / "diffserve" for folder in (os.environ.get("CASCADE_DATA", ""),) if folder]
    place = next((each / path for each in [*folders, FETCHED / "diffserve"] if (each / path).is_file()), None)
    missing = "made ones stand in; `python -m traces.fetch` says why"
    return Item(cascade, what, place, DIFFSERVE if place else missing)


def of_pictures(given: Path | None) -> Item:
    """The real pictures, taken from where they are given."""
    said = _tried(lambda: take_pictures(given)) if given is not None else ""
    folders = sorted(REFERENCES.glob("*/")) if REFERENCES.is_dir() else []
    found = max(folders, key=lambda folder: len(pictures_in(folder)), default=None)
    if said or found is None or not pictures_in(found):
        how = f"download {COCO.url} ({COCO.size / 2**20:.0f} MiB; {COCO.licence}) and name it, or a folder of your own"
        return Item("all", "real pictures", None, said or f"{how}, with --reference")
    count = len(pictures_in(found))
    few = f"; fewer than {ENOUGH}: distances will be noisy" if count < ENOUGH else ""
    return Item("all", "real pictures", found, f"{count} pictures{few}")


def table_of(items: Sequence[Item]) -> Table:
    """What is there, what is missing, and what to do."""
    table = Table("cascade", "what", "", Column("where, licence; or what to do", overflow="fold"))
    for item in items:
        state = Text("there", "green") if item.place else Text("missing", "bold red")
        words = " · ".join(filter(None, (str(item.place or ""), item.words)))
        table.add_row(item.cascade, item.what, state, Text(words))
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare; 1 where something is missing at the end."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--cascade", required=True, metavar="NAME", help=f"{', '.join(PUBLISHED)} or another, or all")
    options.add_argument("--from", dest="folder", type=Path, metavar="FOLDER", help="weights downloaded by hand")
    options.add_argument("--discriminator", type=Path, metavar="FILE", help="a checkpoint, or a folder; of one cascade")
    options.add_argument("--reference", type=Path, metavar="FOLDER", help="real pictures, or val2017.zip")
    given = options.parse_args(arguments)
    console = Console()
    items = prepare(PUBLISHED if given.cascade == "all" else [given.cascade], given, console)
    console.print(table_of(items))
    return int(any(item.place is None for item in items))


if __name__ == "__main__":
    guarded(main)
