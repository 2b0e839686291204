"""OpenAI's images API, asked by OpenAI's own client as it is."""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from shared.embedded import EmbeddedRedis
from shared.observer import Observer
from tests.helpers import outcomes
from tests.painters import HARD, LOST, SIDE, SPOILT, UGLY, UNSAFE, colour
from tests.processes import until
from tests.shops import Shop, bytes_of, shop_of


@pytest.fixture(scope="module")
def shop(oldest_server: EmbeddedRedis) -> Iterator[Shop]:
    with shop_of(oldest_server) as made:
        yield made


def test_each_picture_is_a_prompt_of_its_own_with_the_next_seed(shop: Shop) -> None:
    span = f"00-{'a' * 32}-{'b' * 16}-01"
    answer = shop.drawn(n=3, extra_body={"seed": 41}, user="lisa", extra_headers={"traceparent": span})
    assert [each.seed for each in answer.data] == [41, 42, 43]
    pictures = [Image.open(io.BytesIO(bytes_of(each))).convert("RGB") for each in answer.data]
    assert [picture.size for picture in pictures] == [(SIDE, SIDE)] * 3
    assert [picture.getpixel((0, 0)) for picture in pictures] == [(41, 0, 0), (42, 0, 0), (43, 0, 0)]
    assert (answer.size, answer.output_format, answer.usage.total_tokens) == (f"{SIDE}x{SIDE}", "webp", 0)
    known = {each.id: each for each in outcomes(shop.broker)}
    assert {known[each.id].seed for each in answer.data} == {41, 42, 43}
    ((_, newest),) = Observer(shop.broker).latest(shop.broker.keys.done, 1)
    assert (newest[b"user"], newest[b"traceparent"]) == (b"lisa", span.encode()), "and who asked goes along"


def test_without_a_seed_pictures_differ(shop: Shop) -> None:
    seeds = [shop.drawn().data[0].seed for _ in range(3)]
    assert len(set(seeds)) == 3


@pytest.mark.parametrize(
    ("quality", "prompt", "stages"),
    [
        ("auto", "easy", ["light"]),
        ("auto", HARD, ["light", "heavy"]),
        ("medium", HARD, ["light", "heavy"]),
        ("low", HARD, ["light"]),
        ("high", "easy", ["heavy"]),
    ],
)
def test_quality_says_which_models_draw(shop: Shop, quality: Any, prompt: str, stages: list[str]) -> None:
    (picture,) = shop.drawn(prompt, quality=quality).data
    assert (picture.stage, colour(bytes_of(picture))) == (stages[-1], stages[-1])
    (outcome,) = [each for each in outcomes(shop.broker) if each.id == picture.id]
    assert [visit.stage for visit in outcome.visits] == stages


@pytest.mark.parametrize(("partial_images", "partials"), [(None, 1), (2, 1), (0, 0)])
def test_a_stream_shows_the_light_picture_first(shop: Shop, partial_images: int | None, partials: int) -> None:
    stream = shop.drawn(f"a {HARD} one", stream=True, partial_images=partial_images)
    *first, last = list(stream)
    assert [each.type for each in first] == ["image_generation.partial_image"] * partials
    assert [(colour(bytes_of(each)), each.partial_image_index) for each in first] == [("light", 0)] * partials
    assert (last.type, colour(bytes_of(last))) == ("image_generation.completed", "heavy")
    assert (last.usage.total_tokens, last.size) == (0, f"{SIDE}x{SIDE}")


def test_a_streams_first_picture_comes_before_the_second_is_drawn(shop: Shop) -> None:
    with shop.painters.resting("heavy"):
        stream = iter(shop.drawn(f"a {HARD} one", stream=True))
        assert next(stream).type == "image_generation.partial_image"
    assert [each.type for each in stream] == ["image_generation.completed"]


def test_pictures_of_one_stream_are_told_apart(shop: Shop) -> None:
    last = [each for each in shop.drawn(HARD, stream=True, n=2) if each.type == "image_generation.completed"]
    assert sorted(each.image_index for each in last) == [0, 1]
    assert len({each.id for each in last}) == 2


def test_the_asynchronous_client_gets_the_same(shop: Shop) -> None:
    async def ask() -> tuple[Any, list[str]]:
        async with openai.AsyncOpenAI(base_url=f"{shop.gate.url}/v1", api_key="none") as client:
            answers = await asyncio.gather(*(client.images.generate(prompt="a cat") for _ in range(5)))
            stream = await client.images.generate(prompt=HARD, stream=True)
            return answers, [each.type async for each in stream]

    answers, kinds = asyncio.run(ask())
    assert [colour(bytes_of(answer.data[0])) for answer in answers] == ["light"] * 5
    assert kinds == ["image_generation.partial_image", "image_generation.completed"]


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_pictures_come_in_the_format_asked_for(shop: Shop, form: Any) -> None:
    answer = shop.drawn("a naïve cat", output_format=form)
    found = Image.open(io.BytesIO(bytes_of(answer.data[0])))
    assert (found.format, answer.output_format) == (form.upper(), form)
    assert "na\\u00efve cat" in found.getexif()[0x010E], "it still says what it shows"
    assert colour(bytes_of(answer.data[0])) == "light"
    small, large = (shop.drawn(output_format="jpeg", output_compression=each).data[0] for each in (5, 100))
    assert len(bytes_of(small)) < len(bytes_of(large))


