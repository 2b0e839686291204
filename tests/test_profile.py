"""The profiler's figures, its table, and its command."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from models import profile
from models.backend import Abandoned, OutOfMemory, Picture, never
from models.profile_table import COLUMNS, Table
from models.timing import Measured, Patience, Profiling, measure, median_interval, nearest_rank
from shared.catalog import TABLES, unmeasured
from shared.errors import ModelError, SettingsError
from shared.files import write_text
from shared.measured import read_profiles
from shared.messages import Job
from shared.schema import Stage


class Drawing:
    """Takes a scripted number of seconds for each timed batch; more than `room` prompts do not fit.

    It is its own memory too: it holds 1 GiB and another `each_gib` for each prompt of the largest batch.
    """

    def __init__(self, took_s: Sequence[float], room: int = 99, each_gib: float = 0.5) -> None:
        self.stage: Stage = "heavy"
        self.now = 0.0
        self.drawn: list[int] = []
        self.tried: list[int] = []
        self.free = float("inf")
        self._took_s = took_s
        self._room = room
        self._each_gib = each_gib

    def warm_up(self, batches: Sequence[int]) -> None:
        self.tried += batches
        if max(batches) > self._room:
            raise OutOfMemory("too many")
        self.now += 1000.0  # must not be counted

    def draw(self, jobs: Sequence[Job], _abandoned: Abandoned = never) -> list[Picture]:
        self.now += self._took_s[len(self.drawn) % len(self._took_s)] * len(jobs)
        self.drawn.append(len(jobs))
        return [Picture(b"") for _ in jobs]

    def clock(self) -> float:
        return self.now

    def restart(self) -> None:
        self.tried.clear()

    def most_gib(self) -> float:
        return 1.0 + self._each_gib * max(self.tried)

    def free_gib(self) -> float:
        return self.free


def profiling(backend: Drawing, times: int = 2, rows: Sequence[Measured] = ()) -> Profiling:
    return Profiling(backend, backend, Patience(times, times), rows, backend.clock)


def test_the_median_and_the_nearest_rank_are_of_the_timed_batches_only() -> None:
    backend = Drawing([0.5, 0.25, 4.0, 1.0, 2.0])
    row = measure(backend, 2, Patience(5, 5), backend, backend.clock)
    assert row == Measured(batch=2, p50_s=2.0, p95_s=8.0, memory_gib=2.0)
    assert backend.drawn == [2] * 5


def test_p95_by_nearest_rank() -> None:
    assert nearest_rank(range(1, 101), 0.95) == 95
    assert nearest_rank(range(1, 21), 0.95) == 19
    assert nearest_rank([3.0, 1.0, 2.0], 0.95) == 3.0


def test_the_interval_holds_the_true_median_as_often_as_it_says() -> None:
    drawn = random.Random(7)
    for count in (6, 12, 25):
        intervals = [median_interval([drawn.expovariate(1.0) for _ in range(count)]) for _ in range(2000)]
        held = sum(low <= 0.6931 <= high for low, high in intervals) / len(intervals)
        assert 0.94 < held < 0.99, count
    assert median_interval([1.0] * 5) == (float("-inf"), float("inf"))


def test_a_batch_is_timed_until_its_median_is_known_and_no_longer_than_allowed() -> None:
    steady, restless = Drawing([1.0, 1.01]), Drawing([1.0, 2.0, 3.0])
    for backend, patience, expected in (
        (steady, Patience(7, 50, limit_s=1e9), 7),
        (restless, Patience(7, 30, limit_s=1e9), 30),
        (restless, Patience(7, 50, limit_s=20.0), 11),
        (restless, Patience(7, 50, limit_s=1.0), 7),
    ):
        backend.drawn.clear()
        measure(backend, 1, patience, backend, backend.clock)
        assert len(backend.drawn) == expected


@pytest.mark.parametrize("room", [4, 5, 6, 7, 8])
def test_the_ceiling_is_found_between_what_fits_and_what_does_not(room: int) -> None:
    found = profiling(Drawing([1.0], room))
    assert [row.batch for row in found.measure_all([8, 4, 1, 4, 16])] == [1, 4] + [8] * (room == 8)
    assert found.ceiling == room
    with pytest.raises(OutOfMemory):
        list(profiling(Drawing([1.0], room=0)).measure_all([1]))


def test_a_batch_that_would_end_the_process_is_foreseen_and_not_tried() -> None:
    backend = Drawing([1.0], each_gib=1.0)
    backend.free = 6.5
    found = profiling(backend)
    assert [row.batch for row in found.measure_all([1, 2, 4, 8, 16])] == [1, 2, 4]
    assert (found.ceiling, max(backend.tried)) == (7, 7), "seven take six times as much more as one"


def test_other_gpu_types_keep_their_rows_and_the_planner_can_read_the_table(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("model,gpu,batch,p50_s,p95_s,memory_gib,ceiling,source\nm,a100,1,0.1,0.2,,32,published\n")
    Table(path, "cpu", "measured").finish([Measured(1, 0.5, 0.75, 0.4)], 1, {})
    slower = [Measured(1, 0.6, 0.9, 0.4), Measured(2, 1.0, 1.5, 0.5)]
    Table(path, "cpu", "measured").finish(slower, 3, {"load_s": 4.5, "warm_s": 0.25, "swap_s": 0.125})
    known = read_profiles(path)
    assert (known["a100"].p50_s, known["a100"].load_s, known["a100"].swap_s) == ({1: 0.1}, None, None)
    assert (known["cpu"].p50_s, known["cpu"].p95_s) == ({1: 0.6, 2: 1.0}, {1: 0.9, 2: 1.5})
    assert (known["cpu"].load_s, known["cpu"].warm_s, known["cpu"].swap_s) == (4.5, 0.25, 0.125)
    assert known["cpu"].memory_gib == {1: 0.4, 2: 0.5}
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)


def test_what_a_killed_run_measured_is_not_measured_again_and_the_table_stays_until_it_is_through(
    tmp_path: Path,
) -> None:
    path = tmp_path / "m.csv"
    path.write_text("old")
    table, backend = Table(path, "cpu", "this command"), Drawing([1.0])
    rows = profiling(backend).measure_all([1, 2, 4])
    table.keep([next(rows), next(rows)])  # and here it is killed
    assert path.read_text() == "old"
    assert Table(path, "cpu", "another command").unfinished() == []
    before = table.unfinished()
    again = profiling(Drawing([3.0]), rows=before)
    assert [row.batch for row in again.measure_all([1, 2, 4])] == [4]
    assert [row.p50_s for row in again.rows] == [1.0, 2.0, 12.0]
    path.unlink()
    table.finish(again.rows, again.ceiling, {})
    assert read_profiles(path)["cpu"].batches == (1, 2, 4)
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.csv"]
    table.draft.write_text("batch\nnonsense")
    assert table.unfinished() == []


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
    assert profile.main([*words, "--batches", "1", "--repeats", "1"]) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert words[1] in said.err
    assert said.out == ""


@pytest.mark.parametrize("words", [["--batches", "0"], ["--batches", "a"], ["--repeats", "-1"]])
def test_numbers_that_make_no_sense_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        profile.main(words)
    assert refused.value.code == 2


def test_a_catalogue_with_a_gap_is_named(tmp_path: Path) -> None:
    (tmp_path / "catalog.toml").write_text('[cascades.tiny]\nlight = "a"\nheavy = "b"\n[models.a]\nsource = "x"\n')
    with pytest.raises(SettingsError, match=r"catalog.toml: .*steps"):
        unmeasured("tiny", tmp_path)


def test_the_command_goes_on_where_it_was_ended_and_says_nothing_else(tmp_path: Path) -> None:
    words = ["--stage", "light", "--batches", "1,2", "--repeats", "2", "--most", "3", "--gpu", "cpu"]
    words += ["--out", str(tmp_path)]
    path = tmp_path / "tiny-light.csv"
    source = f"measured, python -m models.profile {' '.join(words)}"
    Table(path, "cpu", source).keep([Measured(1, 0.0123, 0.0234, 0.25)])
    done = subprocess.run(
        [sys.executable, "-m", "models.profile", *words],
        capture_output=True,
        text=True,
        cwd=TABLES.parent,
        check=False,
    )
    told = "tiny-light: going on after batch 1, which the same command had measured\n"
    assert (done.returncode, done.stderr, done.stdout) == (0, told, f"{path}\n")
    known = read_profiles(path)["cpu"]
    assert (known.batches, known.p50_s[1]) == ((1, 2), 0.0123)
    assert 0 < known.p50_s[2] <= known.p95_s[2] < 10
    assert known.load_s and known.warm_s and known.swap_s and known.swap_s < known.load_s
    assert 0.1 < known.memory_gib[2] < 4
    assert path.read_text().count(source) == 2


def test_one_model_is_measured_alone_and_draws_on_after_its_swaps() -> None:
    cascade = profile.alone("tiny-heavy")
    backend, begin = profile.opened(cascade, "heavy", "cpu", random_weights=False)
    jobs = [Job("p", "a cat", 0.0, 0.0)]
    before = backend.draw(jobs)
    assert profile.swap_s(backend, "cpu") > 0
    assert backend.draw(jobs) == before
    again = profile.opened(cascade, "heavy", "cpu", random_weights=False)[1]
    assert set(again) == {"warm_s"}, "the libraries were loaded before, which a new process would wait for"
    assert set(begin) - {"load_s"} == {"warm_s"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("asked", [("cuda", None), (None, "a100-80g")])
def test_a_gpu_that_is_not_there_is_not_measured(asked: tuple[str | None, str | None]) -> None:
    with pytest.raises(ModelError, match="no GPU"):
        profile.chosen_device(*asked)
    assert profile.chosen_device(None, "cpu") == profile.chosen_device("cpu", "a100-80g") == "cpu"
