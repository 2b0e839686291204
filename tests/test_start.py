"""What a user gets who starts a service amiss: one line that says what and where, and exit code 2."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.recorder import Recorder
from deploy.supervision import ROOT
from shared.broker import Broker
from shared.config import Settings
from shared.embedded import EmbeddedRedis
from shared.log import configure
from tests.helpers import hire, publish
from tests.processes import PATIENCE_S, service, until
from tests.servers import folder, free_port

pytestmark = pytest.mark.live

PATIENT = {"keeper": [], "control": [], "agent": [], "worker": ["--stage", "light"], "gateway": ["--http-port", "0"]}
LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"


def start(service: str, *options: str, url: str = "redis://127.0.0.1:1/0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"services.{service}", *options],
        cwd=ROOT,
        env={**os.environ, "REDIS_URL": url},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def one_line(ended: subprocess.CompletedProcess[str]) -> str:
    assert ended.returncode == 2, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, ended.stderr
    return lines[0]


@contextmanager
def server_that_says(info: bytes) -> Iterator[str]:
    """Something that answers every command of the Redis protocol with the same words."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    while received := connection.recv(65536):
                        commands = received.count(b"*") if received.startswith(b"*") else 1
                        greeted = b"PING" in received and not info.startswith(b"-")  # a new connection is tried first
                        connection.sendall(b"+PONG\r\n" if greeted else info * commands)

        threading.Thread(target=answer, daemon=True).start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        listener.shutdown(socket.SHUT_RDWR)


def said(log: Path, words: str, times: int = 1) -> bool:
    return log.exists() and log.read_text().count(words) >= times


def patient(url: str) -> Settings:
    """Of services that find their Redis there, sooner or later."""
    return Settings(redis_url=url, deployment="late", node="test", cascade="sdturbo", backend="sleeping")


@pytest.mark.parametrize("name", PATIENT)
def test_a_service_waits_for_a_redis_that_comes_later(name: str, tmp_path: Path) -> None:
    log, port = tmp_path / "log", free_port()
    chosen = patient(f"redis://127.0.0.1:{port}/0")
    with folder() as where, service(chosen, name, *PATIENT[name], log=log) as process:
        until(lambda: said(log, "redis is away", 4), "it asks again and again")
        assert not said(log, '"ready"')
        with EmbeddedRedis(where, port=port):
            until(lambda: said(log, '"ready"'), "it begins")
            assert process.poll() is None


