"""The chaos suite itself: its proxy, its accounts, and a short cut of its faults on a small fleet."""

from __future__ import annotations

import csv
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from deploy.chaos.arena import Arena
from deploy.chaos.faults import kill_workers
from deploy.chaos.judging import judged
from deploy.chaos.offering import Offer, Offering
from deploy.chaos.play import play
from deploy.chaos.programs import Programs
from deploy.chaos.proxy import Proxy
from deploy.chaos.report import COLUMNS, Played, row, write_csv
from deploy.chaos.server_faults import cut_network, kill_redis
from deploy.chaos.table import FAULTS, Fault
from deploy.chaos.witness import Witness
from deploy.runner import Deployment
from shared.broker import Broker
from shared.config import Settings
from shared.embedded import EmbeddedRedis
from shared.ledger import overlaps
from shared.messages import Outcome, Visit
from shared.observer import Observer
from tests.helpers import hire

pytestmark = pytest.mark.live

PING, PONG = b"PING\r\n", b"+PONG\r\n"


@pytest.fixture
def proxy(oldest_server: EmbeddedRedis) -> Iterator[Proxy]:
    with Proxy(oldest_server.folder / "redis.sock") as running:
        yield running


def connect(proxy: Proxy, timeout_s: float = 10.0) -> socket.socket:
    port = int(proxy.url.split(":")[-1].split("/")[0])
    return socket.create_connection(("127.0.0.1", port), timeout=timeout_s)


def answer(connection: socket.socket) -> bytes:
    """What comes back for a PING; nothing from a connection that was closed."""
    try:
        connection.sendall(PING)
        return connection.recv(64)
    except ConnectionError:
        return b""


def test_a_cut_proxy_closes_what_is_open_and_what_comes(proxy: Proxy) -> None:
    with connect(proxy) as before:
        assert answer(before) == PONG
        proxy.cut()
        assert before.recv(64) == b""
        with connect(proxy) as during:
            assert answer(during) == b""
    proxy.heal()
    with connect(proxy) as after:
        assert answer(after) == PONG


def test_half_open_connections_are_silent_and_only_who_sends_learns_it(proxy: Proxy) -> None:
    with connect(proxy) as sender, connect(proxy) as waiter:
        assert [answer(sender), answer(waiter)] == [PONG, PONG]
        proxy.half_open()
        sender.settimeout(0.5)
        with pytest.raises(TimeoutError):
            answer(sender)
        proxy.heal()
        sender.settimeout(10.0)
        assert sender.recv(64) == b"", "what it sent was never answered: it is told"
        waiter.settimeout(0.5)
        with pytest.raises(TimeoutError):
            waiter.recv(64)
        waiter.settimeout(10.0)
        assert answer(waiter) == b""
    with connect(proxy) as after:
        assert answer(after) == PONG


def test_a_slow_proxy_carries_everything_later(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        proxy.delay(0.3)
        began = time.monotonic()
        assert answer(connection) == PONG
        assert time.monotonic() - began >= 0.6, "there and back"


def outcome(slot: int, started: float, finished: float) -> Outcome:
    visit = Visit("light", f"node-{slot}-light-abc", started, finished, 1, 0.5)
    return Outcome(f"{slot}-{started}", "a cat", "light", "confident", 0.0, 9.0, finished, (visit,))


def test_batches_of_a_slot_that_overlap_are_found() -> None:
    apart = [outcome(1, 0.0, 1.0), outcome(1, 1.0, 2.0), outcome(2, 0.5, 1.5)]
    assert overlaps(apart) == []
    assert len(overlaps([*apart, outcome(2, 1.0, 3.0)])) == 1


def played(name: str = "kill", offered: int = 10, violation: float = 0.0, *broken: str) -> Played:
    return Played(name, "killed", 9.0, 2, offered, 0, 0, 0, 0, 0, 0, violation, (0.1, 0.5), broken)


def test_runs_of_a_fault_add_up_in_its_row() -> None:
    cells = dict(zip(COLUMNS, row([played(), played("kill", 30, 0.2, "too slow")], "a command"), strict=True))
    assert (cells["runs"], cells["faults"], cells["offered"], cells["recoveries"]) == ("2", "4", "40", "4")
    assert (cells["violation"], cells["recovery_p50_s"], cells["recovery_p99_s"]) == ("0.1500", "0.10", "0.50")
    assert (cells["holds"], cells["broken"]) == ("no", "too slow")


def test_a_fault_that_is_run_again_replaces_its_row_only(tmp_path: Path) -> None:
    path = tmp_path / "chaos.csv"
    write_csv([row([played("kill")], "first"), row([played("pause")], "first")], path)
    write_csv([row([played("pause", 20, 0.0, "slow, too")], "second")], path)
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [(each["fault"], each["offered"], each["command"]) for each in found] == [
        ("kill", "10", "first"),
        ("pause", "20", "second"),
    ]
    assert found[1]["broken"] == "slow, too"


def test_every_fault_says_what_it_is_and_goes_on_for_a_while() -> None:
    assert all(fault.what and fault.seconds > 0 for fault in FAULTS.values())


def one_of_each(arena: Arena, seconds: float) -> None:
    """Workers killed, control killed, Redis killed, the far node's connections cut."""
    kill_workers(arena, seconds / 2, every_s=1.0)
    arena.faults += 1
    arena.programs.send(["control"], signal.SIGKILL)
    kill_redis(arena, 0.5, times=1)
    cut_network(arena, seconds / 2)


def test_a_fleet_that_is_hurt_in_many_ways_answers_every_prompt_once(tmp_path: Path) -> None:
    fault = Fault("one of each", one_of_each, 8.0, slots=3, far=1, per_slot_s=1.5)
    found = play("short", fault, 0.5, 3, tmp_path, lambda _: None)
    assert found.broken == (), "nothing lost, nothing twice, no slot drawn on twice, no older plan"
    assert (found.lost, found.doubled) == (0, 0)
    assert found.faults >= 4
    assert found.offered > 20
    assert found.recoveries_s


def test_the_accounts_see_what_is_lost_answered_twice_or_settled_by_a_fenced_out_worker(
    oldest_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """What no fault may lead to is done by hand: one prompt vanishes, one is answered twice, one by a ghost."""
    settings = Settings(redis_url=oldest_server.url, deployment="accounts", log_dir=tmp_path)
    broker = Broker(settings)
    broker.check()
    running = cast(Deployment, SimpleNamespace(broker=broker, observer=Observer(broker), settings=settings))
    offering, witness = Offering(broker, Offer(200.0, 30.0)), Witness(broker, 1.0)
    arena = Arena(running, cast(Programs, None), offering, witness, 1.0)
    offering.start()
    while len(offering.said) < 3:
        time.sleep(0.01)
    offering.stop()
    light = hire(broker)
    lost, *others = light.take(1000)
    assert all(light.end(entry) for entry in others)
    broker.client.xadd(broker.keys.done, dict(Observer(broker).latest(broker.keys.done, 1)[0][1]))  # type: ignore[arg-type]
    arena.fenced[light.name] = {others[0].job.id}
    witness.start()
    witness.stop()
    found = judged("accounts", Fault("by hand", kill_workers, 1.0), arena, 1.0)
    broker.client.flushdb()
    assert (found.offered, found.lost, found.doubled) == (len(others) + 1, 1, 1)
    assert [words for words in found.broken if lost.job.id in words and "lost" in words]
    assert "1 answered twice" in found.broken
    assert [words for words in found.broken if words.startswith(f"{others[0].job.id} was settled by {light.name}")]
    assert "no fault was injected" in found.broken
