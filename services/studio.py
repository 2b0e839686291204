"""One model at work: how long its batches take, how large they may be, and whether it draws at all."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from logging import Logger
from statistics import median
from typing import Final

from models.backend import Abandoned, Ahead, Backend, Drawn, OutOfMemory, Parkable, never
from services.watchdog import Watchdog
from shared.asked import alike, asked_of, objection
from shared.blocklist import blocked_phrase
from shared.broker import Broker
from shared.catalog import Cascade
from shared.config import Settings
from shared.errors import ModelError
from shared.formats import FORMAT, FORMATS, asked_format
from shared.messages import UNSAFE, Entry, Job
from shared.schema import Stage

MEMORY_PATIENCE_S: Final = 10.0
PACE_BATCHES: Final = 8  # the pace is their median: one slow batch must not make all prompts look hopeless


def scored(picture: Drawn) -> bool:
    """Whether a light picture has a score to decide by."""
    return picture.score is not None and math.isfinite(picture.score)


class Studio:
    """A worker's model and what was learnt of it; `gpu` is the type as the profiles name it."""

    def __init__(
        self,
        settings: Settings,
        stage: Stage,
        cascade: Cascade,
        backend: Backend,
        broker: Broker,
        logger: Logger,
        watchdog: Watchdog | None = None,
    ) -> None:
        self._stage = stage
        self._cascade = cascade
        self._backend = backend
        self._broker = broker
        self._logger = logger
        self._watchdog = watchdog
        self._model, self._gpu = cascade.models[stage].name, settings.gpu
        self._profiled: list[float] = []
        self._ratios: deque[float] = deque(maxlen=PACE_BATCHES)
        self._ceiling: int | None = None
        self._has_been_there = False  # on the device, where the model waits in host memory for its turn
        self._short_since: float | None = None  # the device's memory has been another's since then

    def park(self) -> None:
        """Let the device's memory go, where the model waits in host memory for its turn: another draws there now."""
        if isinstance(self._backend, Parkable) and not self._backend.parked:
            began = time.monotonic()
            self._backend.park()
            self._logger.info("parked", extra={"took_s": time.monotonic() - began})

    def unpark(self) -> bool:
        """Bring the model to its device, where it is not there; False while another still holds the memory.

        Raises ModelError where that does not end, or the model draws nothing.
        """
        if not isinstance(self._backend, Parkable) or not self._backend.parked:
            return True
        began, expected_s = time.monotonic(), self._cascade.profile(self._stage, self._gpu).swap_s or 0.0
        # The first time it is warmed up too, which may take as long as it likes: as where models stay loaded.
        watchdog = self._watchdog if self._has_been_there else None
        try:
            with watchdog.over((), expected_s, expected_s) if watchdog else nullcontext():
                self._backend.unpark()
        except OutOfMemory as wrong:  # a process that was killed gives its memory back some moments later
            self._short_since = self._short_since or began
            if began - self._short_since > MEMORY_PATIENCE_S:
                raise
            self._logger.warning("the device's memory is another's still", extra={"reason": str(wrong)[:300]})
            return False
        self._short_since, self._has_been_there = None, True
        self._logger.info("unparked", extra={"took_s": time.monotonic() - began})
        return True

    def objection(self, job: Job) -> tuple[str, str] | None:
        """Why a prompt must not be drawn, as the outcome counts it and in words; None where nothing speaks against it.

        Asked here and not at the door alone: prompts come through several doors, and some are written by hand.
        """
        if phrase := blocked_phrase(job.prompt, self._cascade.blocked):
            return UNSAFE, f"the prompt holds the blocked phrase {phrase!r}"
        if asked_format(job) is None:
            return "format", f"{FORMAT} {str(job.parameters[FORMAT])[:20]!r} is none of {', '.join(FORMATS)}"
        return objection(self._cascade, job)

    def alike(self, entries: Sequence[Entry], now: float) -> tuple[list[Entry], list[Entry]]:
        """Those that the model draws in one batch, and the rest."""
        two_batches_s = 2 * self.service_s(max(1, len(entries)))[-1]
        model = self._cascade.models[self._stage]
        return alike(entries, partial(asked_of, model), lambda job: job.deadline - now >= two_batches_s)

    def service_s(self, batch: int) -> list[float]:
        """Seconds for batches of 1 to `batch` at the measured pace."""
        pace = self._pace()
        return [seconds * pace for seconds in self._profile(batch)]

    def alone_s(self) -> float:
        """Seconds for one prompt alone at the measured pace."""
        return self.service_s(1)[0]

    def forget(self) -> None:
        """Forget the oldest batch: who draws nothing learns nothing, and a slow spell must not last for ever."""
        if self._ratios:
            self._ratios.popleft()

    def attempt(self, entries: Sequence[Entry], abandoned: Abandoned = never) -> Sequence[Drawn] | Exception:
        """The pictures, or what went wrong; handed over and not raised, so that nothing keeps the model's memory."""
        profiled_s, began = self._profile(len(entries))[-1], time.monotonic()
        slow_s = self._cascade.profile(self._stage, self._gpu).slow_s(len(entries))
        draw = self._backend.draw_ahead if isinstance(self._backend, Ahead) else self._backend.draw
        try:
            with self._watchdog.over(entries, profiled_s * self._pace(), slow_s) if self._watchdog else nullcontext():
                pictures = draw([entry.job for entry in entries], abandoned)
        except Exception as wrong:  # noqa: BLE001 (the edge: whatever a model raises ends its prompt, not the worker)
            return wrong
        if len(pictures) != len(entries):
            return ModelError(f"{len(pictures)} pictures for {len(entries)} prompts")
        if self._stage == "light" and not any(map(scored, pictures)):
            return ModelError(f"no picture has a score, the first one's is {pictures[0].score}")
        self._ratios.append((time.monotonic() - began) / profiled_s)
        return pictures

    def check(self) -> None:
        """Raise ModelError where the model draws nothing any more: then the prompt is not to blame.

        On a broken GPU prompt after prompt would fail within moments; supervisor starts the worker anew instead.
        """
        profiled_s = self._profile(1)[-1]
        try:
            with self._watchdog.over((), profiled_s, profiled_s) if self._watchdog else nullcontext():
                self._backend.warm_up([1])
        except Exception as wrong:
            raise ModelError(f"the model draws nothing any more: {wrong}") from wrong

    def learn_ceiling(self) -> None:
        """Ask how large a batch others on such a GPU found to fit."""
        self._ceiling = self._broker.ceiling(self._model, self._gpu or self._cascade.gpu)

    def lower_ceiling(self, batch: int) -> None:
        """Remember, for all on such a GPU, that no more than so many fit its memory."""
        self._ceiling = self._broker.lower_ceiling(self._model, self._gpu or self._cascade.gpu, batch)
        self._logger.warning("out of memory: smaller batches from here on", extra={"ceiling": self._ceiling})

    def capped(self, batch: int) -> int:
        """The batch, or as much of it as fits."""
        return min(batch, self._ceiling or batch)

    def _profile(self, batch: int) -> list[float]:
        """Profiled seconds for batches of 1 to `batch`."""
        while len(self._profiled) < batch:
            size = len(self._profiled) + 1
            self._profiled.append(self._cascade.service_s(self._stage, size, self._gpu))
        return self._profiled[:batch]

    def _pace(self) -> float:
        """Measured over profiled seconds of the last batches; 1 where nothing was drawn lately."""
        return median(self._ratios) if self._ratios else 1.0