@pytest.mark.parametrize("name", PATIENT)
def test_sigterm_ends_the_waiting(name: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with service(patient("redis://127.0.0.1:1/0"), name, *PATIENT[name], log=log) as process:
        until(lambda: said(log, "redis is away"), "it waits")
        process.terminate()
        assert process.wait(timeout=PATIENCE_S) in (0, -signal.SIGTERM)
    assert not said(log, '"ready"')
    assert not said(log, "Traceback")


def test_a_redis_that_loads_is_waited_for(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with server_that_says(LOADING) as url, service(patient(url), "keeper", log=log) as process:
        until(lambda: said(log, "loading", 3), "it waits")
        assert process.poll() is None


def test_a_replica_is_waited_for_until_it_leads(broker: Broker, tmp_path: Path) -> None:
    client: Any = broker.client
    log = tmp_path / "log"
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        with service(broker.settings, "keeper", log=log):
            until(lambda: said(log, "read-only replica", 3), "it waits")
            client.execute_command("REPLICAOF", "NO", "ONE")
            until(lambda: client.exists(broker.keys.leader("keeper")), "it begins")
    finally:
        client.execute_command("REPLICAOF", "NO", "ONE")


@pytest.mark.parametrize("name", PATIENT)
def test_a_password_that_no_waiting_mends_is_one_line(name: str) -> None:
    with folder() as where, EmbeddedRedis(where, port=free_port()) as server:
        url = f"redis://nobody:wrong@127.0.0.1:{server.port}/0"
        assert f"127.0.0.1:{server.port}" in one_line(start(name, *PATIENT[name], url=url))


@pytest.mark.parametrize("command", ["publisher", "ctl"])
def test_to_people_a_redis_that_is_not_there_is_one_line(command: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s\n0.1\n")
    options = ["--trace", str(trace)] if command == "publisher" else ["cancel", "p"]
    assert "127.0.0.1:1" in one_line(start(command, *options))


def test_a_redis_that_is_too_old_is_one_line() -> None:
    text = b"redis_version:5.0.14\r\nrole:master\r\n"
    with server_that_says(b"$%d\r\n%s\r\n" % (len(text), text)) as url:
        assert "5.0.14; 6.2 or newer is needed" in one_line(start("keeper", url=url))


def test_to_people_a_redis_that_loads_is_one_line() -> None:
    with server_that_says(LOADING) as url:
        assert "loading" in one_line(start("ctl", "cancel", "p", url=url))


def test_to_people_a_read_only_replica_is_one_line(server: EmbeddedRedis, broker: Broker) -> None:
    client: Any = broker.client
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        assert "read-only replica" in one_line(start("ctl", "cancel", "p", url=server.url))
    finally:
        client.execute_command("REPLICAOF", "NO", "ONE")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("arrival_s\n0.1\nsoon\n", ":3: arrival_s"),
        ("arrival_s\n-1\n", ":2: arrival_s"),
        ("arrival_s\nnan\n", ":2: arr"),
    ],
)
def test_a_broken_line_of_a_trace_is_named(tmp_path: Path, text: str, words: str) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(text)
    assert f"{trace}{words}" in one_line(start("publisher", "--trace", str(trace)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--trace", "/nowhere.csv"], "/nowhere.csv"),
        (["--trace", "/nowhere.csv", "--deadline-s", "soon"], "deadline_s"),
        (["--trace", "/nowhere.csv", "--deadline-s", "1", "--config", "/nowhere.toml"], "/nowhere.toml"),
    ],
)
def test_a_wrong_option_is_named(options: list[str], words: str) -> None:
    assert words in one_line(start("publisher", *options))


def test_an_unknown_cascade_or_policy_is_named() -> None:
    assert "no cascade 'huge'" in one_line(start("control", "--cascade", "huge"))
    assert "no 'best'" in one_line(start("control", "--policy", "best"))
    assert "solver: " in one_line(start("control", "--solver", "cplex"))


def test_a_policy_that_lacks_its_peak_or_its_file_says_so(tmp_path: Path) -> None:
    assert "peak_per_s: " in one_line(start("control", "--policy", "static"))
    assert "peak_per_s: " in one_line(start("control", "--policy", "static", "--peak-per-s", "inf"))
    assert "pinned: " in one_line(start("control", "--policy", "pinned"))
    path = tmp_path / "plan.toml"
    path.write_text("light_workers = 1\nheavy_workers = -1\n")
    assert f"{path}:2: heavy_workers: " in one_line(start("control", "--policy", "pinned", "--pinned", str(path)))


def test_a_full_disk_under_the_logs_is_said_once_and_serving_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "service.jsonl").symlink_to("/dev/full")
    logger = configure("service", tmp_path)
    for number in range(3):
        logger.info("line", extra={"number": number})
    said = capsys.readouterr().err
    assert said.count("cannot write the log") == 1
    assert said.count('"event": "line"') == 3, "the lines still reach standard error"


def test_a_full_disk_under_the_pictures_is_said_and_outcomes_are_still_counted(broker: Broker, tmp_path: Path) -> None:
    light = hire(broker)
    publish(broker, "p", "q")
    for entry in light.take(2):
        assert light.end(entry) == 1
    (tmp_path / "p-light.bin").symlink_to("/dev/full")
    recorder = Recorder(broker, tmp_path)
    recorder.look()
    assert "No space left" in recorder.trouble
    assert len(recorder.recording("tiny", 5.0, {}).outcomes) == 2
