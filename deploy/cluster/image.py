"""What an image would hold, without building one: the files its Dockerfile copies, and how its process starts.

What is installed (`RUN`) is not done: a container here sees this machine's own programs below the image's files, and
the project's own environment in the place of the image's Python.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path
from typing import Final

from deploy.cluster.composefile import words
from shared.embedded import server_binaries
from shared.errors import ServerUnfit, SettingsError

SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
USER: Final = 10001  # whoever the image's user is called: not root
REDIS: Final = re.compile(r"(.*/)?(redis|valkey)(:.*)?")
# Redis' own image starts its server through a script of this name, which gives up root and runs what it is told.
ENTRYPOINT: Final = '#!/bin/sh\nexec "$@"\n'


@dataclass(frozen=True)
class Image:
    """Files below `root`, and what its process has. `user`: empty for root. `health`: a Dockerfile's own command."""

    root: Path
    environment: dict[str, str]
    workdir: str = "/"
    user: str = ""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


def image_of(dockerfile: Path | None, name: str, root: Path) -> Image:
    """Lay out an image's files in a folder; raises SettingsError where it is none that can be imitated."""
    if dockerfile is not None:
        return _built(dockerfile, root)
    if REDIS.fullmatch(name):
        return _redis(root)
    raise SettingsError(f"the image {name} is not to be had without an engine")


def _built(dockerfile: Path, root: Path) -> Image:
    path = f"{Path(sys.prefix) / 'bin'}:{SYSTEM_PATH}"
    image = Image(root, {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"})
    stages: dict[str, Image] = {}
    stage = ""
    for verb, rest in _instructions(dockerfile):
        if verb == "FROM":
            source, *alias = [word for word in rest.split() if not word.startswith("--")]
            stage = alias[1] if len(alias) > 1 else ""
            # A stage that builds on another of the file has its files; all are laid out in one place.
            image = stages.get(source, Image(root, {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}))
        elif verb == "COPY":
            _copy(rest, dockerfile.parent.parent, root, image.workdir)
        else:
            image = _said(image, verb, rest)
        stages[stage] = image
    return image


def number_of(user: str) -> int:
    """The number of an image's user; 0 for root, and one of its own for a name, since nobody was added."""
    name = user.split(":")[0]
    return 0 if name in ("", "root") else int(name) if name.isdecimal() else USER


def _said(image: Image, verb: str, rest: str) -> Image:
    """The image after an instruction that copies nothing."""
    if verb == "ENV":
        pairs = dict(word.split("=", 1) for word in shlex.split(rest))
        known = image.environment
        filled = {name: _filled(value, known) for name, value in pairs.items()}
        if "PATH" in filled:  # its own Python is not here: ours stays the first
            filled["PATH"] = f"{known['PATH'].split(':')[0]}:{filled['PATH']}"
        return replace(image, environment=known | filled)
    if verb == "WORKDIR":
        (image.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        return replace(image, workdir=rest)
    if verb == "USER":
        return replace(image, user=rest)
    if verb in ("ENTRYPOINT", "CMD"):
        started = words(json.loads(rest) if rest.startswith("[") else rest)
        return replace(image, entrypoint=started) if verb == "ENTRYPOINT" else replace(image, command=started)
    return image


def _filled(text: str, known: dict[str, str]) -> str:
    return re.sub(r"\$\{?(\w+)\}?", lambda found: known.get(found[1], ""), text)


def _instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if line.strip():
            verb, _, rest = line.strip().partition(" ")
            yield verb.upper(), rest.strip()


def _copy(rest: str, context: Path, root: Path, workdir: str) -> None:
    parts = shlex.split(rest)
    if any(word.startswith("--from") for word in parts):
        return  # of what another stage installed
    *sources, target = [word for word in parts if not word.startswith("--")]
    place = root / str(Path(workdir) / target).lstrip("/")
    into = target.endswith("/") or len(sources) > 1
    for source in sources:
        found = [Path(each) for each in glob(str(context / source))]
        if not found:
            raise SettingsError(f"the image copies {source}, which is not there")
        for each in found:
            at = place / each.name if into and each.is_file() else place
            at.parent.mkdir(parents=True, exist_ok=True)
            if each.is_dir():
                shutil.copytree(each, at, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(each, at / each.name if at.is_dir() else at)


def _redis(root: Path) -> Image:
    """The oldest server that Redis' image could stand for is the first of this machine's own."""
    binary = next(iter(server_binaries()), None)
    client = shutil.which("redis-cli")
    if binary is None or client is None:
        raise ServerUnfit("redis-server and redis-cli are needed: make system")
    programs = root / "usr/local/bin"
    programs.mkdir(parents=True, exist_ok=True)
    (programs / "docker-entrypoint.sh").write_text(ENTRYPOINT)
    (programs / "docker-entrypoint.sh").chmod(0o755)
    for name, program in (("redis-server", binary), ("redis-cli", Path(client))):
        shutil.copy(program, programs / name)
    (root / "data").mkdir(exist_ok=True)
    return Image(root, {"PATH": SYSTEM_PATH}, "/data", entrypoint=("docker-entrypoint.sh",), command=("redis-server",))
