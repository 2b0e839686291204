"""What it is worth to settle a batch while the next is drawn: a real worker and encoder, a device that only takes time.

Its pictures are 512 x 512 with grain, encoded as a light worker does. The device's seconds a batch are SD-Turbo's on
an A100; it sleeps, so that the processor's cores are as free for encoding as they are beside a GPU.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import torch

from models.backend import Abandoned, Backend, Picture, Undeveloped, never
from models.encoding import Encoder, encoding_threads
from models.sleeping import SleepingBackend
from services.lease import Lease
from services.worker import Worker
from shared.broker import Broker
from shared.catalog import load_cascade
from shared.config import Settings
from shared.embedded import EmbeddedRedis
from shared.exchange import Publication
from shared.messages import Job
from shared.observer import Observer
from shared.plans import Plan, View

SIDE: Final = 512
BATCH: Final = 8
BATCHES: Final = 8
ROUNDS: Final = 5
ALLOWANCE_S: Final = 600.0
CASCADE: Final = load_cascade("sdturbo")


class Waits:
    """A device that takes its time, and an encoder in threads that is waited for before the batch is handed over."""

    stage: Final = "light"

    def __init__(self) -> None:
        self._device = SleepingBackend(CASCADE, "light", "a100-80g")
        self._encoder = Encoder("bench", encoding_threads())
        grain = torch.rand((BATCH, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1))
        self._pictures = (torch.linspace(0, 1, SIDE).expand_as(grain) * 0.9 + grain * 0.1).contiguous()

    def warm_up(self, batches: Sequence[int]) -> None:
        """Nothing to load."""

    def draw(self, jobs: Sequence[Job], abandoned: Abandoned = never) -> list[Picture]:
        """Grain, encoded."""
        return [Picture(drawn.data, drawn.score) for drawn in self._exposed(jobs, abandoned)]

    def _exposed(self, jobs: Sequence[Job], abandoned: Abandoned) -> list[Undeveloped]:
        self._device.draw(jobs, abandoned)
        return [Undeveloped(encoding, 1.0) for encoding in self._encoder.begin(self._pictures[: len(jobs)], jobs)]


class GoesOn(Waits):
    """The same, handing the batch over while it is encoded."""

    def draw_ahead(self, jobs: Sequence[Job], abandoned: Abandoned = never) -> list[Undeveloped]:
        """Grain, under way."""
        return self._exposed(jobs, abandoned)


class Spares(Waits):
    """The same without any encoding: as fast as the device."""

    def draw(self, jobs: Sequence[Job], abandoned: Abandoned = never) -> list[Picture]:
        """One byte each."""
        return [Picture(b"-", each.score) for each in self._device.draw(jobs, abandoned)]


def overlap() -> tuple[float, float]:
    """How much sooner a worker that goes on is done than one that waits; its seconds over the device's own. Medians."""
    gained, left = [], []
    for _ in range(ROUNDS):
        waits_s, goes_on_s, device_s = (_seconds(make) for make in (Waits, GoesOn, Spares))
        gained.append(waits_s / goes_on_s)
        left.append(goes_on_s / device_s)
    return median(gained), median(left)


def _seconds(make: Callable[[], Backend]) -> float:
    """From the first claim until all are settled."""
    with tempfile.TemporaryDirectory(prefix="cascade-") as folder, EmbeddedRedis(Path(folder)) as server:
        settings = Settings(redis_url=server.url, deployment="bench", node="bench", gpu="a100-80g")
        broker = Broker(settings)
        broker.check()
        plan = Plan("bench", 0.0, 1, 0, BATCH, BATCH, 1e-6, 1e-6, version=1, assignment={"bench:0": "light"})
        broker.hold(broker.keys.leader("control"), "bench")
        broker.put_plan(plan, View(0.0, (), ()), "bench")
        jobs = [Job(f"p{number}", "grain", 0.0, 0.0, seed=number) for number in range(BATCH * BATCHES)]
        broker.publish([Publication(job, ALLOWANCE_S) for job in jobs])
        logger = logging.getLogger("bench")
        lease = Lease(settings, "light", "bench-0", "grain", logger)
        lease.start()
        worker = Worker(settings, "light", CASCADE, make(), lease, logger)
        began = broker.now()
        while len(found := Observer(broker).outcomes()[0]) < len(jobs):
            worker.step()  # the last one waits for more: the time of the last outcome counts
        worker.leave()
    return max(outcome.finished for outcome in found) - began
