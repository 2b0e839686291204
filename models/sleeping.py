"""A backend that draws nothing and takes the profiled time: sixteen "A100" workers run on two cores.

Its scores are the recorded ones of the cascade. It imports no numerical library.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from models.backend import Picture
from shared.cascade import recorded_score
from shared.catalog import Cascade
from shared.messages import Job
from shared.schema import Stage


class SleepingBackend:
    """Takes the time of the stage's profile on a GPU type; raises SettingsError if there is no profile."""

    def __init__(
        self, cascade: Cascade, stage: Stage, gpu: str | None = None, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        cascade.profile(stage, gpu)
        self.stage = stage
        self._cascade = cascade
        self._gpu = gpu
        self._sleep = sleep

    def warm_up(self, batches: Sequence[int]) -> None:
        """Nothing is loaded, nothing is warmed."""

    def draw(self, jobs: Sequence[Job]) -> list[Picture]:
        """Empty pictures after the profiled seconds of a batch this large, with recorded scores if light."""
        if jobs:
            self._sleep(self._cascade.service_s(self.stage, len(jobs), self._gpu))
        if self.stage == "heavy":
            return [Picture(b"") for _ in jobs]
        return [Picture(b"", recorded_score(self._cascade.scores, job.id, job.parameters.get("index"))) for job in jobs]
