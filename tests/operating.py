"""The operator's pages: their blocks, and a shell that runs them as they are printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from deploy.supervision import ROOT
from shared.process import die_with_parent

PAGES: Final = tuple(
    ROOT / "deploy" / name
    for name in (
        "README.md",
        "by-hand.md",
        "reference.md",
        "redis/README.md",
        "redis/recipes.md",
        "kubernetes/README.md",
    )
)
NOT_RUN: Final = "not-run: "


class Block(NamedTuple):
    """A fenced block of a page: its language, what stands beside it, and its lines."""

    page: str
    language: str
    name: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page in their order."""
    for found in re.finditer(r"^```(\w*) ?(.*)\n((?:.*\n)*?)```$", page.read_text(), re.MULTILINE):
        yield Block(page.name, found[1], found[2].strip(), found[3])


def block(name: str) -> str:
    """The commands of that name; where several pages print them, they must be the same."""
    found = {each.text for page in PAGES for each in blocks(page) if each.name == name}
    assert len(found) == 1, f"the pages have {len(found)} blocks {name}"
    return found.pop()


class Shell:
    """Bash in a folder that stands for a checkout. `changes`: what stands for what is printed, such as a port."""

    def __init__(self, folder: Path, changes: Mapping[str, str], **variables: str) -> None:
        self.folder, self._changes = folder, changes
        tools = folder / "tools"
        tools.mkdir(parents=True)
        (tools / "python3").symlink_to(sys.executable)
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "traces").symlink_to(ROOT / "traces")
        paths = {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        self._environment = {**os.environ, **paths, **variables}

    def printed(self, text: str) -> str:
        """The commands, with the changes."""
        for old, new in self._changes.items():
            text = text.replace(old, new)
        return text

    def run(self, text: str, **variables: str) -> str:
        """What they print; none of them may fail."""
        options = {**self._place(variables), "capture_output": True, "text": True, "timeout": 300}
        ended: subprocess.CompletedProcess[str] = subprocess.run(self._command(text), check=False, **options)
        assert ended.returncode == 0, f"{text}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    def start(self, text: str, log: Path) -> subprocess.Popen[bytes]:
        """Commands of which the last one stays; it is the process that is returned."""
        *before, last = self.printed(text).strip().replace("\\\n", " ").splitlines()
        script = "\n".join([*before, f"exec env {last}"])
        with log.open("ab") as out:
            return subprocess.Popen(
                ["bash", "-euc", script],
                **self._place({}),
                stdout=out,
                stderr=out,
                preexec_fn=die_with_parent,
            )

    def _command(self, text: str) -> list[str]:
        return ["bash", "-euc", self.printed(text)]

    def _place(self, variables: Mapping[str, str]) -> dict[str, Any]:
        return {"cwd": self.folder, "env": {**self._environment, **variables}}
