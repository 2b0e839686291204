"""The head node's compose file: its commands are those that the tests run as processes, and nothing is open."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.runner import Run
from deploy.supervision import HEAD, ROOT
from shared.broker import Broker
from shared.config import Settings
from shared.embedded import server_binaries
from shared.errors import CascadeError
from shared.process import die_with_parent
from tests.processes import until
from tests.servers import free_port

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_the_head_runs_redis_and_the_heads_services() -> None:
    always = {name for name, service in COMPOSE["services"].items() if "profiles" not in service}
    assert always == {"redis", *HEAD, "gateway"}
    for name in (*HEAD, "gateway"):
        command = COMPOSE["services"][name]["command"][:3]
        assert command == ["python", "-m", f"services.{name}"]
        said = subprocess.run([sys.executable, *command[1:], "--help"], cwd=ROOT, capture_output=True, check=True)
        assert b"--redis-url" in said.stdout


def test_redis_asks_for_a_password_and_listens_on_a_named_address() -> None:
    redis = COMPOSE["services"]["redis"]
    assert redis["command"][redis["command"].index("--maxmemory-policy") + 1] == "noeviction"
    (port,) = redis["ports"]
    assert port.startswith("${HEAD_ADDRESS:-127.0.0.1}:"), "never on all addresses"


def test_redis_gets_its_password_unseen_by_who_lists_processes(tmp_path: Path) -> None:
    port, password = free_port(), "not-for-all-eyes"
    (tmp_path / "docker-entrypoint.sh").write_text('#!/bin/sh\necho "$@" > arguments\nexec "$@"\n')
    (tmp_path / "docker-entrypoint.sh").chmod(0o755)
    (tmp_path / "redis-server").symlink_to(server_binaries()[0])
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    assert not [word for word in redis_command() if "${REDIS_PASSWORD" in word], "compose would write it out"
    command = [word.replace("$$", "$").replace("${REDIS_MEMORY:-2gb}", "1gb") for word in redis_command()]
    with subprocess.Popen(
        [*command, "--port", str(port), "--dir", str(tmp_path)],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        env={"PATH": path, "REDIS_PASSWORD": password},
        preexec_fn=die_with_parent,
    ) as process:
        try:
            until(lambda: listens(port), "Redis listens")
            arguments = (tmp_path / "arguments").read_text()  # the server hides its own soon, not from the first look
            assert "--appendonly yes" in arguments
            assert password not in arguments
            Broker(Settings(redis_url=f"redis://:{password}@127.0.0.1:{port}")).check()
            with pytest.raises(CascadeError, match="uthent"):
                Broker(Settings(redis_url=f"redis://127.0.0.1:{port}")).check()
        finally:
            process.terminate()


def redis_command() -> list[str]:
    return list(COMPOSE["services"]["redis"]["command"])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_gateway_asks_for_keys_and_listens_on_a_named_address() -> None:
    gateway = COMPOSE["services"]["gateway"]
    keys = Path(gateway["command"][gateway["command"].index("--http-keys") + 1])
    assert keys.parent == Path(gateway["volumes"][0]["target"]), "a mounted file would not change with the one outside"
    assert all(port.startswith("${HEAD_ADDRESS:-127.0.0.1}:") for port in gateway["ports"]), "never on all addresses"


def test_a_deployment_survives_the_loss_of_power_and_a_demo_a_kill_of_redis() -> None:
    command = COMPOSE["services"]["redis"]["command"]
    given = {name: command[command.index(name) + 1] for name in ("--appendonly", "--appendfsync")}
    assert given == {"--appendonly": "yes", "--appendfsync": "always"}
    assert "--maxmemory" in command, "admission refuses at 80 % of it, pictures keep to a quarter"
    assert Run(Path(), Settings(), Path()).durability == "everysec"


def test_every_service_of_the_head_is_imported_from_what_its_image_holds(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "head.Dockerfile").read_text()
    for line in (line.split()[1:] for line in text.splitlines() if line.startswith("COPY")):
        for source in line[:-1]:
            place = tmp_path / (
                source if Path(source).name == Path(line[-1]).name else f"{line[-1]}/{Path(source).name}"
            )
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(ROOT / source, place) if (ROOT / source).is_dir() else shutil.copy(ROOT / source, place)
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for name in re.findall(r"\w+", text[text.index("grep -vE '^(") + 11 :].split(")")[0]):
        (blocked / f"{name}.py").write_text("raise ImportError('not in this image')\n")
    services = ["control", "keeper", "gateway.__main__", "exporter", "doctor", "publisher", "ctl.__main__"]
    code = "; ".join(f"import services.{name}" for name in services)
    environment = {**os.environ, "PYTHONPATH": f"{blocked}:{tmp_path}"}
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_the_heads_image_copies_rooms_that_exist_and_leaves_torch_out() -> None:
    text = (ROOT / "deploy" / "head.Dockerfile").read_text()
    sources = [word for line in text.splitlines() if line.startswith("COPY") for word in line.split()[1:-1]]
    assert sources
    assert all((ROOT / source).exists() for source in sources)
    left_out = text[text.index("grep -vE '^(") :].split(")")[0]
    assert "torch" in left_out
    assert "diffusers" in left_out
