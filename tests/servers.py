"""Servers with more than a bare Redis: over TLS, with access lists, with a replica and sentinels, as a cluster."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shared.cluster import HASH_SLOTS
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


@dataclass
class Cluster:
    """The nodes of a cluster, all primaries."""

    nodes: list[EmbeddedRedis]

    def say(self, node: EmbeddedRedis, *words: str | bytes | int) -> Any:
        """A command to one node, whichever node holds its keys."""
        client: Any = Connection(Settings(redis_url=f"unix://{node.folder}/redis.sock")).client
        try:
            return client.execute_command(*words)
        finally:
            client.close()

    def owner(self, slot: int) -> EmbeddedRedis:
        """The node that holds a hash slot, as the first node knows it."""
        rows = self.say(self.nodes[0], "CLUSTER", "SLOTS")
        (port,) = [row[2][1] for row in rows if row[0] <= slot <= row[1]]
        return next(node for node in self.nodes if node.port == port)

    def move(self, slot: int, to: EmbeddedRedis) -> None:
        """Give a slot with all its keys to another node, as resharding does."""
        old, new_id = self.owner(slot), self._id(to)
        self.say(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", self._id(old))
        self.say(old, "CLUSTER", "SETSLOT", slot, "MIGRATING", new_id)
        while keys := self.say(old, "CLUSTER", "GETKEYSINSLOT", slot, 100):
            self.say(old, "MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
        for node in (to, old, *self.nodes):
            self.say(node, "CLUSTER", "SETSLOT", slot, "NODE", new_id)

    def _id(self, node: EmbeddedRedis) -> str:
        told: bytes | str = self.say(node, "CLUSTER", "MYID")
        return told.decode() if isinstance(told, bytes) else told


@contextmanager
def cluster(binary: Path, size: int = 3) -> Iterator[Cluster]:
    """Nodes that share the hash slots evenly; skips where the server has no cluster mode."""
    with folder() as where, ExitStack() as running:
        options = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]
        made = Cluster(
            [EmbeddedRedis(where / str(n), port=bus_port(), binary=binary, options=options) for n in range(size)]
        )
        try:
            for node in made.nodes:
                running.enter_context(node)
        except ServerUnfit as unfit:
            pytest.skip(f"this server has no cluster mode: {unfit}")
        for number, node in enumerate(made.nodes):
            made.say(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            made.say(
                node, "CLUSTER", "ADDSLOTS", *range(HASH_SLOTS * number // size, HASH_SLOTS * (number + 1) // size)
            )
            made.say(made.nodes[0], "CLUSTER", "MEET", "127.0.0.1", node.port)
        end = time.monotonic() + 30
        while not all(b"cluster_state:ok" in made.say(node, "CLUSTER", "INFO") for node in made.nodes):
            assert time.monotonic() < end, "the nodes never became a cluster"
            time.sleep(0.05)
        yield made


def bus_port() -> int:
    """A free port beside which the port of the cluster's bus, 10,000 higher, is free too."""
    while True:
        port = free_port()
        with socket.socket() as probe:
            if port < 55_000 and probe.connect_ex(("127.0.0.1", port + 10_000)) != 0:
                return port
