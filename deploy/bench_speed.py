"""What each speed switch is worth: the plain diffusers pipeline beside ours, taken in turn, at the same seeds.

Plain is diffusers' own call with the same number type and attention, no progress bar, a tensor out. Of switches that
keep the picture the table tells how far the pictures lie apart, of those that change it the Frechet distance to real
scenes beside the plain pipeline's (tiny cascade: its own judge sees the features). On a processor the clock counts
processor time, for the machine may be shared; with encoding, which runs in threads, the time of day.
"""

from __future__ import annotations

import argparse
import gc
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import numpy as np
import psutil
import torch
from torch import Tensor

from deploy.speed_cases import Plan, cases
from deploy.tables import write_csv
from models.compiled import warming_up
from models.diffusion import DiffusionBackend, choose_device, load_pipeline, plan_batches
from models.encoding import Encoder, encoding_threads
from models.scenes import caption, held_out_scenes
from models.speed import Quick, quickened
from models.switches import CHANGED, Switches, parse
from models.tiny_training.attributes import load
from models.tiny_training.data import pictures as rendered
from models.tiny_training.evaluation import distance, opine
from models.tiny_training.sampling import Pictures, as_pictures
from shared.catalog import TABLES, Cascade, load_cascade
from shared.ledger import percentile
from shared.messages import Job
from shared.model import Model
from shared.schema import STAGES, Stage

COLUMNS: Final = (
    "what", "model", "device", "switch", "until", "batch", "plain_s", "ours_s", "ratio", "psnr_db", "psnr_db_p5",
    "frechet_plain", "frechet_ours", "passed_over", "clock", "command",
)  # fmt: skip
ALIKE: Final = 120.0  # decibels, where pictures do not differ at all
SEED: Final = 20


class Speed(NamedTuple):
    """One row, by COLUMNS but for the command; figures that were not taken are empty."""

    what: str
    model: str
    device: str
    switch: str
    until: str
    batch: int
    plain_s: float
    ours_s: float
    ratio: float
    psnr_db: float | str
    psnr_db_p5: float | str
    frechet_plain: float | str
    frechet_ours: float | str
    passed_over: str
    clock: str


