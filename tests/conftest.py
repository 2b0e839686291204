"""Real servers, one per version found on this machine, and a check that no test leaves keys behind for ever."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from shared.broker import Broker
from shared.config import Settings
from shared.embedded import EmbeddedRedis, server_binaries, version_of
from shared.observer import Observer
from tests.helpers import assert_conserved


def _one_per_version() -> list[Path]:
    found = {version_of(binary): binary for binary in reversed(server_binaries())}
    return [found[version] for version in sorted(found)]


# On a busy machine an example may take long; that is no failure.
hypothesis.settings.register_profile("patient", deadline=None, derandomize=True)  # the same cases in every run
hypothesis.settings.load_profile("patient")

BINARIES = _one_per_version()


def name_of(binary: Path) -> str:
    return f"{binary.name.split('-')[0]}-{'.'.join(map(str, version_of(binary)))}"


def run_server(binary: Path | None, durability: str = "everysec") -> Iterator[EmbeddedRedis]:
    folder = Path(tempfile.mkdtemp(prefix="cascade-"))  # short: a unix socket's path is limited
    try:
        with EmbeddedRedis(folder, binary=binary, durability=durability) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", params=BINARIES, ids=name_of)
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedRedis]:
    yield from run_server(request.param)


@pytest.fixture(scope="session")
def oldest_server() -> Iterator[EmbeddedRedis]:
    yield from run_server(BINARIES[0])


@pytest.fixture
def lasting_server() -> Iterator[EmbeddedRedis]:
    """Keeps its data over a crash."""
    yield from run_server(BINARIES[0], "always")


def fresh_deployment(server: EmbeddedRedis) -> Iterator[Broker]:
    """A fresh deployment; afterwards the conservation law holds and nothing lives for ever."""
    made = Broker(Settings(redis_url=server.url, deployment=f"t{uuid.uuid4().hex[:6]}", node="test"))
    made.check()
    yield made
    assert_conserved(made)
    assert_nothing_leaks(made)
    made.client.flushdb()
    made.close()


@pytest.fixture
def broker(server: EmbeddedRedis) -> Iterator[Broker]:
    """A fresh deployment on each of the servers."""
    yield from fresh_deployment(server)


@pytest.fixture
def observer(broker: Broker) -> Observer:
    return Observer(broker)


MORTAL = ("prompt", "image", "worker", "slot", "leader", "node", "ceiling")


def assert_nothing_leaks(broker: Broker) -> None:
    client: Any = broker.client
    leaks: list[str] = []
    for raw in client.scan_iter(match=broker.keys.root + ":*"):
        kind = raw.decode().split(":")[1]
        is_open = kind == "prompt" and client.hget(raw, "state") == b"open"
        if kind in MORTAL and not is_open and client.pttl(raw) < 0:
            leaks.append(raw.decode())
    assert not leaks, f"keys without a lifetime: {leaks}"
