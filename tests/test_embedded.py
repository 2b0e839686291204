"""A Redis for those who have none: it starts, says why when it cannot, and ends."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.broker import Broker
from shared.config import Settings
from shared.connection import OLDEST
from shared.embedded import EmbeddedRedis, server_binaries, version_of
from shared.errors import ServerUnfit
from shared.process import Stop, guarded, patiently
from tests.conftest import run_server
from tests.helpers import ends, hire, logger, publish


@pytest.fixture
def replica() -> Iterator[EmbeddedRedis]:
    yield from run_server(None)


def test_every_server_found_can_carry_the_project() -> None:
    assert server_binaries()
    assert all(version_of(binary) >= OLDEST for binary in server_binaries())
    assert version_of(Path("/nowhere/redis-server")) == (0,)


def test_a_long_path_and_a_taken_port_are_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ServerUnfit, match="too long"):
        EmbeddedRedis(tmp_path / ("x" * 100)).start()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerUnfit, match=f"port {port}"):
            EmbeddedRedis(tmp_path, port=port).start()


def test_a_server_that_cannot_start_says_its_last_words(tmp_path: Path) -> None:
    script = tmp_path / "redis-server"
    script.write_text("#!/bin/sh\necho no such luck\nexit 1\n")
    script.chmod(0o755)
    with pytest.raises(ServerUnfit, match="no such luck"):
        EmbeddedRedis(tmp_path / "f", binary=script).start()


def test_a_server_that_is_not_there_or_may_not_be_written_to_is_unfit(replica: EmbeddedRedis) -> None:
    for url in (f"unix://{replica.folder}/none.sock", "http://127.0.0.1"):
        with pytest.raises(ServerUnfit):
            Broker(Settings(redis_url=url)).check()
    broker = Broker(Settings(redis_url=replica.url))
    broker.client.replicaof("127.0.0.1", 1)
    with pytest.raises(ServerUnfit, match="replica"):
        broker.check()
    broker.close()


def test_what_was_accepted_survives_the_servers_end(lasting_server: EmbeddedRedis) -> None:
    broker = Broker(Settings(redis_url=lasting_server.url, deployment="lasting"))
    broker.check()
    publish(broker, "a", "b")
    light = hire(broker)
    first, second = light.take(2)
    light.end(first)
    lasting_server.stop()
    lasting_server.start()
    assert ends(broker) == {"a": ("light", "confident")}
    broker.reclaim()
    again = hire(broker)
    left = again.take() or [second]
    owner = again if again.beat(*left).entries else light
    assert owner.end(left[0]) == 1
    assert set(ends(broker)) == {"a", "b"}
    broker.close()


def test_a_loop_waits_while_redis_is_away_and_goes_on(lasting_server: EmbeddedRedis) -> None:
    broker = Broker(Settings(redis_url=lasting_server.url))
    broker.check()
    lasting_server.stop()
    stop, tries = Stop(), []

    def step() -> float:
        tries.append(1)
        if len(tries) == 2:
            lasting_server.start()
        broker.now()
        stop.set()
        return 0.0

    patiently(step, stop, logger)
    assert len(tries) in (2, 3)
    broker.close()


def test_what_a_user_can_mend_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def unfit() -> int:
        raise ServerUnfit("no server there")

    with pytest.raises(SystemExit) as ended:
        guarded(unfit)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "no server there\n"
    with pytest.raises(SystemExit) as ended:
        guarded(lambda: 0)
    assert ended.value.code == 0
