"""What a user gets who starts a service amiss: one line that says what and where, and exit code 2."""

from __future__ import annotations

import os
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
from shared.embedded import EmbeddedRedis
from shared.log import configure
from tests.helpers import hire, publish

SERVICES = ["control", "keeper", "publisher"]


def start(service: str, *options: str, url: str = "redis://127.0.0.1:1/0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"services.{service}", *options],
        cwd=ROOT,
        env={**os.environ, "REDIS_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
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


@pytest.mark.parametrize("service", SERVICES)
def test_a_redis_that_is_not_there_is_one_line(service: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s\n0.1\n")
    options = ["--trace", str(trace)] if service == "publisher" else []
    assert "127.0.0.1:1" in one_line(start(service, *options))


def test_a_redis_that_is_too_old_is_one_line() -> None:
    text = b"redis_version:5.0.14\r\nrole:master\r\n"
    with server_that_says(b"$%d\r\n%s\r\n" % (len(text), text)) as url:
        assert "5.0.14; 6.2 or newer is needed" in one_line(start("keeper", url=url))


def test_a_redis_that_loads_is_one_line() -> None:
    with server_that_says(b"-LOADING Redis is loading the dataset in memory\r\n") as url:
        assert "loading" in one_line(start("keeper", url=url))


def test_a_read_only_replica_is_one_line(server: EmbeddedRedis, broker: Broker) -> None:
    client: Any = broker.client
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        assert "read-only replica" in one_line(start("keeper", url=server.url))
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
