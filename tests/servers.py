"""Servers with more than a bare Redis: over TLS, with access lists, with a replica and sentinels."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shared.config import Settings
from shared.connection import CommandRefused, Connection, Unreachable
from shared.embedded import EmbeddedRedis
from shared.errors import ServerUnfit
from shared.process import die_with_parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for a unix socket."""
    made = Path(tempfile.mkdtemp(prefix="cascade-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def certificate(where: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, its key beside it; skips where no openssl is found."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("the openssl command is needed to make a certificate")
    made = where / "server.pem"
    command = [program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=cascade"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(made), "-keyout", str(where / "server.key")]
    subprocess.run(command, check=True, capture_output=True)
    return made


@contextmanager
def secure_server(binary: Path, further: Sequence[str] = ()) -> Iterator[str]:
    """The address of a server that speaks TLS, with the certificate that vouches for it; skips where it cannot."""
    with folder() as where:
        pem, port = certificate(where), free_port()
        options = ["--tls-port", str(port), "--tls-cert-file", str(pem), "--tls-key-file", str(where / "server.key")]
        options += ["--tls-ca-cert-file", str(pem), "--tls-auth-clients", "no", *further]
        server = EmbeddedRedis(where, binary=binary, options=options)
        try:
            server.start()
        except ServerUnfit as unfit:
            pytest.skip(f"this server was built without TLS: {unfit}")
        try:
            yield f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={pem}"
        finally:
            server.stop()


@dataclass
class Watched:
    """A primary, its replica, and the address of the sentinel that watches them."""

    url: str
    primary: EmbeddedRedis
    replica: EmbeddedRedis


@contextmanager
def watched_servers(binary: Path) -> Iterator[Watched]:
    """Two servers under a sentinel that fails over after half a second of silence."""
    with folder() as where:
        primary = EmbeddedRedis(where / "a", port=free_port(), binary=binary)
        with primary:
            options = ["--replicaof", "127.0.0.1", str(primary.port)]
            with EmbeddedRedis(where / "b", port=free_port(), binary=binary, options=options) as replica:
                copied(replica)
                with sentinel(binary, where, primary.port) as port:
                    yield Watched(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{port}/pictures/0", primary, replica)


def copied(replica: EmbeddedRedis) -> None:
    client: Any = Connection(Settings(redis_url=replica.url)).client
    end = time.monotonic() + 30
    while client.info("replication").get("master_link_status") != "up":
        assert time.monotonic() < end, "the replica never caught up"
        time.sleep(0.05)
    client.close()


@contextmanager
def sentinel(binary: Path, where: Path, primary_port: int) -> Iterator[int]:
    port = free_port()
    file = where / "sentinel.conf"
    lines = [f"port {port}", "bind 127.0.0.1", f"dir {where}", f"sentinel monitor pictures 127.0.0.1 {primary_port} 1"]
    lines += ["sentinel down-after-milliseconds pictures 500", "sentinel failover-timeout pictures 3000"]
    file.write_text("\n".join(lines) + "\n")
    with (where / "sentinel.log").open("wb") as log:
        command = [str(binary), str(file), "--sentinel"]
        process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with_parent)
    try:
        client: Any = Connection(Settings(redis_url=f"redis://127.0.0.1:{port}/0")).client
        end = time.monotonic() + 30
        while not knows_its_replica(client):
            assert time.monotonic() < end, "the sentinel never found the replica"
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


def knows_its_replica(client: Any) -> bool:
    try:
        return bool(client.execute_command("SENTINEL", "REPLICAS", "pictures"))
    except (CommandRefused, *Unreachable):
        return False
