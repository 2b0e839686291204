"""The compose files and images as a test reads them: variables filled in, commands with places of this machine."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.supervision import ROOT

HEAD: Final = ROOT / "docker-compose.yml"
GPU_NODE: Final = ROOT / "deploy" / "compose.gpu-node.yml"
CPU_NODE: Final = ROOT / "deploy" / "compose.cpu-node.yml"
FILES: Final = (HEAD, GPU_NODE, CPU_NODE)
IMAGES: Final = {"head": ROOT / "deploy" / "head.Dockerfile", "node": ROOT / "deploy" / "node.Dockerfile"}
# What the files demand, and nothing that they have a default for.
DEMANDED: Final = {"HEAD_ADDRESS": "10.0.0.1", "NODE_NAME": "gpu-1", "SLOTS": "2"}
_VARIABLE: Final = re.compile(r"\$\$|\$\{(\w+)(?::([-?])([^}]*))?\}")
_INSTRUCTION: Final = re.compile(r"^(COPY|ENTRYPOINT|CMD|USER|FROM|WORKDIR) (.*)$", re.MULTILINE)

Service = dict[str, Any]


def filled(value: Any, variables: Mapping[str, str]) -> Any:
    """A part of a compose file with its variables in place; KeyError with the file's words where one is demanded."""
    if isinstance(value, dict):
        return {name: filled(each, variables) for name, each in value.items()}
    if isinstance(value, list):
        return [filled(each, variables) for each in value]
    if not isinstance(value, str):
        return value

    def put(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        known = variables.get(found[1], "")
        if not known and found[2] == "?":
            raise KeyError(found[3])
        return known or (found[3] or "" if found[2] == "-" else "")

    return _VARIABLE.sub(put, value)


def services(file: Path, variables: Mapping[str, str] = DEMANDED) -> dict[str, Service]:
    """The services of a file that stand in it themselves, filled in; what is only passed on is there if set."""
    found: dict[str, Service] = filled(yaml.safe_load(file.read_text())["services"], variables)
    for service in found.values():
        told = service.get("environment", {})
        told |= {name: variables.get(name) for name, value in told.items() if value is None}
        service |= {"environment": {name: value for name, value in told.items() if value is not None}} if told else {}
    return {name: service for name, service in found.items() if "extends" not in service}


def started(service: Service) -> list[str]:
    """The whole command line of a service."""
    return [*service.get("entrypoint", []), *service.get("command", [])]


def here(words: Sequence[str], places: Mapping[str, Path | str]) -> list[str]:
    """A command line with this machine's places instead of a container's, and this Python."""
    found = [_placed(word, places) for word in words]
    return [sys.executable, *found[1:]] if found[0] == "python" else found


def environment_here(service: Service, places: Mapping[str, Path | str]) -> dict[str, str]:
    """A service's environment, likewise."""
    return {name: _placed(value, places) for name, value in service.get("environment", {}).items()}


def healthcheck_here(service: Service, places: Mapping[str, Path | str]) -> list[str]:
    """The command of a service's health check, likewise."""
    kind, *words = service["healthcheck"]["test"]
    return ["sh", "-c", _placed(words[0], places)] if kind == "CMD-SHELL" else here(words, places)


def _placed(word: str, places: Mapping[str, Path | str]) -> str:
    for place, instead in places.items():
        word = word.replace(place, str(instead))
    return word


def seconds(text: str) -> float:
    """What compose calls a duration, of seconds alone."""
    assert text.endswith("s"), text
    return float(text[:-1])


def instructions(image: str, kind: str) -> list[str]:
    """What stands behind each instruction of a kind in an image's Dockerfile."""
    text = IMAGES[image].read_text().replace("\\\n", " ")
    return [rest for found, rest in _INSTRUCTION.findall(text) if found == kind]


def entrypoint(image: str) -> list[str]:
    """The entrypoint of an image, in exec form."""
    (found,) = instructions(image, "ENTRYPOINT")
    words: list[str] = json.loads(found)
    return words


def copied(image: str) -> Iterator[tuple[str, str]]:
    """Each source that an image copies, and where it goes below the image's folder."""
    for rest in instructions(image, "COPY"):
        *sources, target = shlex.split(rest)
        for source in sources:
            yield source, f"{target}{Path(source).name}" if target.endswith("/") else target


def left_out(image: str) -> list[str]:
    """Modules of the requirements that an image does not install."""
    text = IMAGES[image].read_text()
    names = text[text.index("grep -vE '^(") + len("grep -vE '^(") :].split(")")[0]
    return [name.replace("-", "_") for name in names.split("|")]


def built(image: str, where: Path) -> dict[str, str]:
    """Copy what an image's folder holds; the environment in which the libraries that it lacks are not found."""
    for source, target in copied(image):
        place = where / (source if target == "." else target)
        place.parent.mkdir(parents=True, exist_ok=True)
        spared = shutil.ignore_patterns("__pycache__", "weights", "*.safetensors")
        shutil.copytree(ROOT / source, place, ignore=spared) if (ROOT / source).is_dir() else shutil.copy(
            ROOT / source, place
        )
    blocked = where / "blocked"
    blocked.mkdir()
    for name in left_out(image):
        (blocked / f"{name}.py").write_text("raise ImportError('not in this image')\n")
    return {"PYTHONPATH": f"{blocked}:{where}"}


def said_by(words: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, **options)
