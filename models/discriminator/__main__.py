"""Trains, measures or takes over the discriminator of a cascade.

    python -m models.discriminator train --cascade NAME --real DIR (--generated DIR | --generate N --prompts FILE)
    python -m models.discriminator evaluate --cascade NAME --prompts FILE --n 500 --seeds 4
    python -m models.discriminator import FILE.pt --cascade NAME      of DiffServe, or ImageReward.pt

Where single pictures can be judged, as those of the tiny cascade, --real and --prompts may be left out: scenes are
real, their captions the prompts, and only light pictures that are wrong count as fake (unless --every).
A command that was killed goes on where it stopped when it is given again.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from models.bars import bars
from models.diffusion import choose_device
from models.discriminator.architectures import ARCHITECTURES, save
from models.discriminator.card import figures_of, write_card
from models.discriminator.drawing import captions, prompts_in
from models.discriminator.evaluating import evaluate, look
from models.discriminator.examples import files_in
from models.discriminator.importing import Preparation, take_over
from models.discriminator.material import Wanted, gathered
from models.discriminator.scorers import is_scorer, open_scorer
from models.discriminator.training import Recipe, claim, train
from models.holdings import drawn_by
from models.judges import judge_of
from models.tiny_training.publish import replace_folder
from shared.catalog import Cascade, unmeasured
from shared.errors import SettingsError
from shared.process import guarded

_SMALL = 128  # a side up to which the small network suffices


def _train(given: argparse.Namespace, console: Console) -> None:
    cascade = unmeasured(given.cascade)
    out = _free(given.out, cascade, given.real, given.generated, given.prompts, given.work)
    network = given.network or ("small" if cascade.models["light"].size <= _SMALL else "b0")
    recipe = Recipe(network, given.seed, given.steps, given.look_every, given.patience, start=given.start or "")
    wanted = Wanted(given.real, given.generated, given.generate, given.prompts, given.every, given.seed)
    work = given.work or Path("logs") / f"discriminator-{cascade.name}"
    claim(work, {**asdict(recipe), **asdict(wanted), "light": drawn_by(cascade)["light"]})
    device = _device()
    with Progress(console=console, transient=True) as shown:
        say = bars(shown)
        material = gathered(cascade, wanted, ARCHITECTURES[network].side, work, say)
        trained = train(recipe, material.real, material.fake, work, device, say)
    figures = figures_of(trained, recipe, material.about)
    with tempfile.TemporaryDirectory() as draft:
        folder = Path(draft) / "discriminator"
        side = ARCHITECTURES[network].side
        save(trained.network.cpu(), folder, side, round(trained.temperature, 6), {})
        write_card(folder, cascade.name, _command(), figures)
        open_scorer(folder, torch.device("cpu"))  # what cannot be loaded must not stand where workers look
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_folder(folder, out)
    area, low, high = figures["test"]["area"]
    console.print(f"{material.about}; area {area:.3f} ({low:.3f} to {high:.3f}), best at step {trained.step}")
    console.print(f"written: {out}", soft_wrap=True, highlight=False)


def _evaluate(given: argparse.Namespace, console: Console) -> None:
    cascade = unmeasured(given.cascade)
    judge = judge_of(cascade)
    if judge is None and (given.prompts is None or given.real is None):
        raise SettingsError(f"--prompts FILE and --real DIR are needed for {cascade.name}")
    prompts = prompts_in(given.prompts) if given.prompts else captions(given.n, given.seed + 1)
    real = files_in(given.real) if given.real else []
    scorer = open_scorer(given.scorer or cascade.home / cascade.discriminator, _device())
    out = given.out or Path("logs") / f"discriminator-{cascade.name}-evaluation"
    claim(out, {"prompts": prompts[: given.n], "cascade": cascade.name, **drawn_by(cascade)})
    with Progress(console=console, transient=True) as shown:
        looked = look(cascade, scorer, prompts[: given.n], given.seeds, real, out, bars(shown), judge)
    for name, value in evaluate(looked, out, given.seed).items():
        console.print(f"{name}: {value}", highlight=False, soft_wrap=True)
    console.print(f"tables and figures: {out}", highlight=False, soft_wrap=True)


def _import(given: argparse.Namespace, console: Console) -> None:
    out = _free(given.out, unmeasured(given.cascade) if given.cascade else None, given.file, given.vocabulary)
    spread, mean = ((value,) * 3 if len(value) == 1 else tuple(value) for value in (given.spread, given.mean))
    parameters = take_over(given.file, out, Preparation(given.side, mean, spread), given.vocabulary)
    console.print(f"{parameters:,} parameters of {given.file} written to {out} as safetensors", soft_wrap=True)


def _free(out: Path | None, cascade: Cascade | None, *read: Path | None) -> Path:
    """Where to write to: the folder named, whose content goes, or the catalogue's, if nothing is there.

    `read`: what must not go with it. Raises SettingsError.
    """
    if out is not None:
        _check_replaceable(out, [path for path in read if path is not None])
        return out
    if cascade is None:
        raise SettingsError("say where to: --cascade NAME, or --out DIR")
    place = cascade.home / cascade.discriminator
    if place.exists():
        raise SettingsError(f"{place} holds a discriminator already: name it with --out to replace it")
    return place


def _check_replaceable(out: Path, read: Sequence[Path]) -> None:
    """Raise SettingsError where replacing the folder would delete what nobody means to lose."""
    held = next((path for path in read if path.resolve().is_relative_to(out.resolve())), None)
    if held is not None:
        raise SettingsError(f"{out} holds {held}, which would be deleted with it: name another folder with --out")
    if out.exists() and not out.is_dir():
        raise SettingsError(f"{out} is no folder: name one with --out")
    if out.is_dir() and any(out.iterdir()) and not is_scorer(out):
        raise SettingsError(f"{out} holds other things than a discriminator, all would be deleted: name another --out")


def _device() -> torch.device:
    device = choose_device(None)
    if device.type == "cpu":
        torch.set_num_threads(1)
    return device


def _command() -> str:
    return f"python -m models.discriminator {shlex.join(sys.argv[1:])}"


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m models.discriminator", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = made.add_subparsers(required=True, metavar="train | evaluate | import")
    for name, act in (("train", _train), ("evaluate", _evaluate), ("import", _import)):
        each = commands.add_parser(name)
        each.set_defaults(act=act)
        each.add_argument("--cascade", required=name != "import", help="a row of [cascades] in models/catalog.toml")
        each.add_argument("--out", type=Path, help="folder to write to; default: where the catalogue looks for it")
        _OPTIONS[name](each)
    return made


def _train_options(each: argparse.ArgumentParser) -> None:
    _picture_options(each)
    each.add_argument("--generated", type=Path, help="folder of light pictures")
    each.add_argument("--generate", type=int, default=0, help="how many light pictures to draw instead")
    each.add_argument("--every", action="store_true", help="all light pictures count as fake, not only wrong ones")
    each.add_argument("--network", choices=list(ARCHITECTURES), help="default: small up to 128 pixels, else b0")
    each.add_argument("--start", help="folder with weights of the same network to begin from")
    each.add_argument("--steps", type=int, default=Recipe.steps, help="at most so many")
    each.add_argument("--look-every", type=int, default=Recipe.look_every, help="steps between two held-out losses")
    each.add_argument("--patience", type=int, default=Recipe.patience, help="looks without a better one before it ends")
    each.add_argument("--work", type=Path, help="folder of checkpoints; default: logs/discriminator-<cascade>")


def _evaluate_options(each: argparse.ArgumentParser) -> None:
    _picture_options(each)
    each.add_argument("--n", type=int, default=500, help="prompts to draw")
    each.add_argument("--seeds", type=int, default=2, help="pictures a prompt, each from a seed of its own")
    each.add_argument("--scorer", type=Path, help="folder of the discriminator; default: the cascade's")


def _import_options(each: argparse.ArgumentParser) -> None:
    usual = Preparation()
    each.add_argument("file", type=Path, help="ImageReward.pt, or an EfficientNet-V2-S: state dict or whole module")
    each.add_argument("--vocabulary", type=Path, help="vocab.txt of bert-base-uncased; default: beside ImageReward.pt")
    each.add_argument("--side", type=int, default=usual.side, help="pixels a side that it was trained on")
    each.add_argument("--mean", type=float, nargs="+", default=list(usual.mean), help="default: the artifact's")
    each.add_argument("--spread", type=float, nargs="+", default=list(usual.spread), help="default: the artifact's")


def _picture_options(each: argparse.ArgumentParser) -> None:
    each.add_argument("--real", type=Path, help="folder of real pictures")
    each.add_argument("--prompts", type=Path, help="file with one prompt a line")
    each.add_argument("--seed", type=int, default=0)


_OPTIONS = {"train": _train_options, "evaluate": _evaluate_options, "import": _import_options}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the commands."""
    given = _parser().parse_args(arguments)
    given.act(given, Console())
    return 0


if __name__ == "__main__":
    guarded(main)
