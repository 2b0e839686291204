"""What stays true of encoding: every file says whose picture it is, and nobody waits who need not."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from models import encoding
from models.backend import NobodyWaits
from models.diffusion import DiffusionBackend, open_diffusion, plan_batches
from models.encoding import Encoder, encode
from services.gateway.pictures import converted
from shared.catalog import load_cascade, unmeasured
from shared.messages import Job
from shared.model import Model
from tests.painters import SIDE

MODEL = Model("stub", "stub", steps=3, guidance=1.5, size=8, memory_gib=0.1)


def job(place: int, **parameters: Any) -> Job:
    return Job(f"id-{place}", "a naïve cat", 0.0, 10.0, seed=place, parameters=parameters)


def noise(side: int, count: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


@pytest.mark.parametrize("form", ["webp", "png"])
@pytest.mark.parametrize("side", [64, 256])
def test_a_file_of_either_kind_says_whose_picture_it_is(form: str, side: int) -> None:
    (pixels,) = noise(side)
    image = Image.open(io.BytesIO(encode(pixels, job(7, picture_format=form), "a-model")))
    assert image.format == form.upper()
    said = {"prompt_id": "id-7", "prompt": "a naïve cat", "seed": 7, "model": "a-model"}
    assert json.loads(image.getexif()[0x010E]) == said
    exact = np.array_equal(np.asarray(image.convert("RGB")), pixels)
    assert exact == (form == "png" or side == 64), "a PNG is exact at any size"


def test_the_gateway_hands_on_a_picture_as_it_was_drawn_and_makes_the_other_kinds_from_it() -> None:
    drawn = {form: encode(noise(64)[0], job(1, picture_format=form), "a-model") for form in ("webp", "png")}
    for stored, data in drawn.items():
        for form in ("webp", "png", "jpeg"):
            made = asyncio.run(converted(data, form))
            image = Image.open(io.BytesIO(made))
            assert image.format == form.upper()
            assert "id-1" in image.getexif()[0x010E]
            assert (made == data) == (form == stored)


def test_threads_encode_what_one_would_in_the_same_order() -> None:
    pictures = torch.from_numpy(noise(SIDE, 5)).permute(0, 3, 1, 2) / 255
    jobs = [job(place) for place in range(5)]
    alone, threaded = ([each() for each in Encoder("m", threads).begin(pictures, jobs)] for threads in (0, 2))
    assert alone == threaded == [encode(pixels, one, "m") for pixels, one in zip(noise(SIDE, 5), jobs, strict=True)]


def test_pictures_are_encoded_while_the_discriminator_looks_at_them(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()

    def encoding_seen(*given: Any) -> bytes:
        begun.set()
        return encode(*given)

    monkeypatch.setattr(encoding, "encode", encoding_seen)

    def pipeline(prompt: list[str], **_: Any) -> tuple[Tensor]:
        return (torch.zeros(len(prompt), 3, 8, 8),)

    def scorer(pictures: Tensor, _prompts: Sequence[str]) -> list[float]:
        return [float(begun.wait(10.0))] * len(pictures)

    backend = DiffusionBackend(MODEL, "light", pipeline, scorer, encoder=Encoder("stub", 2))
    assert [picture.score for picture in backend.draw([job(0), job(1)])] == [1.0, 1.0]


SWITCHES = "channels_last,fused_projections,cached_prompts,host_schedule,threaded_encoding"


@pytest.mark.parametrize("more", ["", ",guidance_until=0.5,cached_features"])
def test_a_batch_can_be_given_up_between_steps_whatever_is_on(more: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASCADE_SPEED", SWITCHES + more)
    heavy = open_diffusion(unmeasured("tiny"), "heavy", "cpu")
    (before,) = heavy.draw([job(0)])
    asked: list[None] = []

    def abandoned() -> bool:
        asked.append(None)
        return len(asked) == 13

    with pytest.raises(NobodyWaits):
        heavy.draw([job(0), job(1)], abandoned)
    assert len(asked) == 13
    assert heavy.draw([job(0)])[0].data == before.data, "what was given up leaves nothing behind"


def test_warming_up_draws_the_sizes_that_a_plan_may_choose_once_and_stops_at_one_that_does_not_fit() -> None:
    sizes: list[int] = []

    def pipeline(prompt: list[str], **_: Any) -> tuple[Tensor]:
        sizes.append(len(prompt))
        if len(prompt) > 2:
            raise torch.OutOfMemoryError("no memory")
        return (torch.zeros(len(prompt), 3, 8, 8),)

    backend = DiffusionBackend(MODEL, "heavy", pipeline, ahead=(1, 2, 4, 8))
    backend.warm_up([1])
    backend.warm_up([1])
    assert sizes == [1, 1, 2, 4, 1]


def test_a_plan_chooses_among_the_profiled_batches_that_keep_the_deadline() -> None:
    cascade = load_cascade("sdturbo")
    assert plan_batches(cascade, "heavy", None) == (1, 2, 4)
    assert plan_batches(unmeasured("sdturbo"), "heavy", None) == ()
