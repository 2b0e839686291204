"""Draws with diffusers: load a pipeline, draw a batch, score it if light, encode it.

    jobs ──> pipeline ──> (n, 3, height, width) in [0, 1] ──> discriminator (light), safety checker ──> WebP

Any pipeline class works that takes prompts, generators, steps and guidance: the row in models/catalog.toml
and the folder's own model_index.json say the rest.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from models.backend import Abandoned, NobodyWaits, OutOfMemory, Picture, never
from models.discriminator import open_scorer
from models.encoding import encode
from models.libraries import WEIGHTS_WRONG, pipeline_of
from models.safety import SafetyChecker
from shared.catalog import Cascade
from shared.errors import ModelError
from shared.messages import Job
from shared.model import Model
from shared.schema import Stage
from shared.sizes import asked_size, measures

# A diffusers pipeline: prompts, generators and settings in, (pictures, ...) out.
Pipeline = Callable[..., Any]
Scorer = Callable[[Tensor, Sequence[str]], list[float]]  # pictures and their prompts in, P(real) out
Checker = Callable[[Tensor], list[bool]]

STEP_ENDED: Final = "callback_on_step_end"
SEEDS: Final = 2**63  # what a torch generator takes; seeds from outside may be larger or negative


class DiffusionBackend:
    """One loaded pipeline, on the light stage the discriminator that scores its pictures, and who checks them."""

    def __init__(
        self,
        model: Model,
        stage: Stage,
        pipeline: Pipeline,
        scorer: Scorer | None = None,
        checker: Checker | None = None,
    ) -> None:
        self.stage = stage
        self._model = model
        self._pipeline = pipeline
        self._scorer = scorer
        self._checker = checker
        self._tells_steps = STEP_ENDED in inspect.signature(pipeline).parameters

    def warm_up(self, batches: Sequence[int]) -> None:
        """Draw once at each batch size; raises ModelError, also where the scores are no numbers."""
        for batch in batches:
            drawn = self.draw([Job(f"warm-up-{i}", "a warm-up", 0.0, 0.0, seed=i) for i in range(batch)])
            if not all(math.isfinite(picture.score or 0.0) for picture in drawn):
                raise ModelError(f"the discriminator of {self._model.name} gives no score")

    def draw(self, jobs: Sequence[Job], abandoned: Abandoned = never) -> list[Picture]:
        """One picture per job, in order; raises ModelError, OutOfMemory, NobodyWaits."""
        drawn: dict[int, Picture] = {}
        for size, places in self._by_size(jobs).items():
            alike = self._draw_alike([jobs[place] for place in places], size, abandoned)
            drawn |= zip(places, alike, strict=True)
        return [drawn[place] for place in range(len(jobs))]

    def _by_size(self, jobs: Sequence[Job]) -> dict[str, list[int]]:
        """Places in the batch by the size asked for, "" for the model's own: a tensor holds pictures of one size."""
        own = f"{self._model.size}x{self._model.size}"
        places: dict[str, list[int]] = {}
        for place, job in enumerate(jobs):
            size = asked_size(job) or own
            places.setdefault("" if size == own else size, []).append(place)
        return places

    def _draw_alike(self, jobs: Sequence[Job], size: str, abandoned: Abandoned) -> list[Picture]:
        try:
            # The score is of the picture that is given, in its 256 levels.
            pictures = (self._pictures(jobs, size, abandoned) * 255).round() / 255
            scores: Sequence[float | None] = self._scored(pictures, jobs)
            flags = self._checker(pictures) if self._checker else [False] * len(jobs)
        except (torch.OutOfMemoryError, MemoryError) as wrong:
            torch.cuda.empty_cache()  # what the failed batch left in pieces, the smaller one needs whole
            raise OutOfMemory(f"{self._model.name}: no memory for a batch of {len(jobs)}: {wrong}") from wrong
        pixels = (pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return [
            Picture(b"" if flagged else encode(one, job, self._model.name), score, flagged)
            for one, job, score, flagged in zip(pixels, jobs, scores, flags, strict=True)
        ]

    def _scored(self, pictures: Tensor, jobs: Sequence[Job]) -> Sequence[float | None]:
        return self._scorer(pictures, [job.prompt for job in jobs]) if self._scorer else [None] * len(jobs)

    @torch.inference_mode()
    def _pictures(self, jobs: Sequence[Job], size: str, abandoned: Abandoned) -> Tensor:
        drawn = self._pipeline(
            prompt=[job.prompt for job in jobs],
            # On the CPU whatever the device: a seed then means the same picture everywhere.
            generator=[torch.Generator().manual_seed(job.seed % SEEDS) for job in jobs],
            num_inference_steps=self._model.steps,
            guidance_scale=self._model.guidance,
            output_type="pt",
            return_dict=False,
            **(dict(zip(("width", "height"), measures(size), strict=True)) if size else {}),
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


def open_diffusion(cascade: Cascade, stage: Stage, gpu: str | None = None) -> DiffusionBackend:
    """Load the stage's pipeline, if light the discriminator, and the cascade's safety checker; raises ModelError."""
    device = choose_device(gpu)
    if device.type == "cpu":
        # Two threads in one process spin under contention; two workers of one thread each draw more.
        torch.set_num_threads(1)
    model = cascade.models[stage]
    pipeline = load_pipeline(model, device)
    scorer = open_scorer(cascade.home / cascade.discriminator, device) if stage == "light" else None
    checker = SafetyChecker(cascade.safety_checker, cascade.home, device).flags if cascade.safety_checker else None
    return DiffusionBackend(model, stage, pipeline, scorer, checker)


def choose_device(gpu: str | None) -> torch.device:
    """The device for a GPU type: "cpu" is the processor, None a GPU if there is one; raises ModelError."""
    if gpu == "cpu" or (gpu is None and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ModelError(f"GPU type {gpu!r} is asked for, but torch sees no CUDA device here; use --gpu cpu")
    return torch.device("cuda")


def load_pipeline(model: Model, device: torch.device) -> Pipeline:
    """The model's pipeline from its folder beside the catalogue, or from the hub's cache; raises ModelError."""
    folder = next((folder for folder in model.folders if folder.is_dir()), None)
    try:
        pipeline = pipeline_of(model, str(folder or model.source), dtype_on(device, model))
    except WEIGHTS_WRONG as wrong:
        raise ModelError(_advice(model, folder, wrong)) from wrong
    loaded: Pipeline = pipeline.to(device)
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
