"""What a discriminator is trained on: real pictures, and the cascade's own light ones, or those of them that are wrong.

DiffServe found real against the cascade's own pictures best. Where single pictures can be judged, only wrong ones
count as fake: against all light ones a network learns texture and ranks no better than chance (area .46 on scenes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from models.bars import Say
from models.discriminator.drawing import captions, draw, prompt_of, prompts_in, real_scenes
from models.discriminator.examples import LEAST, Squares, files_in, squares
from models.judges import SceneJudge, judge_of
from shared.catalog import Cascade
from shared.errors import SettingsError

_REAL_SEED: Final = 10_000_019  # real scenes are of other captions than the drawn ones


@dataclass(frozen=True)
class Wanted:
    """What is asked for. `real`, `generated`: folders; `generate`: how many to draw, of `prompts`; `every`: right
    light pictures count as fake too.
    """

    real: Path | None
    generated: Path | None
    generate: int
    prompts: Path | None
    every: bool
    seed: int


@dataclass(frozen=True)
class Material:
    """Real and fake pictures, (n, side, side, 3), and what they are, in words."""

    real: Squares
    fake: Squares
    about: str


def gathered(cascade: Cascade, wanted: Wanted, side: int, work: Path, say: Say) -> Material:
    """Read and draw what is asked for; raises SettingsError before anything is drawn where something is missing."""
    judge = judge_of(cascade)
    if wanted.real is None and judge is None:
        raise SettingsError(f"--real DIR: a folder of real pictures is needed to train for {cascade.name}")
    if (wanted.generated is None) == (wanted.generate == 0):
        raise SettingsError("say either --generated DIR, a folder of light pictures, or --generate N, how many to draw")
    real = squares(files_in(wanted.real), side, work / "real.npy", say) if wanted.real else None
    paths, prompts = _light(cascade, wanted, judge, work, say)
    fake = squares(paths, side, work / "light.npy", say)
    about = f"{len(fake)} light pictures"
    if judge is not None and not wanted.every:
        fake = _wrong(judge, paths, fake, prompts)
        about = f"{len(fake)} light pictures judged wrong, of {len(paths)}"
    if real is None and judge is not None:
        real = real_scenes(cascade, judge, captions(len(paths), wanted.seed + _REAL_SEED))
    assert real is not None
    return Material(real, fake, f"{len(real)} real pictures against {about}")


def _light(
    cascade: Cascade, wanted: Wanted, judge: SceneJudge | None, work: Path, say: Say
) -> tuple[list[Path], list[str | None]]:
    if wanted.generated is not None:
        paths = files_in(wanted.generated)
        return paths, [prompt_of(path) for path in paths]
    if wanted.prompts is not None:
        listed = prompts_in(wanted.prompts)
        prompts = [listed[i % len(listed)] for i in range(wanted.generate)]
    elif judge is not None:
        prompts = captions(wanted.generate, wanted.seed)
    else:
        raise SettingsError("--prompts FILE: one prompt a line is needed to draw pictures")
    return draw(cascade, "light", prompts, work / "light", say, wanted.seed), list(prompts)


def _wrong(judge: SceneJudge, paths: Sequence[Path], pictures: Squares, prompts: Sequence[str | None]) -> Squares:
    unknown = next((path for path, prompt in zip(paths, prompts, strict=True) if prompt is None), None)
    if unknown is not None:
        raise SettingsError(f"{unknown}: does not say its prompt, so it cannot be judged; --every takes all as fake")
    right, _ = judge.look(np.array(pictures), [prompt or "" for prompt in prompts])
    if (~right).sum() < LEAST:
        raise SettingsError(f"{(~right).sum()} of {len(right)} light pictures are wrong; at least {LEAST} needed")
    return np.asarray(pictures[~right])