def test_an_address_leads_to_the_picture(shop: Shop) -> None:
    (picture,) = shop.drawn(HARD, response_format="url", output_format="png").data
    assert picture.b64_json is None
    fetched = httpx.get(picture.url)
    assert (fetched.headers["content-type"], colour(fetched.content)) == ("image/png", "heavy")


def test_the_cascade_is_the_model(shop: Shop) -> None:
    assert [model.id for model in shop.client.models.list()] == ["tiny"]
    assert shop.client.models.retrieve("tiny").owned_by == "catalogue"
    assert shop.drawn(model="tiny").data
    with pytest.raises(openai.NotFoundError) as unknown:
        shop.drawn(model="dall-e-3")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("stream", [False, True])
def test_a_blocked_prompt_is_a_moderation_error(shop: Shop, stream: Any) -> None:
    with pytest.raises(openai.BadRequestError) as blocked:
        shop.drawn(UNSAFE, stream=stream)
    assert (blocked.value.code, "blocked phrase" in blocked.value.message) == ("moderation_blocked", True)


def test_a_failed_prompt_is_not_tried_again_by_itself(shop: Shop) -> None:
    before = len(outcomes(shop.broker))
    with pytest.raises(openai.InternalServerError) as failed:
        shop.drawn(UGLY)
    assert (failed.value.code, "too ugly" in failed.value.message) == ("generation_failed", True)
    assert len(outcomes(shop.broker)) == before + 1


def test_a_dropped_prompt_is_a_timeout_that_is_not_tried_again(shop: Shop) -> None:
    before, broker = len(outcomes(shop.broker)), shop.broker

    def keep_time() -> None:
        until(lambda: Observer(broker).open_prompts(math.inf), "it waits")
        (late,) = Observer(broker).open_prompts(math.inf)
        assert broker.overtake(late.id, "light", late.priority, late.entry_id, "dropped", "deadline")

    with shop.painters.resting("light"), ThreadPoolExecutor(1) as keeper:
        kept = keeper.submit(keep_time)
        with pytest.raises(openai.InternalServerError) as dropped:
            shop.drawn()
        kept.result()
    assert (dropped.value.status_code, dropped.value.code) == (504, "deadline_missed")
    assert len(outcomes(broker)) == before + 1


def test_what_goes_wrong_in_a_stream_is_its_last_event(shop: Shop) -> None:
    with shop.painters.resting("heavy"):
        stream = iter(shop.drawn(HARD, stream=True))
        first = next(stream)
        assert shop.broker.cancel(first.id).done
        with pytest.raises(openai.APIError, match="cancelled"):
            next(stream)


def test_a_light_picture_that_is_lost_costs_a_stream_no_more_than_itself(shop: Shop) -> None:
    (last,) = shop.drawn(f"{HARD} and {LOST}", stream=True)
    assert (last.type, colour(bytes_of(last))) == ("image_generation.completed", "heavy")


@pytest.mark.parametrize("stream", [False, True])
def test_a_final_picture_that_is_lost_is_gone(shop: Shop, stream: Any) -> None:
    with pytest.raises(openai.APIStatusError) as gone:
        shop.drawn(LOST, stream=stream)
    assert (gone.value.status_code, gone.value.code) == (410, "picture_gone")


def test_a_picture_that_cannot_be_read_is_said_to_be_none(shop: Shop) -> None:
    with pytest.raises(openai.APIStatusError) as spoilt:
        shop.drawn(SPOILT, output_format="png")
    assert (spoilt.value.status_code, spoilt.value.code) == (410, "picture_unreadable")
    stream = iter(shop.drawn(f"{HARD} and {SPOILT}", stream=True, output_format="png"))
    assert next(stream).type == "image_generation.partial_image"
    with pytest.raises(openai.APIError, match="can't be read"):
        next(stream)
    (kept,) = shop.drawn(SPOILT, response_format="url", output_format="png").data
    assert httpx.get(kept.url).status_code == 410


@pytest.mark.parametrize("stream", [False, True])
def test_when_one_picture_fails_the_others_are_not_drawn_in_vain(shop: Shop, stream: Any) -> None:
    before, broker = {each.id for each in outcomes(shop.broker)}, shop.broker

    def meddle() -> None:
        until(lambda: len(Observer(broker).open_prompts(math.inf)) == 3, "they wait")
        assert broker.cancel(Observer(broker).open_prompts(math.inf)[0].id).done

    with shop.painters.resting("heavy"), ThreadPoolExecutor(1) as meddler:
        met = meddler.submit(meddle)
        with pytest.raises(openai.ConflictError) as cancelled:
            shop.drawn(HARD, n=3, stream=stream, partial_images=0)
        met.result()
        until(lambda: len(outcomes(broker)) == len(before) + 3, "all are given up")
    assert cancelled.value.code == "cancelled"
    assert {each.end for each in outcomes(broker) if each.id not in before} == {"cancelled"}


@pytest.mark.parametrize("stream", [False, True])
def test_nobody_draws_for_a_client_that_has_gone(shop: Shop, stream: bool) -> None:
    with shop.painters.resting("heavy"):
        before = {each.id for each in outcomes(shop.broker)}
        impatient = httpx.Timeout(5.0, read=0.5)
        with pytest.raises(httpx.ReadTimeout), httpx.Client(timeout=impatient) as client:
            body = {"prompt": HARD, "stream": stream}
            with client.stream("POST", f"{shop.gate.url}/v1/images/generations", json=body) as answer:
                answer.read()
        until(lambda: {each.id for each in outcomes(shop.broker)} - before, "it is given up")
        (gone,) = [each for each in outcomes(shop.broker) if each.id not in before]
        assert gone.end == "cancelled"
