"""The profiler's figures, its table, and its command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from models import profiler
from models.backend import Abandoned, OutOfMemory, Picture, never
from shared.catalog import TABLES, unmeasured
from shared.errors import SettingsError
from shared.files import write_text
from shared.measured import read_profiles
from shared.messages import Job
from shared.schema import Stage


class Drawing:
    """Takes a scripted number of seconds for each timed batch; more than `room` prompts do not fit."""

    def __init__(self, took_s: Sequence[float], room: int = 99) -> None:
        self.stage: Stage = "heavy"
        self.now = 0.0
        self.drawn: list[int] = []
        self._took_s = took_s
        self._room = room

    def warm_up(self, batches: Sequence[int]) -> None:
        if max(batches) > self._room:
            raise OutOfMemory("too many")
        self.now += 1000.0  # must not be counted

    def draw(self, jobs: Sequence[Job], _abandoned: Abandoned = never) -> list[Picture]:
        self.now += self._took_s[len(self.drawn) % len(self._took_s)] * len(jobs)
        self.drawn.append(len(jobs))
        return [Picture(b"") for _ in jobs]

    def clock(self) -> float:
        return self.now


def test_the_median_and_the_nearest_rank_are_of_the_timed_batches_only() -> None:
    backend = Drawing([0.5, 0.25, 4.0, 1.0, 2.0])
    (row,) = profiler.measure_all(backend, [2], 5, lambda: 1.5, backend.clock)
    assert row == profiler.Measured(batch=2, p50_s=2.0, p95_s=8.0, memory_gib=1.5)
    assert backend.drawn == [2] * 5


def test_p95_by_nearest_rank() -> None:
    assert profiler.nearest_rank(range(1, 101), 0.95) == 95
    assert profiler.nearest_rank(range(1, 21), 0.95) == 19
    assert profiler.nearest_rank([3.0, 1.0, 2.0], 0.95) == 3.0


def test_batches_are_measured_ascending_up_to_what_fits() -> None:
    backend = Drawing([1.0], room=4)
    rows = profiler.measure_all(backend, [8, 4, 1, 4], 2, lambda: 0.0, backend.clock)
    assert [row.batch for row in rows] == [1, 4]
    assert ",4,test\n" in profiler.table([], "m", "cpu", rows, "test")
    with pytest.raises(OutOfMemory):
        profiler.measure_all(Drawing([1.0], room=0), [1], 2, lambda: 0.0, backend.clock)


def test_other_gpu_types_keep_their_rows_and_the_planner_can_read_the_table(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    a100, cpu = profiler.Measured(1, 0.1, 0.2, 3.0), profiler.Measured(1, 0.5, 0.75, 0.4)
    slower = [profiler.Measured(1, 0.6, 0.9, 0.4), profiler.Measured(2, 1.0, 1.5, 0.4)]
    write_text(path, profiler.table([], "m", "a100", [a100], "published, elsewhere"))
    write_text(path, profiler.table(profiler.rows_of_others(path, "cpu"), "m", "cpu", [cpu], "measured"))
    write_text(path, profiler.table(profiler.rows_of_others(path, "cpu"), "m", "cpu", slower, "measured"))
    known = read_profiles(path)
    assert known["a100"].p50_s == {1: 0.1}
    assert (known["cpu"].p50_s, known["cpu"].p95_s) == ({1: 0.6, 2: 1.0}, {1: 0.9, 2: 1.5})
    assert path.read_text().splitlines()[0] == (TABLES / "profiles/sd-turbo.csv").read_text().splitlines()[0]


def test_a_write_that_fails_leaves_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.csv"
    path.write_text("old")

    def full(*_: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.csv"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("words", [["--cascade", "none"], ["--out", "/dev/null/x", "--stage", "light"]])
def test_what_a_user_can_mend_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert profiler.main([*words, "--batches", "1", "--repeats", "1"]) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert words[1] in said.err
    assert said.out == ""


@pytest.mark.parametrize("words", [["--batches", "0"], ["--batches", "a"], ["--repeats", "-1"]])
def test_numbers_that_make_no_sense_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        profiler.main(words)
    assert refused.value.code == 2


def test_a_catalogue_with_a_gap_is_named(tmp_path: Path) -> None:
    (tmp_path / "catalog.toml").write_text('[cascades.tiny]\nlight = "a"\nheavy = "b"\n[models.a]\nsource = "x"\n')
    with pytest.raises(SettingsError, match=r"catalog.toml: .*steps"):
        unmeasured("tiny", tmp_path)


def test_the_command_measures_the_tiny_light_model_and_says_nothing_else(tmp_path: Path) -> None:
    words = ["--stage", "light", "--batches", "1,2", "--repeats", "2", "--gpu", "cpu", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "models.profiler", *words],
        capture_output=True,
        text=True,
        cwd=TABLES.parent,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    path = tmp_path / "tiny-light.csv"
    assert done.stdout == f"{path}\n"
    known = read_profiles(path)["cpu"]
    assert known.batches == (1, 2)
    assert 0 < known.p50_s[1] <= known.p95_s[1] < 10
    assert f"measured, python -m models.profiler {' '.join(words)}" in path.read_text()
