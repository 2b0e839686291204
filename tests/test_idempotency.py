"""An Idempotency-Key makes a request one request: over repetitions, gateways and restarts."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from shared.embedded import EmbeddedRedis
from shared.keyring import Keyring, write_keyring
from tests.gates import gate, gate_of
from tests.helpers import a_plan, outcomes, put_plan, totals
from tests.painters import HARD
from tests.processes import until
from tests.shops import Shop, client_of, shop_of


@pytest.fixture(scope="module")
def shop(oldest_server: EmbeddedRedis) -> Iterator[Shop]:
    with shop_of(oldest_server) as made:
        yield made


def ids_of(client: openai.OpenAI, key: str, **given: Any) -> list[str]:
    asked = {"prompt": "a cat", "extra_headers": {"Idempotency-Key": key}} | given
    answer: Any = client.images.generate(**asked)
    return [each.id for each in answer.data]


def published(shop: Shop) -> float:
    return totals(shop.broker).get("published", 0)


def test_a_repetition_is_answered_with_the_same_pictures(shop: Shop) -> None:
    before = published(shop)
    first = ids_of(shop.client, "again", n=3)
    assert ids_of(shop.client, "again", n=3) == first
    assert len(set(first)) == 3
    assert published(shop) == before + 3


def test_requests_at_once_are_one_request(shop: Shop) -> None:
    before = published(shop)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ids_of(shop.client, "at once", prompt=HARD), range(8)))
    assert len({tuple(ids) for ids in answers}) == 1
    assert published(shop) == before + 1


def test_it_holds_at_another_gateway(shop: Shop) -> None:
    first, before = ids_of(shop.client, "elsewhere"), published(shop)
    with gate(gate_of(shop.broker)) as other, client_of(other) as client:
        assert ids_of(client, "elsewhere") == first
    assert published(shop) == before


@pytest.mark.parametrize("change", [{"prompt": "a dog"}, {"n": 2}, {"extra_body": {"seed": 3}}, {"quality": "high"}])
def test_another_request_under_the_same_key_is_an_error(shop: Shop, change: dict[str, Any]) -> None:
    ids_of(shop.client, "mine")
    before = published(shop)
    with pytest.raises(openai.UnprocessableEntityError) as reused:
        ids_of(shop.client, "mine", **change)
    assert (reused.value.code, reused.value.param) == ("idempotency_key_reused", "Idempotency-Key")
    assert published(shop) == before


def test_it_is_an_error_too_while_the_first_is_open(shop: Shop) -> None:
    with shop.painters.resting("light"):
        body, key = {"prompt": "a cat"}, {"Idempotency-Key": "open"}
        taken = httpx.post(f"{shop.gate.url}/v1/jobs", json=body, headers=key).json()
        again = httpx.post(f"{shop.gate.url}/v1/jobs", json=body, headers=key)
        assert (again.status_code, again.json()["id"], again.json()["state"]) == (202, taken["id"], "open")
        other = httpx.post(f"{shop.gate.url}/v1/jobs", json={"prompt": "a dog"}, headers=key)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")


def test_nobody_is_given_pictures_of_a_request_that_cannot_be_compared(shop: Shop) -> None:
    body, key, broker = {"prompt": "a cat"}, {"Idempotency-Key": "forgotten"}, shop.broker
    taken = httpx.post(f"{shop.gate.url}/v1/jobs", json=body, headers=key).json()
    record = broker.keys.prompt(taken["id"])
    until(lambda: broker.client.hget(record, "state") == b"light", "it is drawn")
    broker.client.hset(record, "outcome", "0-1")  # as if its outcome had left the stream
    again = httpx.post(f"{shop.gate.url}/v1/jobs", json=body, headers=key)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "idempotency_unknown")
    assert again.headers["retry-after"] == "1"


def test_a_refused_request_can_be_repeated(shop: Shop) -> None:
    impatient, wish = shop.client.with_options(max_retries=0), {"extra_body": {"deadline_s": 10.0}}
    put_plan(shop.broker, a_plan(2, light_service_s=100.0))
    try:
        with pytest.raises(openai.UnprocessableEntityError):
            ids_of(impatient, "later", **wish)
    finally:
        put_plan(shop.broker, a_plan(3))
    assert ids_of(impatient, "later", **wish)


def test_a_client_that_hangs_up_finds_its_picture_when_it_comes_again(shop: Shop) -> None:
    before = len(outcomes(shop.broker))
    with shop.painters.resting("light"), pytest.raises(openai.APITimeoutError):
        ids_of(shop.client.with_options(max_retries=0, timeout=0.5), "hung up")
    until(lambda: len(outcomes(shop.broker)) > before, "it is drawn all the same")
    assert outcomes(shop.broker)[-1].end == "light"
    assert ids_of(shop.client, "hung up") == [outcomes(shop.broker)[-1].id]
    assert len(outcomes(shop.broker)) == before + 1


def test_the_same_key_of_two_callers_is_two_requests(shop: Shop, tmp_path: Path) -> None:
    ring, alice = Keyring().added("alice")
    ring, bob = ring.added("bob")
    write_keyring(tmp_path / "keys.toml", ring)
    with gate(gate_of(shop.broker, http_keys=tmp_path / "keys.toml")) as door:
        ids = [ids_of(client_of(door, secret), "ours") for secret in (alice, bob, alice)]
    assert ids[0] != ids[1]
    assert ids[0] == ids[2]
