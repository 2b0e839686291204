"""Jobs over HTTP: the real application on a real port, and its process at the end of its life."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from services.gateway.__main__ import check_open
from services.gateway.app import lacking
from shared.broker import Broker
from shared.config import Settings
from shared.embedded import EmbeddedRedis
from shared.errors import SettingsError
from tests.conftest import fresh_deployment
from tests.gates import PATIENCE_S, Gate, gate, gate_of
from tests.helpers import a_plan, hire, publish, put_plan
from tests.processes import service, until
from tests.servers import free_port

pytestmark = pytest.mark.live


@pytest.fixture
def broker(oldest_server: EmbeddedRedis) -> Iterator[Broker]:
    """What differs between servers is tested at the desk."""
    yield from fresh_deployment(oldest_server)


@pytest.fixture
def door(broker: Broker) -> Iterator[Gate]:
    with gate(gate_of(broker)) as made:
        yield made


@pytest.fixture
def client(door: Gate) -> Iterator[httpx.Client]:
    with door.client() as made:
        yield made


def published(client: httpx.Client, **fields: object) -> str:
    answer = client.post("/v1/jobs", json={"prompt": "a cat", **fields})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def told(client: httpx.Client, job_id: str) -> list[str]:
    with client.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        return [line.removeprefix("event: ") for line in answer.iter_lines() if line.startswith("event: ")]


def test_a_job_is_published_followed_shown_and_fetched(broker: Broker, door: Gate, client: httpx.Client) -> None:
    light, heavy = hire(broker), hire(broker, "heavy")
    job_id = published(client, seed=7, deadline_s=9.0)
    waiting = client.get(f"/v1/jobs/{job_id}").json()
    assert (waiting["state"], waiting["position"], waiting["finished"]) == ("open", 1, None)
    assert waiting["deadline"] - waiting["published"] == pytest.approx(9.0, abs=1.0)
    with ThreadPoolExecutor(1) as pool:
        story = pool.submit(told, client, job_id)
        until(lambda: door.desk.followers, "it is followed")
        entry = light.one()
        assert entry.job.seed == 7
        light.escalate(entry)
        assert client.get(f"/v1/jobs/{job_id}/image").content == b"light", "the best there is"
        heavy.end(heavy.one(), why="cascade")
        assert story.result(PATIENCE_S) == ["light", "settled"]
    shown = client.get(f"/v1/jobs/{job_id}").json()
    assert (shown["state"], shown["why"], shown["score"], shown["position"]) == ("heavy", "cascade", 0.25, None)
    assert [visit["stage"] for visit in shown["visits"]] == ["light", "heavy"]
    pictures = {stage: client.get(f"/v1/jobs/{job_id}/image", params={"stage": stage}) for stage in ("light", "heavy")}
    assert {stage: answer.content for stage, answer in pictures.items()} == {"light": b"light", "heavy": b"heavy"}
    assert pictures["heavy"].headers["content-type"] == "image/webp"
    assert client.get(f"/v1/jobs/{job_id}/image").content == b"heavy"


def test_quality_and_priority_say_where_a_job_starts(broker: Broker, client: httpx.Client) -> None:
    low, high = published(client, quality="low", priority=0), published(client, quality="high", priority=2)
    (light,), (heavy,) = hire(broker).take(), hire(broker, "heavy").take()
    assert (light.job.id, light.job.route, light.priority) == (low, "light", 0)
    assert (heavy.job.id, heavy.job.route, heavy.priority) == (high, "heavy", 2)


def test_the_same_key_finds_the_same_job(broker: Broker, door: Gate) -> None:
    with door.client(**{"Idempotency-Key": "once"}) as client:
        first = client.post("/v1/jobs", json={"prompt": "a cat"}).json()
        light = hire(broker)
        light.end(light.one())
        again = client.post("/v1/jobs", json={"prompt": "a cat"})
        assert again.json() == first | {"state": "light"}
        assert client.post("/v1/jobs", json={"prompt": "a dog"}).status_code == 422


def test_a_job_is_cancelled_once(client: httpx.Client) -> None:
    job_id = published(client)
    assert client.delete(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 409
    assert told(client, job_id) == ["settled"]
    assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"
    assert client.get(f"/v1/jobs/{job_id}/image").status_code == 404


def test_what_nobody_knows_is_not_found(client: httpx.Client) -> None:
    for path in ("", "/events", "/image"):
        assert client.get(f"/v1/jobs/unknown{path}").status_code == 404
    assert client.delete("/v1/jobs/unknown").status_code == 404


@pytest.mark.parametrize(
    "wrong",
    [{"prompt": ""}, {"prompt": " "}, {"prompt": "a\x00"}, {"prompt": "x" * 5000}, {"seed": -1}, {"priority": 3},
     {"quality": "best"}, {"deadline_s": 0}, {"unknown": 1}, {"prompt": "\ud800"}],
    ids=repr,
)  # fmt: skip
def test_a_wrong_field_is_refused_and_nothing_published(
    broker: Broker, client: httpx.Client, wrong: dict[str, object]
) -> None:
    body = json.dumps({"prompt": "a cat", **wrong})
    answer = client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == next(iter(wrong))
    assert not broker.client.zcard(broker.keys.due)


def test_what_cannot_be_drawn_in_time_is_refused_with_the_seconds_to_wait(broker: Broker, client: httpx.Client) -> None:
    put_plan(broker, a_plan(light_service_s=5.0, light_workers=1, light_batch=1))
    publish(broker, "before", allowance_s=600.0)
    answer = client.post("/v1/jobs", json={"prompt": "a cat", "deadline_s": 5.5})
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 6


def test_readiness_says_what_is_missing(broker: Broker, client: httpx.Client) -> None:
    assert client.get("/healthz").status_code == 200
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert len(answer.json()["missing"]) == 2
    hire(broker)
    put_plan(broker, a_plan(assignment={"test:0": "light"}))
    assert client.get("/readyz").json() == {"ready": True, "missing": []}
    put_plan(broker, a_plan(2, light_workers=0, heavy_direct=1.0, assignment={"test:0": "heavy"}))
    assert client.get("/readyz").json()["missing"] == ["no heavy worker that is ready is in the plan"]
    hire(broker, "heavy")
    assert client.get("/readyz").status_code == 200, "no light worker is needed"


def test_a_worker_that_is_not_in_the_plan_is_none() -> None:
    about = {"stage": "light", "ready": "1", "node": "a", "slot": "0"}
    assert not lacking(a_plan(assignment={"a:0": "light"}), [about])
    assert lacking(a_plan(assignment={"a:0": "heavy"}), [about])
    assert "out of memory" in lacking(None, [about | {"ready": "0", "error": "out of memory"}])[1]


@pytest.mark.parametrize("light_workers", [0, 1])
def test_where_every_prompt_goes_straight_to_heavy_a_heavy_worker_is_enough(light_workers: int) -> None:
    heavy = {"stage": "heavy", "ready": "1", "node": "a", "slot": "0"}
    light = heavy | {"stage": "light", "slot": "1"}
    slots = {"a:0": "heavy"} | ({"a:1": "light"} if light_workers else {})
    plan = a_plan(light_workers=light_workers, assignment=slots, heavy_direct=1.0)
    assert not lacking(plan, [heavy])
    assert lacking(plan, [heavy | {"slot": "2"}]) == ["no heavy worker that is ready is in the plan"]
    assert lacking(plan, [heavy | {"ready": "0"}]) == ["no heavy worker is ready"]
    assert lacking(plan, [heavy | {"stage": "light"}]), "which waits beside it on the slot"
    assert (not lacking(plan, [light])) is bool(light_workers), "which takes over at the last moment"
    assert lacking(replace(plan, heavy_direct=0.9), [heavy]) == ["no light worker is ready"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_without_keys_nobody_else_is_let_in(host: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no keys"):
        check_open(Settings(http_host=host))
    check_open(Settings(http_host=host, http_keys=tmp_path / "keys.toml"))
    for own in ("127.0.0.1", "::1", "localhost", "127.0.0.2"):
        check_open(Settings(http_host=own))


def test_a_gateway_told_to_stop_ends_open_streams_in_order(broker: Broker) -> None:
    settings = gate_of(broker, http_port=free_port(), grace_s=1.5)
    url = f"http://127.0.0.1:{settings.http_port}"
    with service(settings, "gateway") as process, httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
        until(lambda: process.poll() is not None or _lives(url), "the gateway answers")
        job_id = published(client)
        began = threading.Event()

        def listen() -> list[str]:
            with httpx.stream("GET", f"{url}/v1/jobs/{job_id}/events", timeout=PATIENCE_S) as answer:
                began.set()
                return list(answer.iter_lines())  # raises where the connection is cut before the end

        with ThreadPoolExecutor(1) as pool:
            story = pool.submit(listen)
            assert began.wait(PATIENCE_S)
            for _ in range(2):  # as from a supervisor and from who stops it
                process.send_signal(signal.SIGTERM)
                time.sleep(0.1)
            assert story.result(PATIENCE_S) == []
        assert process.wait(PATIENCE_S) == 0
    broker.cancel(job_id)


def _lives(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False
