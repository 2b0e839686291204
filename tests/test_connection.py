"""The ways to Redis, and what happens when it is away: wait, connect again, go on."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shared.address import without_secrets
from shared.broker import Broker
from shared.config import Settings
from shared.connection import ANSWER_S, BLOCK_S, CommandRefused, Unreachable, means_away
from shared.embedded import EmbeddedRedis
from shared.errors import ServerAway, ServerUnfit
from shared.schema import GROUP
from tests.conftest import BINARIES, name_of
from tests.helpers import ends, hire, publish
from tests.processes import service, until, worker
from tests.servers import folder, free_port, secure_server, watched_servers

pytestmark = pytest.mark.live

EVERY_SERVER = pytest.mark.parametrize("binary", BINARIES, ids=name_of)


def settings(url: str, **changes: Any) -> Settings:
    return Settings(redis_url=url, deployment=f"t{uuid.uuid4().hex[:6]}", node="test", **changes)


def served(broker: Broker, prompt_id: str = "p") -> None:
    publish(broker, prompt_id)
    light = hire(broker)
    assert light.end(light.one()) == 1
    assert prompt_id in ends(broker)


@pytest.mark.parametrize(
    ("answer", "away"),
    [
        ("READONLY You can't write against a read only replica.", True),
        ("LOADING Redis is loading the dataset in memory", True),
        ("MASTERDOWN Link with MASTER is down", True),
        ("BUSY Redis is busy running a script.", True),
        ("UNBLOCKED force unblock from blocking operation", True),
        ("Error running script (call to f_1): @user_script:7: -READONLY You can't write", True),
        ("BUSYGROUP Consumer Group name already exists", False),
        ("NOGROUP No such key", False),
        ("WRONGTYPE {d}:prompt:-READONLY is a hash", False),
        ("NOPERM this user has no permissions", False),
    ],
)
def test_answers_that_mean_not_now_are_told_from_refusals(answer: str, away: bool) -> None:
    assert means_away(answer) is away


def test_an_address_is_shown_without_its_secrets() -> None:
    shown = without_secrets("redis+sentinel://me:secret@a:1,b:2/pictures/0?sentinel_password=hidden")
    assert shown == "redis+sentinel://a:1,b:2/pictures/0"
    with pytest.raises(ServerUnfit) as unfit:
        Broker(Settings(redis_url="redis://me:secret@127.0.0.1:1/0")).check()
    assert "secret" not in str(unfit.value)
    assert isinstance(unfit.value, ServerAway), "who waits may find it there"


@pytest.mark.parametrize(
    "url",
    [
        "http://h/0",
        "redis://h/0?nonsense=1",
        "redis://h:port/0",
        "redis://h/0?password_file=/nowhere",
        "redis+sentinel://h:x/s",
    ],
)
def test_a_wrong_address_is_one_line_at_the_start(url: str) -> None:
    with pytest.raises(ServerUnfit):
        Broker(Settings(redis_url=url))


def test_a_password_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("over-the-wall\n")
    conf = tmp_path / "redis.acl"
    conf.write_text("user default on >over-the-wall ~* +@all\n")
    with folder() as where, EmbeddedRedis(where, options=["--aclfile", str(conf)]) as server:
        for url in (server.url, server.url.replace("unix://", "unix://default:wrong@")):
            with pytest.raises(ServerUnfit, match=r"(?i)auth|password") as unfit:
                Broker(settings(url)).check()
            assert not isinstance(unfit.value, ServerAway), "no waiting mends it"
        broker = Broker(settings(f"{server.url}&password_file={file}"))
        broker.check()
        served(broker)
        broker.close()


@EVERY_SERVER
def test_a_server_over_tls_is_used_and_one_that_nobody_vouches_for_is_not(binary: Path) -> None:
    with secure_server(binary) as url:
        broker = Broker(settings(url))
        broker.check()
        served(broker)
        broker.close()
        for _ in range(20):  # a server's tickets come a moment after the handshake, or not: none may spoil a connection
            again = Broker(broker.settings)
            again.now()
            again.close()
        with pytest.raises(ServerUnfit, match="certificate") as unfit:
            Broker(settings(url.partition("?")[0])).check()
        assert not isinstance(unfit.value, ServerAway), "no waiting mends it"


def test_a_server_demoted_to_a_replica_is_away_until_it_leads_again(server: EmbeddedRedis) -> None:
    broker = Broker(settings(server.url))
    broker.check()
    client: Any = broker.client
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(ServerAway, match="replica"):
            broker.check()
        for act in (lambda: publish(broker), lambda: broker.hold(broker.keys.slot("n", 0), "me"), broker.ensure_groups):
            with pytest.raises(Unreachable):
                act()
    finally:
        client.execute_command("REPLICAOF", "NO", "ONE")
    served(broker)
    client.flushdb()
    broker.close()


def test_a_blocked_worker_hears_that_its_server_was_demoted(server: EmbeddedRedis) -> None:
    broker, other = Broker(settings(server.url)), Broker(settings(server.url))
    broker.check()
    replicaof: Any = other.client.replicaof
    demotion = threading.Timer(0.3, replicaof, ["127.0.0.1", "1"])
    demotion.start()
    try:
        with pytest.raises(Unreachable):
            broker.wait("light", BLOCK_S)
    finally:
        demotion.join()
        replicaof("NO", "ONE")
    served(broker)
    other.client.flushdb()
    broker.close()


def test_a_server_busy_with_a_script_is_away_and_comes_back(server: EmbeddedRedis) -> None:
    broker, other, third = (Broker(settings(server.url)) for _ in range(3))
    broker.check()
    client: Any = third.client  # its connection stands: a new one would be told BUSY, too
    before = client.config_get("lua-time-limit")["lua-time-limit"]
    client.config_set("lua-time-limit", "50")
    hog = threading.Thread(target=lambda: suppressed(other, "while true do end"))
    hog.start()
    try:
        time.sleep(0.5)
        with pytest.raises(Unreachable):
            publish(broker)
    finally:
        client.execute_command("SCRIPT", "KILL")
        hog.join()
        client.config_set("lua-time-limit", before)
    served(broker)
    client.flushdb()
    broker.close()


def test_a_service_starts_where_memory_or_a_key_stands_in_the_way_of_a_group(server: EmbeddedRedis) -> None:
    broker = Broker(settings(server.url))
    client: Any = broker.client
    client.set(broker.keys.streams["heavy"][2], "of another type")
    try:
        client.config_set("maxmemory", 1)
        broker.check()
        client.config_set("maxmemory", 0)
        broker.check()
        client.flushdb()
        served(broker)
    finally:
        client.config_set("maxmemory", 0)
        client.flushdb()
        broker.close()


def test_a_name_that_is_no_hosts_is_one_line_at_the_start() -> None:
    with pytest.raises(ServerUnfit) as unfit:
        Broker(settings(f"redis://{'x' * 70}.example:1/0")).check()
    assert not isinstance(unfit.value, ServerAway), "no waiting mends it"


def suppressed(broker: Broker, script: str) -> None:
    try:
        broker.client.eval(script, 0)
    except (CommandRefused, *Unreachable):
        return


def test_groups_that_a_failover_lost_are_made_again(server: EmbeddedRedis) -> None:
    broker = Broker(settings(server.url))
    broker.check()
    for streams in broker.keys.streams.values():
        broker.client.delete(*streams)
    light = hire(broker)
    broker.client.xgroup_destroy(broker.keys.streams["light"][1], GROUP)
    publish(broker)
    assert light.end(light.one()) == 1
    broker.client.flushdb()
    broker.close()


@contextmanager
def relay(port: int) -> Iterator[tuple[int, threading.Event]]:
    """A port that passes bytes on to another, and an event that makes it swallow them: a half-open connection."""
    swallow = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while chunk := source.recv(65536):
                if not swallow.is_set():
                    target.sendall(chunk)
        except OSError:
            pass
        finally:
            source.close()
            target.close()

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", port))
            for pair in ((near, far), (far, near)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1], swallow
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_a_half_open_connection_is_given_up_in_seconds_and_replaced() -> None:
    with folder() as where, EmbeddedRedis(where, port=free_port()) as server, relay(server.port) as (port, swallow):
        broker = Broker(settings(f"redis://127.0.0.1:{port}/0"))
        broker.check()
        broker.wait("light", 0.01)  # both connections stand
        swallow.set()
        began = time.monotonic()
        with pytest.raises(Unreachable):
            broker.now()
        with pytest.raises(Unreachable):
            broker.wait("light", BLOCK_S)
        assert time.monotonic() - began < 3 * (BLOCK_S + ANSWER_S)
        swallow.clear()
        served(broker)
        broker.wait("light", 0.01)
        broker.close()


def test_services_go_on_after_a_failover_of_the_sentinels() -> None:
    with watched_servers(BINARIES[0]) as servers:
        chosen = settings(servers.url, cascade="sdturbo", backend="sleeping", policy="clipper-light", slots=1)
        broker = Broker(chosen)
        broker.check()
        with service(chosen, "keeper"), service(chosen, "control"), worker(chosen):
            until(broker.plan, "a plan is in force")
            publish(broker, "before")
            until(lambda: "before" in ends(broker), "a prompt is drawn")
            assert servers.primary.pid is not None
            os.kill(servers.primary.pid, signal.SIGKILL)
            until(lambda: offered(broker, "after"), "the door opens again")
            until(lambda: patient(lambda: "after" in ends(broker)), "a prompt is drawn after the failover")
        broker.close()


def offered(broker: Broker, prompt_id: str) -> bool:
    return bool(patient(lambda: publish(broker, prompt_id).status in ("published", "known")))


def patient(act: Any) -> Any:
    """What it returns, or None while Redis is away."""
    try:
        return act()
    except Unreachable:
        time.sleep(0.1)
        return None
