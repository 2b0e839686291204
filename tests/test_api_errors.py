"""Whatever goes wrong, the gateway says it in OpenAI's shape, with the field or the time that helps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from services.gateway import errors
from services.gateway.errors import BODY_LIMIT
from shared.embedded import EmbeddedRedis
from shared.wire import LONGEST_S, PROMPT_LIMIT
from tests.gates import gate, gate_of
from tests.helpers import a_plan, publish, put_plan, totals
from tests.processes import until
from tests.shops import Shop, client_of, shop_of

GENERATIONS = "/v1/images/generations"


@pytest.fixture(scope="module")
def shop(oldest_server: EmbeddedRedis) -> Iterator[Shop]:
    with shop_of(oldest_server) as made:
        yield made


@pytest.fixture(scope="module")
def client(shop: Shop) -> Iterator[httpx.Client]:
    with shop.gate.client() as made:
        yield made


def error_of(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"] and body["error"]["type"]
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", ""),
        ("prompt", "   "),
        ("prompt", "a \0 cat"),
        ("prompt", "\ud800"),
        ("prompt", "x" * (PROMPT_LIMIT + 1)),
        ("prompt", 7),
        ("prompt", None),
        ("size", "63x64"),
        ("size", "huge"),
        ("size", "128x128"),
        ("steps", 0),
        ("steps", 3),
        ("steps", "20"),
        ("guidance", -1),
        ("guidance", 3.5),
        ("n", 0),
        ("n", 11),
        ("n", "2"),
        ("n", True),
        ("seed", -1),
        ("seed", 2**63),
        ("seed", 0.5),
        ("quality", "best"),
        ("deadline_s", 0),
        ("deadline_s", LONGEST_S * 2),
        ("deadline_s", float("nan")),
        ("priority", 3),
        ("priority", True),
        ("partial_images", 4),
        ("response_format", "gif"),
        ("output_format", "gif"),
        ("output_compression", 101),
        ("background", "transparent"),
        ("user", "u" * 201),
        ("colour", "red"),
    ],
)
def test_a_wrong_field_is_named(shop: Shop, client: httpx.Client, field: str, value: object) -> None:
    before = totals(shop.broker)
    body = json.dumps({"prompt": "a cat", field: value})
    answer = client.post(GENERATIONS, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, error_of(answer)["param"]) == (422, field)
    assert totals(shop.broker) == before, "and nothing is published"


def test_an_address_cannot_be_streamed(client: httpx.Client) -> None:
    answer = client.post(GENERATIONS, json={"prompt": "a cat", "stream": True, "response_format": "url"})
    assert (answer.status_code, error_of(answer)["param"]) == (422, "response_format")


@pytest.mark.parametrize("content", [b"{", b"\xff", b'{"seed": 1' + b"0" * 5000 + b"}", b"[" * 50_000])
def test_what_is_no_json_is_said(client: httpx.Client, content: bytes) -> None:
    answer = client.post(GENERATIONS, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    error_of(answer)


@pytest.mark.parametrize("announced", [True, False])
def test_too_large_a_body_is_not_read(client: httpx.Client, announced: bool) -> None:
    read = 0

    def parts() -> Iterator[bytes]:
        nonlocal read
        for _ in range(400):
            read += 1
            yield b" " * (BODY_LIMIT // 4)

    content = b" " * (BODY_LIMIT + 1) if announced else parts()
    try:
        answer = client.post(GENERATIONS, content=content, headers={"content-type": "application/json"})
    except (httpx.WriteError, httpx.RemoteProtocolError):
        assert not announced, "the gateway hung up on a client that goes on and on"
        return
    assert (answer.status_code, error_of(answer)["code"]) == (413, "request_too_large")
    fits = client.post(GENERATIONS, json={"prompt": "é" * PROMPT_LIMIT, "size": "no"})
    assert fits.status_code == 422


def test_what_is_not_there_is_404_and_a_wrong_method_405(client: httpx.Client) -> None:
    for path in ("/v1/nothing", "/v1/jobs/unknown", "/v1/models/unknown", "/v1/jobs/unknown/image"):
        answer = client.get(path)
        assert (answer.status_code, error_of(answer)["code"] or "") in {(404, "not_found"), (404, "model_not_found")}
    wrong = client.put(GENERATIONS)
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    error_of(wrong)


def test_a_refused_prompt_is_429_with_the_time_to_retry(shop: Shop) -> None:
    client = shop.client.with_options(max_retries=0)
    with shop.painters.resting("light"):
        publish(shop.broker, "before", allowance_s=600.0)
        put_plan(shop.broker, a_plan(2, light_service_s=100.0, light_batch=1))
        try:
            with pytest.raises(openai.RateLimitError) as refused:
                client.images.generate(prompt="a cat", extra_body={"deadline_s": 160.0})
            with pytest.raises(openai.UnprocessableEntityError) as in_vain:
                client.images.generate(prompt="a cat", extra_body={"deadline_s": 60.0})
        finally:
            put_plan(shop.broker, a_plan(3))
    until(lambda: not shop.broker.client.zcard(shop.broker.keys.due), "the one before is drawn")
    assert (in_vain.value.code, in_vain.value.param) == ("refused_allowance", "deadline_s")
    assert refused.value.code == "refused_deadline"
    headers = refused.value.response.headers
    assert 40 <= int(headers["retry-after"]) <= 45, "it was 40 s when it was asked for"
    assert 0 <= 1000 * int(headers["retry-after"]) - int(headers["retry-after-ms"]) < 1000


def test_of_a_request_that_is_partly_refused_nothing_is_drawn(shop: Shop) -> None:
    # One fits into the 25 s, a second behind it does not.
    put_plan(shop.broker, a_plan(4, light_service_s=20.0, light_batch=1))
    try:
        with shop.painters.resting("light"), pytest.raises(openai.RateLimitError):
            client = shop.client.with_options(max_retries=0)
            client.images.generate(prompt="a cat", n=3, extra_body={"deadline_s": 25.0})
        assert shop.broker.client.zcard(shop.broker.keys.due) == 0
        assert totals(shop.broker)["cancelled"] == 1
    finally:
        put_plan(shop.broker, a_plan(5))


def test_without_redis_it_is_503(shop: Shop) -> None:
    with gate(gate_of(shop.broker, redis_url="unix:///nowhere/redis.sock")) as lonely, client_of(lonely) as client:
        with pytest.raises(openai.InternalServerError) as away:
            client.with_options(max_retries=0).images.generate(prompt="a cat")
        assert (away.value.status_code, away.value.code) == (503, "unavailable")
        assert away.value.response.headers["retry-after"] == "1"


def test_a_crowd_is_told_so_and_the_gateway_is_known_to_live(
    shop: Shop, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "MOST_OPEN", 1)
    with shop.painters.resting("light"):
        job_id = client.post("/v1/jobs", json={"prompt": "a cat"}).json()["id"]
        with client.stream("GET", f"/v1/jobs/{job_id}/events"):
            crowded = client.get("/v1/models")
            assert (crowded.status_code, error_of(crowded)["code"]) == (503, "overloaded")
            assert (crowded.headers["retry-after"], crowded.headers["connection"]) == ("1", "close")
            assert client.get("/healthz").status_code == 200
        until(lambda: client.get("/v1/models").status_code == 200, "who left makes room")


def test_what_nobody_foresaw_is_500_and_tells_no_secret(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise LookupError("redis://:password@host")

    monkeypatch.setattr(shop.gate.desk, "look", fails)
    answer = httpx.get(f"{shop.gate.url}/v1/jobs/any")
    assert (answer.status_code, error_of(answer)["code"]) == (500, "internal_error")
    assert "password" not in answer.text
