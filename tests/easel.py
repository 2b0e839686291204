"""A worker whose model is played by a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from models.backend import Abandoned, Picture, never
from services.lease import Lease
from services.worker import Worker
from shared.broker import Broker
from shared.catalog import load_cascade
from shared.messages import Job
from shared.schema import Stage
from tests.helpers import a_plan, logger, put_plan

CASCADE = load_cascade("tiny")


class Easel:
    """A model that does what the test says with each batch; `batches` remembers their ids."""

    def __init__(self, stage: Stage, paint: Callable[[Job], Picture] = lambda _: Picture(b"webp", 0.9)) -> None:
        self.stage = stage
        self.paint = paint
        self.before: Callable[[], object] = lambda: None
        self.batches: list[list[str]] = []

    def warm_up(self, batches: Sequence[int]) -> None:
        """Nothing to warm."""

    def draw(self, jobs: Sequence[Job], _abandoned: Abandoned = never) -> list[Picture]:
        self.batches.append([job.id for job in jobs])
        self.before()
        return [self.paint(job) for job in jobs]


@contextmanager
def working(broker: Broker, easel: Easel) -> Iterator[Worker]:
    settings = broker.settings.model_copy(update={"deadline_s": None})
    name = f"test-0-{easel.stage}-1"
    lease = Lease(settings, easel.stage, name, CASCADE.models[easel.stage].name, logger)
    lease.start()
    worker = Worker(settings, easel.stage, CASCADE, easel, lease, logger)
    yield worker
    worker.leave()


def plan_for(broker: Broker, stage: Stage = "light", version: int = 1) -> None:
    plan = a_plan(version=version, light_service_s=0.001, heavy_service_s=0.001, assignment={"test:0": stage})
    put_plan(broker, replace(plan, threshold=0.5))


def poison(prompt_id: str) -> Callable[[Job], Picture]:
    def paint(job: Job) -> Picture:
        if job.id == prompt_id:
            raise ValueError("too ugly")
        return Picture(b"webp", 0.9)

    return paint
