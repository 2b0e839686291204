"""A backend for trying what faults do: it sleeps as `sleeping` does, and does to itself what a prompt asks for.

A prompt's parameter `fault` is one of

    raise        drawing raises
    hang         drawing never returns
    kill         the process is killed, as by the kernel
    nan          the score is no number (light stage)
    short        one picture is missing
    unsafe       the safety checker flags the picture
    broken       drawing raises, and from then on every drawing of this process does: a broken GPU

and `room`, a number: a batch with more prompts than that does not fit the memory. `stage` names the stage that
the fault befalls, both where it is missing. `after_s`: seconds of drawing before it does.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from models.backend import Abandoned, OutOfMemory, Picture, never
from models.sleeping import SleepingBackend
from shared.catalog import Cascade
from shared.errors import ModelError
from shared.messages import Job
from shared.schema import Stage

FOREVER_S: Final = 3600.0


class FaultyBackend:
    """Sleeps as the profile says, with the faults that its prompts ask for."""

    def __init__(self, cascade: Cascade, stage: Stage, gpu: str | None = None) -> None:
        self.stage = stage
        self._sleeping = SleepingBackend(cascade, stage, gpu)
        self._broken = False

    def warm_up(self, batches: Sequence[int]) -> None:
        """Raise ModelError once this process is broken."""
        for batch in batches:
            self.draw([Job(f"warm-up-{i}", "a warm-up", 0.0, 0.0) for i in range(batch)])

    def draw(self, jobs: Sequence[Job], abandoned: Abandoned = never) -> list[Picture]:
        """Empty pictures after the profiled seconds, unless a fault befalls them; raises ModelError, OutOfMemory."""
        faulty = [job for job in jobs if job.parameters.get("stage", self.stage) == self.stage]
        for job in faulty:
            self._befall(job, len(jobs))
        if self._broken:
            raise ModelError("the device is broken")
        pictures = self._sleeping.draw(jobs, abandoned)
        unsound = {job.id for job in faulty if job.parameters.get("fault") == "nan" and self.stage == "light"}
        flagged = {job.id for job in faulty if job.parameters.get("fault") == "unsafe"}
        short = sum(job.parameters.get("fault") == "short" for job in faulty)
        kept = pictures[: len(pictures) - short]
        return [
            replace(picture, score=math.nan if job.id in unsound else picture.score, flagged=job.id in flagged)
            for job, picture in zip(jobs, kept, strict=False)
        ]

    def _befall(self, job: Job, batch: int) -> None:
        room = job.parameters.get("room")
        if isinstance(room, int) and batch > room:
            raise OutOfMemory(f"no memory for a batch of {batch}")
        fault = job.parameters.get("fault")
        if fault is not None:
            time.sleep(float(job.parameters.get("after_s", 0.0)))
        if fault == "hang":
            time.sleep(FOREVER_S)
        elif fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault == "raise":
            raise ModelError(f"{job.id} can't be drawn")
        elif fault == "broken":
            self._broken = True
