"""From drawn pictures to curves: features, what each picture is worth, and how both change with the heavy share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from analysis.quality_drawing import Wanted, path_of, scores_in
from models.bars import Say
from models.curves import Drawn, Point, Stage, distance_curves, kernel_curves, worth_curves
from models.discriminator.examples import Squares, files_in, square
from models.discriminator.scorers import Scorer
from models.features import Features
from models.judges import SceneJudge
from models.measures import Floats, frechet
from shared.errors import SettingsError
from shared.schema import STAGES
from shared.schema import Stage as StageName

AT_ONCE: Final = 64
WIDE: Final = 512  # features; a distance over more takes seconds
RESAMPLES, WIDE_RESAMPLES = 50, 10


@dataclass(frozen=True)
class Means:
    """What measures pictures. `judge`: tells right from wrong; `reward`: scores a picture with its prompt, from 0 to 1;
    `features`: of pictures, for distances, where the judge's are not meant; `real`: a folder of real pictures;
    `scorers`: further selectors, by name.
    """

    judge: SceneJudge | None
    reward: Scorer | None
    features: Features | None
    real: Path | None
    scorers: Mapping[str, Scorer]

    @property
    def worth(self) -> str:
        """What a single picture is worth, in a word; empty where nobody says."""
        return "accuracy" if self.judge else "reward" if self.reward else ""


def measured(folder: Path, prompts: Sequence[str], seeds: int, means: Means, seed: int, say: Say) -> list[Point]:
    """All curves over the pictures of a folder; raises SettingsError that names a broken or missing picture."""
    drawn = gathered(folder, prompts, seeds, means, say)
    points = worth_curves(drawn, seed)
    if drawn.real is None or drawn.light.features is None:
        return points
    resamples = RESAMPLES if drawn.real.shape[1] <= WIDE else WIDE_RESAMPLES
    return points + distance_curves(drawn, frechet, seed, resamples, say) + kernel_curves(drawn, seed)


def gathered(folder: Path, prompts: Sequence[str], seeds: int, means: Means, say: Say) -> Drawn:
    """Everything that is to be known of the drawn pictures."""
    given = scores_in(folder)
    every = [[Wanted(each, number) for number in range(len(prompts))] for each in range(seeds)]
    missing = next((one for row in every for one in row if one not in given), None)
    if missing is not None:
        raise SettingsError(f"{folder}: no score of prompt {missing.number + 1} at seed {missing.seed}: draw it again")
    selectors = {"discriminator": np.array([[given[one] for one in row] for row in every])}
    found: dict[StageName, Stage] = {}
    for stage in STAGES:
        rows = [_looked(folder, stage, row, prompts, means, say) for row in every]
        found[stage] = Stage(*(_stacked([row[place] for row in rows]) for place in (0, 1)))
        if stage == "light":
            selectors |= {name: np.stack([row[2][name] for row in rows]) for name in means.scorers}
    paired = means.real is None or means.features is None
    drawn = Drawn(selectors, found["light"], found["heavy"], _real(prompts, means, say), paired)
    return drawn if means.features else _scaled(drawn)


def _scaled(drawn: Drawn) -> Drawn:
    """Features in units of a real one's spread: the judge's have no scale that anyone knows, unlike Inception's."""
    if drawn.real is None:
        return drawn
    unit = float(np.sqrt(drawn.real.var(axis=0).mean()))
    light, heavy = (
        replace(stage, features=None if stage.features is None else stage.features / unit)
        for stage in (drawn.light, drawn.heavy)
    )
    return replace(drawn, light=light, heavy=heavy, real=drawn.real / unit)


def _looked(
    folder: Path, stage: StageName, wanted: Sequence[Wanted], prompts: Sequence[str], means: Means, say: Say
) -> tuple[Floats | None, Floats | None, dict[str, Floats]]:
    """What each picture of a stage and seed is worth, its features, and what the further scorers say of it."""
    worth: list[Floats] = []
    features: list[Floats] = []
    scores: dict[str, list[float]] = {name: [] for name in means.scorers}
    paths = [path_of(folder, stage, each) for each in wanted]
    for first, pictures in _batches(paths):
        some = prompts[first : first + len(pictures)]
        right, own = means.judge.look(pictures, some) if means.judge else (None, None)
        if right is not None:
            worth.append(right.astype(np.float64))
        elif means.reward is not None:
            worth.append(np.asarray(means.reward(_tensor(pictures).float() / 255, some)))
        if means.features is not None:
            features.append(means.features(_tensor(pictures)))
        elif own is not None:
            features.append(own)
        for name, scorer in means.scorers.items() if stage == "light" else ():
            scores[name] += scorer(_tensor(pictures).float() / 255, some)
        say(f"{stage} pictures of seed {wanted[0].seed} looked at", first + len(pictures), len(paths))
    joined = [np.concatenate(each) if each else None for each in (worth, features)]
    return joined[0], joined[1], {name: np.asarray(values) for name, values in scores.items()}


def _real(prompts: Sequence[str], means: Means, say: Say) -> Floats | None:
    """Features of real pictures: those of a folder, or of the scenes that the prompts describe."""
    found: list[Floats] = []
    if means.real is not None and means.features is not None:
        paths = files_in(means.real)
        for first, pictures in _batches(paths):
            found.append(means.features(_tensor(pictures)))
            say("real pictures looked at", first + len(pictures), len(paths))
    elif means.judge is not None:
        for first in range(0, len(prompts), AT_ONCE):
            some = prompts[first : first + AT_ONCE]
            pictures = means.judge.real(some)
            found.append(means.features(_tensor(pictures)) if means.features else means.judge.look(pictures, some)[1])
    return np.concatenate(found) if found else None


def _batches(paths: Sequence[Path]) -> Iterator[tuple[int, Squares]]:
    """The place of the first, and pictures of one size, as many at once as follow each other."""
    first = 0
    while first < len(paths):
        pictures = [square(path) for path in paths[first : first + AT_ONCE]]
        alike = next((i for i, each in enumerate(pictures) if each.shape != pictures[0].shape), len(pictures))
        yield first, np.stack(pictures[:alike])
        first += alike


def _tensor(pictures: Squares) -> torch.Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


def _stacked(rows: Sequence[Any]) -> Floats | None:
    return None if any(row is None for row in rows) else np.stack(rows)