class Bench:
    """One model of a cascade on a device."""

    def __init__(self, cascade: Cascade, stage: Stage, gpu: str | None, plan: Plan) -> None:
        self._stage, self._plan = stage, plan
        self._model: Model = cascade.models[stage]
        self._device = choose_device(gpu or cascade.gpu)
        self._batches = sorted({1, best_batch(cascade, stage, gpu)})
        # Captions of scenes for every model: what a prompt says does not change how long it takes.
        self._scenes = held_out_scenes(max(plan.prompts, plan.pictures), SEED)
        self._plain = load_pipeline(self._model, self._device)
        self._judged = cascade.name == "tiny"
        self._plain_pictures = self._drawn(self._plain, self._plan.prompts)
        self._plain_features: Any = None

    def rows(self) -> Iterator[Speed]:
        """The switches that were chosen, one after the other: two pipelines fit a device's memory, not ten."""
        for switch in self._plan.chosen or cases():
            yield from self._measured(switch, parse(cases()[switch], self._device.type))
            gc.collect()

    def _measured(self, switch: str, switches: Switches) -> Iterator[Speed]:
        quick = quickened(load_pipeline(self._model, self._device), self._model, switches)
        if not quick.applied:
            return  # a row would compare the plain pipeline with itself
        with warming_up():
            for batch in self._batches:
                self._call(quick, batch)
        apart = self._apart(quick) if not {*quick.applied} & {*CHANGED} else ("", "")
        frechet = self._frechet(quick) if self._judged and apart == ("", "") else ("", "")
        encoded = switches.threaded_encoding
        if set(quick.applied) - {"threaded_encoding"}:
            for batch in self._batches:
                plain_s, ours_s, ratio = self._paired(
                    lambda b: self._call(self._plain, b), lambda b: self._call(quick, b), batch, self._clock()
                )
                yield self._row(switch, "tensor", batch, (plain_s, ours_s, ratio), apart, frechet, quick)
        if encoded:
            backends = self._backends(quick)
            for batch in self._batches:
                told = self._paired(*backends, batch, "time of day")
                yield self._row(switch, "webp", batch, told, apart, frechet, quick)

    def _row(
        self, switch: str, until: str, batch: int, took: tuple[float, float, float],
        apart: tuple[Any, Any], frechet: tuple[Any, Any], quick: Quick,
    ) -> Speed:  # fmt: skip
        name = self._model.name
        what = f"{name} on {self._kind()}, {switch}, batch {batch}, to {until}"
        missed = "; ".join(f"{which}: {why}" for which, why in quick.passed_over.items())
        clock = "time of day" if until == "webp" else self._clock()
        return Speed(what, name, self._kind(), switch, until, batch, *took, *apart, *frechet, missed, clock)

    def _backends(self, quick: Quick) -> tuple[Callable[[int], object], Callable[[int], object]]:
        plain = DiffusionBackend(self._model, self._stage, self._plain)
        threaded = Encoder(self._model.name, encoding_threads())
        ours = DiffusionBackend(self._model, self._stage, quick, encoder=threaded)
        return lambda batch: plain.draw(self._jobs(batch)), lambda batch: ours.draw(self._jobs(batch))

    def _paired(
        self, plain: Callable[[int], object], ours: Callable[[int], object], batch: int, clock: str
    ) -> tuple[float, float, float]:
        """Median seconds of both, taken in turn, and the median of the ratios of each pair."""
        plain(batch), ours(batch)
        pairs = [(self._timed(plain, batch, clock), self._timed(ours, batch, clock)) for _ in range(self._plan.rounds)]
        ratio = median(one / other for one, other in pairs)
        return median(one for one, _ in pairs), median(other for _, other in pairs), ratio

    def _timed(self, draw: Callable[[int], object], batch: int, clock: str) -> float:
        now = time.process_time if clock == "processor" else time.perf_counter
        self._settle()
        began = now()
        draw(batch)
        self._settle()
        return now() - began

    def _settle(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def _clock(self) -> str:
        return "time of day" if self._device.type == "cuda" else "processor"

    def _kind(self) -> str:
        if self._device.type == "cuda":
            return torch.cuda.get_device_name(self._device)
        return f"processor, one thread of {psutil.cpu_count()} cores"

    def _jobs(self, count: int, first: int = 0) -> list[Job]:
        scenes = self._scenes[first : first + count]
        return [Job(f"speed-{first + i}", caption(scene), 0.0, 0.0, seed=first + i) for i, scene in enumerate(scenes)]

    @torch.inference_mode()
    def _call(self, pipeline: Callable[..., Any], count: int, first: int = 0) -> Tensor:
        jobs = self._jobs(count, first)
        drawn: Tensor = pipeline(
            prompt=[job.prompt for job in jobs],
            generator=[torch.Generator().manual_seed(job.seed) for job in jobs],
            num_inference_steps=self._model.steps, guidance_scale=self._model.guidance,
            output_type="pt", return_dict=False,
        )[0]  # fmt: skip
        return drawn

    def _drawn(self, pipeline: Callable[..., Any], count: int) -> Tensor:
        """The first `count` prompts' pictures, (count, 3, height, width) on the host."""
        step = self._batches[-1]
        parts = [self._call(pipeline, min(step, count - first), first).cpu() for first in range(0, count, step)]
        return torch.cat(parts).float()

    def _apart(self, quick: Quick) -> tuple[float, float]:
        """Decibels between ours and the plain picture of the same seed: median and 5th percentile over the prompts."""
        errors = ((self._drawn(quick, self._plan.prompts) - self._plain_pictures) ** 2).mean((1, 2, 3)).tolist()
        decibels = sorted(min(ALIKE, -10 * math.log10(error)) if error > 0 else ALIKE for error in errors)
        return median(decibels), percentile(decibels, 5)

    def _frechet(self, quick: Quick) -> tuple[float, float]:
        """Distance to real scenes of the plain pipeline's pictures, and of ours."""
        count = self._plan.pictures
        scenes = held_out_scenes(4 * count, SEED + 1)
        judge = load(TABLES / "tiny/attributes")
        real = opine(judge, as_pictures(rendered(scenes)), scenes).features
        if self._plain_features is None:
            self._plain_features = opine(judge, self._levels(self._plain, count), self._scenes[:count]).features
        ours = opine(judge, self._levels(quick, count), self._scenes[:count]).features
        return distance(self._plain_features, real), distance(ours, real)

    def _levels(self, pipeline: Callable[..., Any], count: int) -> Pictures:
        return np.asarray((self._drawn(pipeline, count) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())


def best_batch(cascade: Cascade, stage: Stage, gpu: str | None) -> int:
    """The batch that draws most per second by the profile, of those that keep the deadline; 8 where none is known."""
    batches = plan_batches(cascade, stage, gpu)
    return max(batches, key=lambda batch: batch / cascade.service_s(stage, batch, gpu), default=8)


def speeds(given: argparse.Namespace, out: Path, command: str) -> Iterator[Speed]:
    """Measure a cascade's models into `out`, row by row; raises CascadeError."""
    cascade = load_cascade(given.cascade)
    if choose_device(given.gpu or cascade.gpu).type == "cpu":
        torch.set_num_threads(1)
    plan = Plan(given.rounds, pictures=given.pictures, chosen=tuple(given.switches))
    for stage in [given.stage] if given.stage else STAGES:
        for row in Bench(cascade, stage, given.gpu, plan).rows():
            write_csv(COLUMNS, [[_short(cell) for cell in (*row, command)]], out)
            yield row


def _short(cell: object) -> object:
    return f"{cell:.4g}" if isinstance(cell, float) else cell
