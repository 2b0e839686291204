"""`make bench`: what a kind of measurement needs, it alone needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.bench import KINDS
from deploy.speed_cases import cases
from deploy.supervision import ROOT
from models.switches import parse

pytestmark = pytest.mark.live

# A name that is None in there cannot be imported: as on a machine without that library.
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from deploy import bench
bench.REPEATS = 1
sys.exit(bench.main())
"""


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_the_queue_is_measured_without_torch(tmp_path: Path) -> None:
    ended = bench("queue", "--prompts", "64", "--out", str(tmp_path / "bench.csv"))
    assert ended.returncode == 0, ended.stderr
    assert "queue, appendfsync always," in (tmp_path / "bench.csv").read_text().replace('"', "")


def test_help_names_every_kind_and_every_switch_without_torch() -> None:
    ended = bench("--help")
    assert ended.returncode == 0, ended.stderr
    assert all(name in ended.stdout for name in KINDS)
    for switch, words in cases().items():
        assert switch in " ".join(ended.stdout.split())
        assert parse(words, "cpu") is not None


@pytest.mark.parametrize("kind", ["overlap", "speed"])
def test_what_draws_wants_torch(kind: str, tmp_path: Path) -> None:
    ended = bench(kind, "--out", str(tmp_path / "bench.csv"))
    assert ended.returncode != 0 and "torch" in ended.stderr
