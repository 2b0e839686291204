"""A run beside its simulation: equal where it was simulated, and every difference is seen where it was not."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from analysis import compare
from analysis.recording import save
from analysis.side_by_side import beside, path, paths_equal, side_by_side, trace_of
from analysis.trial import Trial, make_trial
from shared.errors import SettingsError
from shared.messages import Outcome
from shared.recording import Recording
from tests.synthetic_run import OUTCOMES


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    trace = tmp_path / "short.csv"
    trace.write_text("arrival_s\n" + "".join(f"{0.2 * number:.2f}\n" for number in range(150)))
    return make_trial(str(trace), "sdturbo", 4)


def as_live(run: Recording, folder: Path, **settings: object) -> Path:
    """A simulated run in the folder of a live one."""
    told = {"slots": 4, "policy": "quality", "trace": str(folder.parent / "short.csv"), **settings}
    save(replace(run, settings=told), folder)
    return folder


def test_a_simulated_run_does_not_differ_from_its_simulation(trial: Trial, tmp_path: Path) -> None:
    side = beside(as_live(trial.run("quality"), tmp_path / "run"))
    assert side.paths_equal == 1
    assert {side.difference(name) for name in side.live} == {0}
    assert side.holds("quality") and side.holds("light") and side.holds("latency_p50_s") is None
    assert side.jitter[0] != side.jitter[1]


def test_the_settings_of_the_run_are_those_of_its_simulation(trial: Trial, tmp_path: Path) -> None:
    run = trial.run("quality", margin_s=1.5, plan_period_s=3.0)
    assert run.outcomes != trial.run("quality").outcomes
    told = beside(as_live(run, tmp_path / "told", margin_s=1.5, plan_period_s=3.0))
    assert {told.difference(name) for name in told.live} == {0}
    untold = beside(as_live(run, tmp_path / "untold"))
    assert {untold.difference(name) for name in untold.live} != {0}


def test_a_pinned_plan_is_simulated_as_it_was_recorded(trial: Trial, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text("light_workers = 1\nheavy_workers = 3\nlight_batch = 8\nheavy_batch = 2\nthreshold = 0.13\n")
    run = replace(trial, pinned=plan).run("pinned")
    plan.unlink()
    side = beside(as_live(run, tmp_path / "run", policy="pinned"))
    assert side.paths_equal == 1
    assert side.simulated["heavy"] == run.tally.ends["heavy"] > 0


def test_a_run_that_went_otherwise_is_seen(trial: Trial, tmp_path: Path) -> None:
    run = trial.run("quality")
    spoilt = tuple(replace(each, end="dropped") if each.seed % 10 == 0 else each for each in run.outcomes)
    side = beside(as_live(replace(run, outcomes=spoilt, counted=None), tmp_path / "run"))
    assert side.paths_equal == pytest.approx(0.9)
    assert side.difference("dropped") == pytest.approx(0.1)
    assert side.difference("violation") == pytest.approx(0.1)
    assert side.holds("dropped") is False and side.holds("violation") is False and side.holds("refused")


def numbered(seed: int, outcome: Outcome) -> Outcome:
    """Of another run each time: ids are never the same."""
    return replace(outcome, seed=seed, id=f"{outcome.id}-{seed}")


def test_a_run_on_other_recorded_scores_is_one_line(trial: Trial, tmp_path: Path) -> None:
    other = replace(trial, cascade=replace(trial.cascade, scores=tuple(reversed(trial.cascade.scores))))
    with pytest.raises(SettingsError, match="its scores are not those recorded here"):
        beside(as_live(other.run("quality"), tmp_path / "run", backend="sleeping"))
    assert beside(as_live(trial.run("quality"), tmp_path / "same", backend="sleeping")).paths_equal == 1


def test_paths_are_matched_by_the_place_in_the_trace() -> None:
    light, heavy, kept = OUTCOMES[0], OUTCOMES[1], OUTCOMES[3]
    assert path(heavy) == ("light", "heavy", "heavy")
    some = [numbered(0, light), numbered(1, heavy), numbered(2, kept)]
    assert paths_equal(some, [numbered(2, kept), numbered(1, heavy), numbered(0, light)]) == 1
    assert paths_equal(some, [numbered(0, heavy), numbered(1, heavy)]) == pytest.approx(1 / 3)
    assert paths_equal([], []) == 1


def test_the_trace_in_the_folder_of_the_run_comes_before_any_name(trial: Trial, tmp_path: Path) -> None:
    folder = as_live(trial.run("quality"), tmp_path / "run", trace="4to32qps")
    (folder / "trace.csv").write_text((tmp_path / "short.csv").read_text())
    assert beside(folder).paths_equal == 1


def test_a_published_trace_is_found_by_the_name_of_its_file(tmp_path: Path) -> None:
    here = tmp_path / "mine.csv"
    here.write_text("arrival_s\n0\n")
    assert trace_of(str(here)) == str(here)
    assert trace_of("trace_4to32qps.txt") == trace_of("/gone/4to32qps-stand-in.csv") == "4to32qps"


def test_the_command_prints_both_sides(trial: Trial, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = as_live(trial.run("quality"), tmp_path / "run")
    assert compare.main(["--live", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "live beside simulated" in shown and "paths equal" in shown and "100.0%" in shown
    assert side_by_side([folder], None, Console(), as_json=True) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["run"], told["paths_equal"], told["holds"]["heavy_share"]) == ("run", 1.0, True)
    assert compare.main(["--live", str(folder), "--out", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "live.csv").open(newline="") as lines:
        rows = {row["figure"]: row for row in csv.DictReader(lines)}
    assert float(rows["heavy_share"]["live"]) == pytest.approx(told["live"]["heavy_share"], abs=1e-6)
    assert (rows["heavy_share"]["difference"], rows["paths_equal"]["difference"]) == ("0.0", "1.0")


def test_a_folder_that_does_not_tell_is_one_line(trial: Trial, tmp_path: Path) -> None:
    run = trial.run("clipper-light")
    for number, (changes, said) in enumerate(
        [({"slots": "many"}, "slots: invalid literal"), ({"trace": "gone.csv"}, "gone"), ({"policy": "?"}, "no '?'")]
    ):
        with pytest.raises(SettingsError, match=said.replace("?", r"\?")):
            beside(as_live(run, tmp_path / f"run{number}", **changes))
    save(replace(run, settings={}), tmp_path / "silent")
    with pytest.raises(SettingsError, match=r"silent/run\.json: settings: no trace"):
        beside(tmp_path / "silent")
    with pytest.raises(SettingsError, match="holds no run"):
        beside(tmp_path / "nowhere")
