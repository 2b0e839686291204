"""A gateway with somebody who draws for it, and OpenAI's client as it is."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import openai

from shared.broker import Broker
from shared.embedded import EmbeddedRedis
from tests.conftest import fresh_deployment
from tests.gates import Gate, gate, gate_of
from tests.helpers import a_plan, put_plan
from tests.painters import Painters, painting


@dataclass(frozen=True)
class Shop:
    """All that a test of the API needs."""

    broker: Broker
    gate: Gate
    painters: Painters
    client: openai.OpenAI

    def drawn(self, prompt: str = "a cat", **given: Any) -> Any:
        return self.client.images.generate(prompt=prompt, **given)


@contextmanager
def shop_of(server: EmbeddedRedis, **settings: object) -> Iterator[Shop]:
    """A shop of its own; afterwards the law of conservation holds."""
    deployments = fresh_deployment(server)
    broker = next(deployments)
    put_plan(broker, a_plan(assignment={"test:0": "light", "test:1": "heavy"}))
    with (
        painting(broker) as painters,
        gate(gate_of(broker, **settings)) as made,
        client_of(made) as client,
    ):
        yield Shop(broker, made, painters, client)
    assert next(deployments, None) is None


def client_of(made: Gate, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{made.url}/v1", api_key=key)


def bytes_of(picture: Any) -> bytes:
    return base64.b64decode(picture.b64_json)
