"""Replay and experiments: what was offered is what was asked for, bad input starts nothing, a run's folder is whole."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.recording import load
from analysis.side_by_side import beside
from deploy import experiments, replay
from deploy.experiments import EXAMPLES, PUBLISHED, SMALL
from deploy.replay import offer, settings_for
from deploy.results import cleared, exit_code
from deploy.supervision import ROOT
from planner.simulator import peak_rate
from shared.catalog import load_cascade
from shared.config import Settings
from shared.errors import SettingsError
from shared.summary import summarise
from traces.read import read_trace

pytestmark = pytest.mark.live

STEPS = str(EXAMPLES / "steps-1to6.csv")
TABLES = {"run.json", "summary.json", "outcomes.csv", "plans.csv", "ticks.csv"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_an_offer_is_scaled_then_stretched_then_cut_and_its_label_says_so() -> None:
    whole = read_trace(Path(STEPS))
    assert offer(STEPS).arrivals == whole
    offered = offer(STEPS, rate=2, time=0.5, seconds=10)
    assert offered.label == "steps-1to6-2x-stretched-0.5x-10s"
    assert len(offered.arrivals) == 2 * sum(arrival.at_s < 20 for arrival in whole)
    assert offered.arrivals[-1].at_s < 10


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--trace", "nope"], "nope: no such file, and no published trace"),
        (["--trace", STEPS, "--gpus", "0"], "gpus: must be at least 1, got 0"),
        (["--trace", STEPS, "--policy", "best"], "policy: no 'best'; there are quality"),
        (["--trace", STEPS, "--cascade", "huge"], "no cascade 'huge'"),
        (["--trace", STEPS, "--policy", "pinned"], "pinned"),
        (["--trace", STEPS, "--policy", "pinned", "--pinned", "/nope.toml"], "/nope.toml"),
        (["--trace", STEPS, "--seconds", "0"], "seconds: no arrival"),
        (["--trace", STEPS, "--rate", "-1"], "rate: must be positive"),
        (["--trace", STEPS, "--solver", "luck"], "solver: "),
        (["--trace", STEPS, "--deadline-s", "soon"], "deadline_s: "),
        (["--trace", STEPS, "--prompts", "/nope.txt"], "/nope.txt: No such file"),
    ],
)
def test_a_replay_that_cannot_be_is_one_line_before_anything_is_written(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "end_on_sigterm", lambda: None)
    with pytest.raises(SettingsError) as wrong:
        replay.main([*words, "--out", str(tmp_path / "run")])
    assert str(wrong.value).startswith(said)
    assert "\n" not in str(wrong.value)
    assert not names(tmp_path)


def test_a_broken_line_of_a_trace_ends_the_command_with_exit_code_2(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s\n1\nsoon\n")
    for command in (["deploy.replay", "--trace", str(trace)], ["deploy.experiments", "--trace", str(trace)]):
        ended = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
        assert ended.returncode == 2
        assert ended.stderr.count("\n") == 1
    assert names(tmp_path) == {"trace.csv"}


def test_static_is_solved_for_the_peak_of_the_trace() -> None:
    offered = offer(STEPS)
    assert settings_for(Settings(cascade="sdturbo"), 4, offered).peak_per_s == peak_rate(offered.arrivals)
    assert settings_for(Settings(cascade="sdturbo", peak_per_s=99.0), 4, offered).peak_per_s == 99.0


def test_a_live_replay_answers_every_prompt_and_its_folder_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "end_on_sigterm", lambda: None)  # of the test's own process
    folder = tmp_path / "run"
    (folder / "processes").mkdir(parents=True)
    (folder / "processes" / "old.jsonl").write_text("of an earlier run\n")
    command = ["--trace", STEPS, "--rate", "3", "--seconds", "8", "--gpus", "2", "--out", str(folder)]
    assert replay.main(command) == 0
    assert names(folder) == TABLES | {"failures.csv", "report.html", "trace.csv", "processes"}
    assert "old.jsonl" not in names(folder / "processes")
    recording, summary = load(folder), json.loads((folder / "summary.json").read_text())
    offered = offer(STEPS, rate=3, seconds=8)
    assert summary["offered"] == len(offered.arrivals) == len(recording.outcomes) > 10
    assert summary["open"] == summary["failed"] == summary["answered_twice"] == 0
    assert summary["pictures_missing"] is None, "workers that sleep draw none"
    assert (recording.settings["trace"], recording.settings["slots"]) == ("steps-1to6-3x-8s", 2)
    assert [arrival.index for arrival in read_trace(folder / "trace.csv")] == [each.index for each in offered.arrivals]


def test_live_and_simulated_runs_agree_on_the_path_of_each_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "end_on_sigterm", lambda: None)  # of the test's own process
    pinned = tmp_path / "pinned.toml"
    pinned.write_text("light_workers=1\nheavy_workers=3\nlight_batch=4\nheavy_batch=4\nthreshold=0.15\n")
    # Two prompts/s, of which two in three go heavy, and 1.7 heavy ones can be drawn even one by one. With three times
    # the cascade's deadline nobody lacks time, though this machine may stall for seconds.
    command = ["--trace", STEPS, "--rate", "2", "--seconds", "15", "--gpus", "4", "--pinned", str(pinned)]
    command += ["--deadline-s", "15"]
    folder = tmp_path / "run"
    assert replay.main([*command, "--policy", "pinned", "--out", str(folder)]) == 0
    side = beside(folder)
    assert side.paths_equal >= 0.95
    assert {outcome.end for outcome in load(folder).outcomes} == {"light", "heavy"}
    assert side.holds("heavy_share") and side.holds("violation") and side.holds("quality")


@pytest.mark.parametrize("name", ["open", "failed", "answered_twice", "pictures_missing"])
def test_the_exit_code_tells_a_run_that_went_wrong(name: str) -> None:
    sound = {"open": 0, "failed": 0, "answered_twice": 0, "pictures_missing": None, "dropped": 3}
    assert exit_code(sound) == 0
    assert exit_code(sound | {name: 1}) == 1


def test_an_earlier_run_leaves_nothing_in_a_cleared_folder_and_what_is_not_of_a_run_stays(tmp_path: Path) -> None:
    for name in TABLES | {"notes.txt"}:
        (tmp_path / name).touch()
    (tmp_path / "pictures").mkdir()
    assert names(cleared(tmp_path)) == {"notes.txt"}
    with pytest.raises(SettingsError, match=r"notes.txt: File exists"):
        cleared(tmp_path / "notes.txt")


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setattr(experiments, "end_on_sigterm", lambda: None)
    return lambda *words: experiments.main([*words, "--out", str(tmp_path)])


def test_an_experiment_leaves_a_folder_a_policy_and_one_that_compares_them(
    tmp_path: Path, experiment: Callable[..., int]
) -> None:
    policies = ["quality", "clipper-light"]
    asked = ["--cascade", "sdturbo", "--trace", "1to8qps", "--seconds", "60", "--policies", ",".join(policies)]
    assert experiment(*asked) == 0
    (together,) = [path for path in tmp_path.iterdir() if path.is_dir() and not path.name.endswith(tuple(policies))]
    with (tmp_path / "experiments.csv").open(newline="") as lines:
        assert [row["policy"] for row in csv.DictReader(lines) if row["gpus"] == "4"][:2] == policies
    assert together.name.startswith("sdturbo-1to8qps")
    assert {"comparison.csv", "published.svg", "bars.svg"} <= names(together)
    with (together / "comparison.csv").open(newline="") as lines:
        rows = {row["policy"]: row for row in csv.DictReader(lines)}
    for policy in policies:
        folder = tmp_path / f"{together.name}-{policy}"
        assert names(folder) == TABLES | {"failures.csv", "report.html"}
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["policy"] == policy
        assert float(rows[policy]["violation"]) == pytest.approx(summary["violation"], abs=1e-6)
    assert len(rows) > len(policies), "and the bound"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cascade", "tiny"], "cascade: no experiment on 'tiny'"),
        (["--trace", "2to16qps"], "trace: no experiment on '2to16qps'"),
        (["--cascade", "sdxs", "--trace", "1to8qps"], "cascade, trace: no experiment on sdxs and 1to8qps"),
        (["--policies", "quality,best"], "policy: no 'best'"),
        (["--policies", "pinned"], "policy pinned: needs the file of its plan"),
    ],
)
def test_an_experiment_that_there_is_not_is_one_line(
    words: list[str], said: str, tmp_path: Path, experiment: Callable[..., int]
) -> None:
    with pytest.raises(SettingsError, match=said):
        experiment(*words)
    assert not names(tmp_path)


def test_each_published_cascade_has_one_live_run() -> None:
    assert sorted(each.cascade for each in PUBLISHED if each.live) == ["sdturbo", "sdxlltn", "sdxs"]


@pytest.mark.parametrize("cascade", [each.cascade for each in SMALL])
def test_a_committed_example_is_small_and_its_summary_is_that_of_its_tables(cascade: str) -> None:
    folder = ROOT / "logs" / f"example-{cascade}"
    assert names(folder) == TABLES
    assert sum(path.stat().st_size for path in folder.iterdir()) < 300_000
    summary = json.loads((folder / "summary.json").read_text())
    again = summarise(load(folder), load_cascade(cascade))
    assert {**again, "scores": summary["scores"]} == summary, "the scores are in the tables, wherever they came from"
    assert summary["cascade"] == cascade
    assert summary["offered"] > 200
    assert not any(str(ROOT) in path.read_text() for path in folder.iterdir())
