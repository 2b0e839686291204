"""The compose files against the compose specification, and through a compose client where one is installed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_pydantic import ComposeSpecification
from pydantic import ValidationError

from deploy.supervision import ROOT
from tests.composing import CPU_NODE, DEMANDED, FILES, GPU_NODE, HEAD, said_by, services

PROFILES = {HEAD: ("people", "node", "observe"), GPU_NODE: ("fetch", "profile"), CPU_NODE: ()}


def client() -> list[str] | None:
    """The command of a compose client: Docker's plugin, or one that stands alone."""
    if shutil.which("docker") and said_by(["docker", "compose", "version"]).returncode == 0:
        return ["docker", "compose"]
    found = shutil.which("docker-compose")
    return [found] if found else None


CLIENT = client()
needs_client = pytest.mark.skipif(CLIENT is None, reason="no compose client: install Debian's docker-compose")


def read(file: Path) -> dict[str, Any]:
    """The file without its extension fields, which the schema's classes do not know."""
    whole: dict[str, Any] = yaml.safe_load(file.read_text())
    return {name: part for name, part in whole.items() if not name.startswith("x-")}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_file_is_as_the_specification_says(file: Path) -> None:
    ComposeSpecification.model_validate(read(file))


def test_the_specification_refuses_what_is_misspelt() -> None:
    whole = read(CPU_NODE)
    whole["services"]["node"]["enviroment"] = {}
    with pytest.raises(ValidationError, match="enviroment"):
        ComposeSpecification.model_validate(whole)


def config(file: Path, variables: dict[str, str]) -> tuple[int, str, str]:
    """What the client makes of a file: exit code, the file as it would run it, and what it complains about."""
    assert CLIENT is not None
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    environment = {**kept, "COMPOSE_PROFILES": ",".join(PROFILES[file]), **variables}
    said = said_by([*CLIENT, "-f", str(file), "config"], cwd=ROOT, env=environment)
    return said.returncode, said.stdout, said.stderr


@needs_client
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_client_reads_it_as_we_do(file: Path) -> None:
    code, said, errors = config(file, DEMANDED)
    assert code == 0, errors
    made = yaml.safe_load(said)["services"]
    ours = services(file)
    assert set(made) - {"node"} == set(ours) - {"node"}
    for name, service in ours.items():
        for part in ("command", "entrypoint"):
            read_back = [word.replace("$$", "$") for word in made[name].get(part) or []]
            assert read_back == list(service.get(part, [])), f"{name}: {part}"
        told = {key: str(value or "") for key, value in made[name].get("environment", {}).items() if value is not None}
        assert told == service.get("environment", {}), name


@needs_client
def test_the_node_beside_the_head_speaks_to_the_heads_redis() -> None:
    code, said, errors = config(HEAD, {"HEAD_ADDRESS": "127.0.0.1"})
    assert code == 0, errors
    made = yaml.safe_load(said)["services"]["node"]
    apart = services(CPU_NODE, {"HEAD_ADDRESS": "127.0.0.1"})["node"]
    assert made["entrypoint"] == apart["entrypoint"]
    beside = {name: value.replace("127.0.0.1", "redis") for name, value in apart["environment"].items()}
    told = {name: str(value) for name, value in made["environment"].items() if value is not None}
    assert told == beside


@needs_client
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_client_says_what_to_set(file: Path) -> None:
    lacking = "HEAD_ADDRESS"
    code, _, errors = config(file, {name: value for name, value in DEMANDED.items() if name != lacking})
    assert code != 0
    assert f"set {lacking} to" in errors
