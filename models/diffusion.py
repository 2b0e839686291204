"""Draws with diffusers: load a pipeline, draw a batch, score it if light, encode it.

    jobs ──> pipeline ──> (n, 3, height, width) in [0, 1] ──> discriminator (light), safety checker
                      └──> WebP or PNG, meanwhile and in other threads

Any pipeline class works that takes prompts, generators, steps and guidance: the row in models/catalog.toml
and the folder's own model_index.json say the rest. What makes it faster stands in models/speed.py.
"""

from __future__ import annotations

import inspect
import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from models.backend import Abandoned, Drawn, NobodyWaits, OutOfMemory, Picture, Undeveloped, never
from models.compiled import warming_up
from models.discriminator import open_scorer
from models.encoding import Encoder, encoding_threads
from models.libraries import WEIGHTS_WRONG, modules_of, pipeline_of
from models.memory import refuse_what_does_not_fit
from models.random_weights import random_discriminator, random_pipeline
from models.safety import SafetyChecker
from models.speed import STEP_ENDED, keep_wide, quickened
from models.switches import switches_of
from shared.asked import Asked, asked_of
from shared.catalog import Cascade
from shared.errors import ModelError
from shared.messages import Job
from shared.model import VISIBLE, Model, on_processor
from shared.schema import Stage
from shared.sizes import measures

# A diffusers pipeline: prompts, generators and settings in, (pictures, ...) out.
Pipeline = Callable[..., Any]
Scorer = Callable[[Tensor, Sequence[str]], list[float]]  # pictures and their prompts in, P(real) out
Checker = Callable[[Tensor], list[bool]]

_logger: Final = logging.getLogger("cascade")
SEEDS: Final = 2**63  # what a torch generator takes; seeds from outside may be larger or negative
DRAWINGS_TO_RECORD: Final = 3  # of each size, before the graphs of a compiled pipeline are there


