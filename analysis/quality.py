"""Measures the quality curve of a cascade, drawing every picture through the pipeline.

    python -m analysis.quality --cascade tiny --n 500 --seeds 3 --redis-url redis://...   where workers run already
    python -m deploy.quality --cascade sdturbo --prompts FILE --n 5000 --slots 8           starts them on this machine

Each prompt is drawn by both models at each seed, once; then FID and KID (where features are at hand), and what single
pictures are worth (where they are judged or scored), are computed at heavy shares of 0, .1, ... 1 for the
discriminator, for a random control and for an oracle. The run's folder, logs/quality-<cascade>/, holds the pictures,
the curve that the planner reads (<cascade>.csv), quality.md and the figure; with --adopt the curve also replaces
models/quality/<cascade>.csv. Given again, a command that was killed goes on where it stopped.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from rich.console import Console
from rich.progress import Progress

from analysis.quality_drawing import Commission
from analysis.quality_measuring import Means, measured
from analysis.quality_report import About, write_report
from models.bars import Say, bars
from models.diffusion import choose_device
from models.discriminator import open_scorer
from models.discriminator.drawing import prompts_in
from models.discriminator.training import claim
from models.features import INCEPTION, features_from
from models.holdings import drawn_by, fingerprint
from models.judges import judge_of, scenes_of
from models.scenes import caption, held_out_scenes
from shared.broker import Broker
from shared.catalog import Cascade, unmeasured
from shared.config import load, parser
from shared.errors import SettingsError
from shared.files import write_text
from shared.process import guarded
from shared.schema import STAGES

NAMES: Final = ("redis_url", "deployment", "cascade")


def add_options(made: argparse.ArgumentParser) -> None:
    """What is to be measured, and how."""
    made.add_argument("--prompts", type=Path, help="file with one prompt a line; default: captions of scenes (tiny)")
    made.add_argument("--n", type=int, default=5000, help="so many of the prompts (default: 5000)")
    made.add_argument("--seeds", type=int, default=1, help="pictures a prompt and model, each from a seed of its own")
    made.add_argument("--real", type=Path, help="folder of real pictures, for FID and KID")
    made.add_argument("--features", type=Path, help=f"TorchScript Inception or CLIP folder; default: {INCEPTION}")
    made.add_argument("--reward", type=Path, help="folder of a scorer that says what a picture is worth")
    made.add_argument("--scorer", action="append", default=[], metavar="NAME=DIR", help="a further selector")
    made.add_argument("--out", type=Path, help="folder of the run; default: logs/quality-<cascade>")
    made.add_argument("--seed", type=int, default=0, help="of resamples and lots")
    made.add_argument("--adopt", action="store_true", help="let the planner use the curve from here on")


class Inquiry:
    """One quality run: its prompts, its folder, and what measures pictures. Raises what reading those raises."""

    def __init__(self, cascade: Cascade, given: argparse.Namespace) -> None:
        self.cascade, self._given = cascade, given
        self.folder: Path = given.out or Path("logs") / f"quality-{cascade.name}"
        self.prompts = self._prompts()
        self._means = self._opened()
        judge = fingerprint(cascade.home / cascade.discriminator)
        asked = {"cascade": cascade.name, "prompts": self.prompts, **drawn_by(cascade), "discriminator": judge}
        claim(self.folder, asked)

    def draw(self, broker: Broker, say: Say) -> None:
        """Let the pipeline draw what is missing, first light, then heavy."""
        for stage in STAGES:
            Commission(broker, stage, self.prompts, self._given.seeds, self.folder).draw(say)

    def measure(self, say: Say) -> str:
        """Measure, write everything, and return the page."""
        seeds = self._given.seeds
        points = measured(self.folder, self.prompts, seeds, self._means, self._given.seed, say)
        page = write_report(points, self._about(), self.folder)
        if self._given.adopt:
            name = f"{self.cascade.name}.csv"
            write_text(self.cascade.home / "quality" / name, (self.folder / name).read_text())
        return page

    def _prompts(self) -> list[str]:
        judge = judge_of(self.cascade)
        if self._given.prompts is None and judge is None:
            raise SettingsError("--prompts FILE: one prompt a line is needed")
        if self._given.prompts is None:
            return [caption(scene) for scene in held_out_scenes(self._given.n, seed=0)]
        found = prompts_in(self._given.prompts)[: self._given.n]
        if judge is not None:
            scenes_of(found)
        return found

    def _opened(self) -> Means:
        given, device = self._given, choose_device(None)
        usual = self.cascade.home / "weights" / INCEPTION
        place = given.features or (usual if usual.is_file() and given.real else None)
        named = [each.partition("=") for each in given.scorer]
        if wrong := next((name for name, _, folder in named if not folder), None):
            raise SettingsError(f"--scorer {wrong}: say NAME=DIR")
        return Means(
            judge_of(self.cascade),
            open_scorer(given.reward, device) if given.reward else None,
            features_from(place, device) if place else None,
            given.real,
            {name: open_scorer(Path(folder), device) for name, _, folder in named},
        )

    def _about(self) -> About:
        means, given = self._means, self._given
        own = "the judge's" if means.judge else "none at hand"
        features = str(given.features or INCEPTION) if means.features else own
        command = f"python -m {Path(sys.argv[0]).parent.name}.quality {shlex.join(sys.argv[1:])}"
        return About(self.cascade.name, command, len(self.prompts), given.seeds, means.worth, features)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw on the workers of a running deployment, and measure."""
    options = parser(__doc__ or "", NAMES)
    add_options(options)
    given = options.parse_args(arguments)
    settings = load(given)
    console = Console()
    torch.set_num_threads(1)
    inquiry = Inquiry(unmeasured(settings.cascade), given)
    with Progress(console=console, transient=True) as shown:
        say = bars(shown)
        inquiry.draw(Broker(settings), say)
        page = inquiry.measure(say)
    console.print(page, markup=False, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    guarded(main)
