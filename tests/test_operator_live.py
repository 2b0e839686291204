"""A head and a node by hand, over TLS and with passwords, as deploy/by-hand.md prints it, up to a picture."""

from __future__ import annotations

import re
import shutil
import signal
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.config import Settings
from shared.connection import Connection, Unreachable
from shared.embedded import version_of
from shared.errors import ServerUnfit
from tests.operating import Shell, block
from tests.processes import until
from tests.servers import free_port

pytestmark = pytest.mark.live

Process = subprocess.Popen[bytes]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """The pages' ports are replaced by ones that are free here."""
    binary, tools = shutil.which("redis-server"), [shutil.which(name) for name in ("openssl", "curl")]
    if binary is None or None in tools or version_of(Path(binary)) < (7, 0):
        pytest.skip("Redis 7, openssl and curl are needed")
    changes = {"6379": str(free_port()), ":8000": f":{free_port()}"}
    return Shell(tmp_path / "s", changes, HEAD_ADDRESS="127.0.0.1", OMP_NUM_THREADS="1")


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for process in reversed(started):
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    try:
        connection = Connection(Settings(redis_url=url))
        connection.now()
        connection.close()
    except (ServerUnfit, *Unreachable):
        return False
    return True


def back_up(shell: Shell, port: int) -> None:
    """From another machine, as the administrator, over TLS: as the page says that redis-cli is to be called."""
    tool = shell.folder / "tools" / "redis-cli"
    options = f"--tls --cacert {shell.folder}/ca.crt -h 127.0.0.1 -p {port} --user admin"
    tool.write_text(f'#!/bin/sh\nexec {shutil.which("redis-cli")} {options} "$@"\n')
    tool.chmod(0o755)
    password = (shell.folder / "secrets" / "admin").read_text().strip()
    assert "RDB looks OK" in shell.run(block("backup"), REDISCLI_AUTH=password)
    tool.unlink()


def test_by_hand_from_bare_hosts_to_a_picture(shell: Shell, processes: list[Process], tmp_path: Path) -> None:
    key = re.findall(r"sk-\S+", shell.run(block("secrets")))[0]
    assert "redis.crt: OK" in shell.run(block("certificates"))

    def start(text: str, name: str) -> None:
        processes.append(shell.start(text, tmp_path / f"{name}.log"))

    start(block("redis"), "redis")
    place = shell.printed(f"127.0.0.1:6379/0?password_file={shell.folder}/secrets/gateway")
    trusted = f"rediss://gateway@{place}&ssl_ca_certs={shell.folder}/ca.crt"
    until(lambda: answers(trusted), "Redis answers over TLS", 30.0)
    assert not answers(f"redis://gateway@{place}"), "in the clear it answers nobody"
    assert not answers(f"rediss://gateway@{place}"), "who does not know the authority does not trust it"
    first, *services = block("head").strip().splitlines()
    port = shell.printed(":8000").removeprefix(":")
    for line in services:
        start(f"export CASCADE_HTTP_PORT={port}\n{first}\n{line}", "head")
    start(block("node"), "node")

    def picture() -> bool:
        try:
            shell.run(block("ask"), KEY=key)
        except AssertionError:
            return False
        return (shell.folder / "picture.webp").read_bytes()[8:12] == b"WEBP"

    until(picture, f"a picture: {(tmp_path / 'node.log').read_text()[-2000:]}", 120.0)
    port_of_redis = int(shell.printed("6379"))
    before = ssl.get_server_certificate(("127.0.0.1", port_of_redis))
    assert "OK" in shell.run(block("renew"))
    assert ssl.get_server_certificate(("127.0.0.1", port_of_redis)) != before, "the new certificate is shown"
    assert answers(trusted)
    back_up(shell, port_of_redis)
    said = shell.run(block("steer"), REDIS_URL=trusted)
    assert "gpu-1" in said and "drain gpu-1" in said
    assert "wrong" not in (tmp_path / "node.log").read_text().split("\ngpu ")[0]