class DiffusionBackend:
    """One loaded pipeline, on the light stage the discriminator that scores its pictures, and who checks them."""

    def __init__(
        self,
        model: Model,
        stage: Stage,
        pipeline: Pipeline,
        scorer: Scorer | None = None,
        checker: Checker | None = None,
        *,
        encoder: Encoder | None = None,
        ahead: Sequence[int] = (),
    ) -> None:
        """`ahead`: batch sizes, ascending, that the first warm-up draws beside those it is asked for, as far as fit."""
        self.stage = stage
        self._model = model
        self._pipeline = pipeline
        self._scorer = scorer
        self._checker = checker
        self._encoder = encoder or Encoder(model.name)
        self._ahead = ahead
        self._tells_steps = STEP_ENDED in inspect.signature(pipeline).parameters

    @property
    def networks(self) -> list[torch.nn.Module]:
        """All that has weights: the pipeline's networks, the discriminator's and the safety checker's."""
        owners = (getattr(judge, "__self__", None) for judge in (self._scorer, self._checker))
        judges = [part for owner in owners if owner is not None for part in vars(owner).values()]
        return [*modules_of(self._pipeline), *(part for part in judges if isinstance(part, torch.nn.Module))]

    def warm_up(self, batches: Sequence[int]) -> None:
        """Draw once at each batch size; raises ModelError, also where the scores are no numbers."""
        # A graph is recorded when a function runs for the second time, and the decoder runs once in a drawing.
        times = DRAWINGS_TO_RECORD if getattr(self._pipeline, "compiled", None) else 1
        with warming_up():
            for batch in batches:
                self._warm_up(batch, times)
            ahead, self._ahead = self._ahead, ()
            try:
                for batch in ahead:
                    self._warm_up(batch, times)
            except OutOfMemory as wrong:
                _logger.warning("a batch that a plan may choose does not fit", extra={"reason": str(wrong)[:200]})

    def _warm_up(self, batch: int, times: int) -> None:
        for _ in range(times):
            drawn = self.draw([Job(f"warm-up-{i}", "a warm-up", 0.0, 0.0, seed=i) for i in range(batch)])
            if not all(math.isfinite(picture.score or 0.0) for picture in drawn):
                raise ModelError(f"the discriminator of {self._model.name} gives no score")

    def draw(self, jobs: Sequence[Job], abandoned: Abandoned = never) -> list[Picture]:
        """One picture per job, in order; raises ModelError, OutOfMemory, NobodyWaits."""
        return [_finished(drawn) for drawn in self._drawn(jobs, abandoned)]

    def draw_ahead(self, jobs: Sequence[Job], abandoned: Abandoned = never) -> Sequence[Drawn]:
        """The same without waiting for the encoding, where that has threads of its own."""
        return self._drawn(jobs, abandoned) if self._encoder.threaded else self.draw(jobs, abandoned)

    def _drawn(self, jobs: Sequence[Job], abandoned: Abandoned) -> list[Undeveloped]:
        """One per job, in order."""
        drawn: dict[int, Undeveloped] = {}
        for asked, places in self._by_kind(jobs).items():
            alike = self._draw_alike([jobs[place] for place in places], asked, abandoned)
            drawn |= zip(places, alike, strict=True)
        return [drawn[place] for place in range(len(jobs))]

    def _by_kind(self, jobs: Sequence[Job]) -> dict[Asked, list[int]]:
        """Places in the batch by what is asked for: a tensor holds pictures of one size, drawn in the same steps."""
        places: dict[Asked, list[int]] = {}
        for place, job in enumerate(jobs):
            places.setdefault(asked_of(self._model, job), []).append(place)
        return places

    def _draw_alike(self, jobs: Sequence[Job], asked: Asked, abandoned: Abandoned) -> list[Undeveloped]:
        try:
            # The score is of the picture that is given, in its 256 levels.
            pictures = (self._pictures(jobs, asked, abandoned) * 255).round() / 255
            encodings = self._encoder.begin(pictures, jobs)
            scores: Sequence[float | None] = self._scored(pictures, jobs)
            flags = self._checker(pictures) if self._checker else [False] * len(jobs)
        except (torch.OutOfMemoryError, MemoryError) as wrong:
            torch.cuda.empty_cache()  # what the failed batch left in pieces, the smaller one needs whole
            raise OutOfMemory(f"{self._model.name}: no memory for a batch of {len(jobs)}: {wrong}") from wrong
        return [Undeveloped(*each) for each in zip(encodings, scores, flags, strict=True)]

    def _scored(self, pictures: Tensor, jobs: Sequence[Job]) -> Sequence[float | None]:
        return self._scorer(pictures, [job.prompt for job in jobs]) if self._scorer else [None] * len(jobs)

    @torch.inference_mode()
    def _pictures(self, jobs: Sequence[Job], asked: Asked, abandoned: Abandoned) -> Tensor:
        sides = dict(zip(("width", "height"), measures(asked.size), strict=True))
        drawn = self._pipeline(
            prompt=[job.prompt for job in jobs],
            # On the CPU whatever the device: a seed then means the same picture everywhere.
            generator=[torch.Generator().manual_seed(job.seed % SEEDS) for job in jobs],
            num_inference_steps=asked.steps,
            guidance_scale=asked.guidance,
            output_type="pt",
            return_dict=False,
            **(sides if asked.size != self._model.own_size else {}),
            **self._between_steps(abandoned),
        )
        return self._checked(drawn[0], len(jobs))

    def _between_steps(self, abandoned: Abandoned) -> dict[str, Callable[..., Any]]:
        """What asks between two steps whether anybody still waits; nothing where the pipeline has no place for it."""

        def step_ended(_pipeline: Pipeline, _step: int, _time: object, tensors: dict[str, Any]) -> dict[str, Any]:
            if abandoned():
                raise NobodyWaits
            return tensors

        return {STEP_ENDED: step_ended} if self._tells_steps else {}

    def _checked(self, pictures: Tensor, expected: int) -> Tensor:
        if len(pictures) != expected:
            raise ModelError(f"{self._model.name} drew {len(pictures)} pictures for {expected} prompts")
        # In half precision some decoders overflow, and a black picture would pass for an answer.
        if not bool(torch.isfinite(pictures).all()):
            raise ModelError(f"{self._model.name} drew a picture with values that are not finite")
        return pictures


def _finished(drawn: Undeveloped) -> Picture:
    """The picture once it is encoded; one that the safety checker flagged has no bytes."""
    return Picture(b"" if drawn.flagged else drawn.data, drawn.score, drawn.flagged)


