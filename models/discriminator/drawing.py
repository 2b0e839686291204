"""Pictures of a cascade's own, drawn on this machine, one file each: what is there already is not drawn again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from models.bars import Say
from models.diffusion import DiffusionBackend, choose_device, load_pipeline
from models.discriminator.examples import Squares
from models.judges import SceneJudge
from models.scenes import caption
from models.tiny_training.data import generator, latents, training_scenes
from models.tiny_training.sampling import as_pictures, as_tensor
from shared.catalog import Cascade
from shared.errors import SettingsError
from shared.files import write_bytes
from shared.messages import Job
from shared.schema import Stage
from shared.wire import check_prompt

AT_ONCE: Final = 8
_DESCRIPTION: Final = 0x010E  # the EXIF tag in which the encoder writes prompt and seed


def draw(
    cascade: Cascade,
    stage: Stage,
    prompts: Sequence[str],
    folder: Path,
    say: Say,
    seed: int = 0,
) -> list[Path]:
    """A picture a prompt by the stage's model, prompt i from seed + i; raises ModelError, OSError that names a file."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{seed + number:08d}.webp" for number in range(len(prompts))]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    if missing:
        model = cascade.models[stage]
        backend = DiffusionBackend(model, stage, load_pipeline(model, choose_device(None)))
        for first in range(0, len(missing), AT_ONCE):
            some = missing[first : first + AT_ONCE]
            jobs = [Job(f"{stage}-{seed + i}", prompts[i], 0.0, 0.0, seed=seed + i) for i in some]
            for i, picture in zip(some, backend.draw(jobs), strict=True):
                write_bytes(paths[i], picture.data)
            say(f"{stage} pictures drawn", len(paths) - len(missing) + first + len(some), len(paths))
    return paths


def prompts_in(path: Path) -> list[str]:
    """The prompts of a file, one a line; raises SettingsError that names file and line."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as wrong:
        raise SettingsError(f"{path}: {wrong}") from None
    found = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    for number, prompt in found:
        try:
            check_prompt(prompt)
        except ValueError as wrong:
            raise SettingsError(f"{path}:{number}: {wrong}") from None
    if not found:
        raise SettingsError(f"{path}: no prompt in it")
    return [prompt for _, prompt in found]


def captions(count: int, seed: int) -> list[str]:
    """Captions of training scenes, for a cascade that draws those."""
    return [caption(scene) for scene in training_scenes(generator(seed, "captions to draw", 0), count)]


def prompt_of(path: Path) -> str | None:
    """The prompt that a picture of ours says it was drawn for; None where it says none."""
    try:
        with Image.open(path) as picture:
            said: Any = json.loads(picture.getexif()[_DESCRIPTION])
        return str(said["prompt"])
    except (OSError, KeyError, ValueError, TypeError):
        return None


def real_scenes(cascade: Cascade, judge: SceneJudge, prompts: Sequence[str]) -> Squares:
    """Scenes of these captions as the light model's decoder draws them.

    Beside undecoded ones a network learns the decoder's traces, and not what is wrong with a drawn picture.
    """
    decoder = load_pipeline(cascade.models["light"], torch.device("cpu")).vae  # type: ignore[attr-defined]
    with torch.inference_mode():
        drawn = [
            as_pictures(decoder.decode(latents(as_tensor(judge.real(prompts[first : first + 100])))).sample)
            for first in range(0, len(prompts), 100)
        ]
    return np.concatenate(drawn)
