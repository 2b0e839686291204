"""A backend that draws nothing and takes the profiled time: sixteen "A100" workers run on two cores.

Its scores are the recorded ones of the cascade. It imports no numerical library.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from models.backend import Abandoned, NobodyWaits, Picture, never
from shared.cascade import recorded_score
from shared.catalog import Cascade
from shared.errors import ModelError
from shared.messages import Job
from shared.schema import Stage

STEP_S: Final = 0.25  # between two looks whether anybody still waits


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

    def draw(self, jobs: Sequence[Job], abandoned: Abandoned = never) -> list[Picture]:
        """Empty pictures after the profiled seconds of a batch this large, with recorded scores if light."""
        left_s = self._cascade.service_s(self.stage, len(jobs), self._gpu) if jobs else 0.0
        while left_s > 0:
            if abandoned():
                raise NobodyWaits
            step_s = left_s if left_s < 2 * STEP_S else STEP_S
            self._sleep(step_s)
            left_s -= step_s
        if self.stage == "heavy":
            return [Picture(b"") for _ in jobs]
        return [Picture(b"", recorded_score(self._cascade.scores, job.id, job.parameters.get("index"))) for job in jobs]


class SleepingSwapper(SleepingBackend):
    """The same for a slot whose models do not fit together: it takes the profiled seconds of a swap too."""

    parked = True

    def park(self) -> None:
        """Nothing is let go; letting go takes no time that counts."""
        self.parked = True

    def unpark(self) -> None:
        """Take the profiled seconds of a swap; raises nothing."""
        if self.parked:
            self._sleep(self._cascade.profile(self.stage, self._gpu).swap_s or 0.0)
            self.parked = False

    def draw(self, jobs: Sequence[Job], abandoned: Abandoned = never) -> list[Picture]:
        """As ever; raises ModelError while it is parked."""
        if self.parked:
            raise ModelError("the model is parked")
        return super().draw(jobs, abandoned)
