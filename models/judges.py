"""Who can tell whether a picture shows what its prompt asked for: of the tiny cascade, the judge of its scenes.

A cascade has one where a folder `attributes` lies beside its light model. Another cascade's pictures are judged by a
score where there is one, and else only as a set, by a Frechet distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from models.measures import Bools, Floats
from models.scene_reading import scene_of
from models.scenes import Scene, draw
from models.tiny_training import attributes
from models.tiny_training.evaluation import opine
from models.tiny_training.sampling import Pictures
from shared.catalog import Cascade
from shared.errors import SettingsError

FOLDER: Final = "attributes"


class SceneJudge:
    """Reads the attributes off pictures of captioned scenes, uint8 (n, 64, 64, 3)."""

    def __init__(self, folder: Path) -> None:
        self._network = attributes.load(folder)

    def look(self, pictures: Pictures, prompts: Sequence[str]) -> tuple[Bools, Floats]:
        """Whether each picture is all right, (n,), and its features, (n, 128); raises SettingsError for a prompt
        that is no caption of a scene.
        """
        opinion = opine(self._network, pictures, scenes_of(prompts))
        return opinion.right, opinion.features

    def real(self, prompts: Sequence[str]) -> Pictures:
        """What the prompts describe, as it should look."""
        return np.stack([draw(scene) for scene in scenes_of(prompts)])


def judge_of(cascade: Cascade) -> SceneJudge | None:
    """The cascade's judge, if it has one."""
    light = cascade.models["light"]
    folder = (light.home / light.source).parent / FOLDER
    return SceneJudge(folder) if (folder / attributes.WEIGHTS).is_file() else None


def scenes_of(prompts: Sequence[str]) -> list[Scene]:
    """The scenes that these captions describe; raises SettingsError that names the first that describes none."""
    found: list[Scene] = []
    for prompt in prompts:
        scene = scene_of(prompt)
        if scene is None:
            raise SettingsError(f"prompts: {prompt[:80]!r} is no caption of a scene, so nothing can judge its picture")
        found.append(scene)
    return found