def open_diffusion(
    cascade: Cascade, stage: Stage, gpu: str | None = None, *, random_weights: bool = False, hosted: bool = False
) -> DiffusionBackend:
    """Load the stage's pipeline, if light the discriminator, and the cascade's safety checker; raises ModelError.

    `hosted`: the pipeline stays in host memory, in the numbers of the device (models/swapping.py takes it there).
    """
    device = choose_device(gpu)
    if device.type == "cpu":
        # Two threads in one process spin under contention; two workers of one thread each draw more.
        torch.set_num_threads(1)
    model = (cascade.at_random() if random_weights else cascade).models[stage]
    refuse_what_does_not_fit(model, device, dtype_on(device, model), hosted=hosted)
    switches = switches_of(model, device.type)  # before the long loading, for it may be wrong
    if hosted and switches.compile:
        _logger.warning("a speed switch is passed over", extra={"switch": "compile", "reason": "the model is hosted"})
        switches = replace(switches, compile=False)  # a recorded graph remembers where the weights lay
    quick = quickened(load_pipeline(model, device, hosted=hosted), model, switches)
    if hosted:
        keep_wide(quick.pipeline)
    encoder = Encoder(model.name, encoding_threads() if switches.threaded_encoding else 0)
    ahead = plan_batches(cascade, stage, gpu) if quick.compiled else ()
    judge = cascade.home / cascade.discriminator
    judge = random_discriminator() if model.random_weights and not judge.is_dir() else judge
    scorer = open_scorer(judge, device) if stage == "light" else None
    checker = SafetyChecker(cascade.safety_checker, cascade.home, device).flags if cascade.safety_checker else None
    return DiffusionBackend(model, stage, quick, scorer, checker, encoder=encoder, ahead=ahead)


def plan_batches(cascade: Cascade, stage: Stage, gpu: str | None) -> tuple[int, ...]:
    """The batch sizes that a plan may choose: those profiled on the GPU type that keep the deadline."""
    if (gpu or cascade.gpu) not in cascade.profiles.get(stage, {}):
        return ()
    batches = cascade.batches(stage, gpu)
    return tuple(batch for batch in batches if cascade.service_s(stage, batch, gpu) <= cascade.deadline_s)


def choose_device(gpu: str | None) -> torch.device:
    """The device for a GPU type: "cpu" is the processor, None a GPU if there is one; raises ModelError."""
    if on_processor(gpu) or (gpu is None and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        seen = os.environ.get(VISIBLE)
        among = "" if seen is None else f" ({VISIBLE}={seen}: is there such a GPU?)"
        raise ModelError(
            f"GPU type {gpu!r} is asked for, but torch sees no CUDA device here{among}; "
            "use --gpu cpu, or CASCADE_GPU=cpu"
        )
    return torch.device("cuda")


def load_pipeline(model: Model, device: torch.device, *, hosted: bool = False) -> Pipeline:
    """The model's pipeline from its folder beside the catalogue, or from the hub's cache; raises ModelError.

    Where the row says so, of its architecture alone with weights of chance. On the device, or in host memory where it
    is `hosted`.
    """
    if model.random_weights:
        place = torch.device("cpu") if hosted else device
        drawn: Pipeline = random_pipeline(model, place, dtype_on(device, model))
        return drawn
    folder = model.folder
    try:
        pipeline = pipeline_of(model, str(folder or model.source), dtype_on(device, model))
    except WEIGHTS_WRONG as wrong:
        raise ModelError(_advice(model, folder, wrong)) from wrong
    loaded: Pipeline = pipeline if hosted else pipeline.to(device)
    return loaded


def dtype_on(device: torch.device, model: Model) -> torch.dtype:
    """The row's number type on a GPU; single precision on a processor, where half is no faster."""
    dtype: torch.dtype = getattr(torch, model.dtype) if device.type == "cuda" else torch.float32
    return dtype


def _advice(model: Model, folder: Path | None, wrong: BaseException) -> str:
    reason = str(wrong).strip().split("\n")[0]
    if folder is not None:
        return f"cannot load {model.name} from {folder}: {reason}; restore the folder or fetch it again"
    at = f" at revision {model.revision}" if model.revision else ""
    places = " and no ".join(str(each) for each in model.folders)
    return (
        f"no weights for {model.name}: there is no folder {places}, and the hub's cache has no {model.source!r}{at}; "
        f"fetch it once with `python -m models.fetch --model {model.name}` (the tiny models: python -m "
        "models.train_tiny)"
    )
