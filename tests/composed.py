"""Services of the compose files as processes of this machine: no engine, no container, their own command lines."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.secrets import SERVER, make_keys, make_secrets
from deploy.supervision import ROOT
from shared.broker import Broker
from shared.config import Settings
from shared.embedded import server_binaries, version_of
from shared.errors import CascadeError
from shared.process import die_with_parent
from tests.composing import HEAD, Service, environment_here, here, services, started
from tests.processes import Process
from tests.servers import free_port

Places = dict[str, Path | str]


@contextmanager
def redis_of_the_head(where: Path) -> Iterator[tuple[int, Places]]:
    """The compose file's Redis, with new secrets: its port, and this machine's places instead of a container's."""
    binary = next((each for each in server_binaries() if version_of(each) >= (7,)), None)
    if binary is None:
        pytest.skip("the access lists of the compose file are for Redis 7, and there is none here")
    make_secrets(where / "secrets", "cascade", SERVER)
    make_keys(where / "keys", "admin")
    for name in ("data", "run"):
        (where / name).mkdir()
    port, door = free_port(), free_port()
    places: Places = {f"/run/{name}": where / name for name in ("secrets", "keys")}
    places |= {"/run/cascade": where / "run", "/data": where / "data"}
    places |= {":6379/": f":{port}/", "@redis:": "@127.0.0.1:", ":8000/": f":{door}/"}
    command = here(services(HEAD)["redis"]["command"], places)
    assert command[0] == "redis-server"
    with (where / "redis.log").open("wb") as log:
        process = subprocess.Popen(
            [str(binary), *command[1:], "--port", str(port)], stdout=log, stderr=log, preexec_fn=die_with_parent
        )
    try:
        yield port, places
    finally:
        process.kill()
        process.wait()


@contextmanager
def running(service: Service, places: Places, log: Path, **more: str) -> Iterator[Process]:
    """A service of a compose file as a process; stopped as an engine stops it, and killed after its grace period."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            here(started(service), places),
            cwd=ROOT,
            env=environment_of_a_container(service, places, more),
            stdout=out,
            stderr=out,
            preexec_fn=die_with_parent,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()
            process.wait()


def environment_of_a_container(service: Service, places: Places, more: Mapping[str, str]) -> dict[str, str]:
    """Nothing of ours but what every program needs; what this machine's services are told stays out."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "CASCADE_DATA")}
    return {**kept, "PYTHONUNBUFFERED": "1", **environment_here(service, places), **more}


def broker_as(user: str, port: int, file: Path) -> Broker:
    """The deployment as one of its Redis users sees it."""
    return Broker(Settings(redis_url=f"redis://{user}@127.0.0.1:{port}/0?password_file={file}"))


def answers(broker: Broker) -> bool:
    """Whether Redis lets it in."""
    try:
        broker.check()
    except CascadeError:
        return False
    return True
