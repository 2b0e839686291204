"""Policies beside each other: table, CSV and figures say what the runs say, and bad input writes nothing."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from analysis import compare, over_time
from analysis.bound import Bound
from analysis.comparison_figures import write_figures
from analysis.explain import kept
from analysis.figures import VARIABLES
from analysis.published import published
from analysis.trial import all_policies, check_policies, make_trial
from analysis.what_if import draw_what_if, what_if
from planner.explain import changes
from planner.policies import POLICIES
from shared.errors import SettingsError
from shared.ledger import WINDOW_S
from shared.recording import Recording, Tick
from shared.summary import summarise
from tests.synthetic_run import OUTCOMES, PLANS, cascade, run

ROOT = Path(__file__).resolve().parent.parent
RUNS: Mapping[str, Recording] = {"quality": run(), "diffserve": run(outcomes=OUTCOMES[:3]), "unheard of": run()}


@pytest.fixture
def short(tmp_path: Path) -> Path:
    path = tmp_path / "short.csv"
    path.write_text("arrival_s\n" + "".join(f"{0.25 * number:.2f}\n" for number in range(120)))
    return path


# --- over time


def test_windows_of_violations_add_up_to_the_whole() -> None:
    # a and b in time, c late; then d and e in time, f dropped, g failed, h cancelled: no violation.
    assert dict(over_time.violations(run())) == pytest.approx({0.0: 1 / 3, 5.0: 2 / 5})


def test_refused_prompts_count_in_the_window_they_were_refused_in() -> None:
    ticks = (Tick(0.0), Tick(4.0, refused=1), Tick(6.0, refused=1), Tick(8.0, refused=4))
    assert dict(over_time.violations(run(ticks=ticks))) == pytest.approx({0.0: 2 / 4, 5.0: 5 / 8})


def test_windows_of_quality_average_to_the_quality_of_the_run() -> None:
    points = dict(over_time.qualities(run(), cascade()))
    assert points == {0.0: pytest.approx(10), 5.0: pytest.approx(20)}
    answers = {number * WINDOW_S: window.answers for number, window in run().tally.windows.items()}
    mean = sum(points[begin] * count for begin, count in answers.items()) / sum(answers.values())
    assert mean == pytest.approx(summarise(run(), cascade())["quality"]["value"])
    assert over_time.qualities(run(), replace(cascade(), curves={})) == []


def test_a_step_shows_the_last_window_whole() -> None:
    assert over_time.steps([(0.0, 1.0), (5.0, 2.0)]) == [(0.0, 1.0), (5.0, 2.0), (10.0, 2.0)]
    assert over_time.steps([]) == []


# --- figures


def words(svg: Path) -> str:
    root = ElementTree.fromstring(svg.read_text())
    return " ".join("".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text"))


def test_every_policy_is_named_in_every_figure(tmp_path: Path) -> None:
    paths = write_figures(RUNS, cascade(), tmp_path / "new", Bound(9.5, 12.0, 0.0))
    assert sorted(path.name for path in paths) == ["bars.svg", "over-time.svg", "published.svg", "tradeoff.svg"]
    for path in paths:
        shown = words(path)
        assert not [name for name in RUNS if name not in shown], path
        assert ("clairvoyant bound 9.50" in shown) == (path.stem != "over-time")
        assert not [stand_in for stand_in in VARIABLES if stand_in in path.read_text()]
    assert "quality 15.00 · 40.0 %" in " ".join(words(tmp_path / "new" / "tradeoff.svg").split())


def test_a_cascade_without_a_curve_and_a_run_without_prompts_are_drawn(tmp_path: Path) -> None:
    nothing = run(offered=0, refused=0, published=0, outcomes=(), plans=(), ticks=())
    assert len(write_figures(RUNS, replace(cascade(), curves={}), tmp_path)) == 4
    assert len(write_figures({"quality": nothing}, cascade(), tmp_path)) == 4


# --- the comparison


def test_the_table_of_the_command_is_the_summary_of_each_run(
    short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    policies = "quality,clipper-light,static"
    given = ["--trace", str(short), "--cascade", "sdturbo", "--gpus", "4", "--out", str(out)]
    assert compare.main([*given, "--policies", policies]) == 0
    shown = capsys.readouterr().out
    with (out / "comparison.csv").open() as lines:
        rows = {row["policy"]: row for row in csv.DictReader(lines)}
    assert list(rows) == [*policies.split(","), *compare.BOUNDS]
    trial = make_trial(str(short), "sdturbo", 4)
    for policy in policies.split(","):
        found = summarise(trial.run(policy), trial.cascade)
        assert float(rows[policy]["value"]) == pytest.approx(found["quality"]["value"], abs=1e-6)
        assert int(rows[policy]["heavy"]) == found["heavy"]
        assert f"{found['quality']['value']:.2f}" in shown
    assert float(rows["clipper-light"]["value"]) == trial.cascade.curve().at(0.0)
    limit = compare.bounds(trial)["bound, 5% spare"]
    assert float(rows["bound, 5% spare"]["value"]) == pytest.approx(limit.best_quality, abs=1e-6)
    assert limit.best_quality <= float(rows["quality"]["value"])
    assert "assumed" in shown and len(list(out.glob("*.svg"))) == 4


def test_json_holds_the_whole_summaries(short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--trace", str(short), "--cascade", "sdxs", "--gpus", "3", "--out", str(tmp_path / "out"), "--json"]
    assert compare.main([*given, "--policies", "quality", "--deadline-s", "6"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["deadline_s"], told["policies"]["quality"]["offered"]) == (6.0, 120)
    assert set(told["bounds"]) == set(compare.BOUNDS)


def test_all_policies_but_the_one_without_its_file() -> None:
    assert set(POLICIES) - set(all_policies()) == {"pinned"}
    assert set(all_policies(Path("plan.toml"))) == set(POLICIES)
    assert check_policies(("quality", "static", "quality"), None) == ("quality", "static")


WRONG = [
    (["--cascade", "none"], "no cascade 'none'"),
    (["--trace", "nowhere.csv"], "nowhere.csv: no such file"),
    (["--gpus", "0"], "gpus: must be at least 1, got 0"),
    (["--policies", "quality,best"], "policy: no 'best'"),
    (["--policies", "pinned"], "needs the file of its plan, --pinned FILE"),
    (["--deadline-s", "-1"], "deadline_s: must be positive and finite, got -1"),
    (["--deadline-s", "nan"], "deadline_s: must be positive and finite, got nan"),
    (["--solver", "none"], "none"),
]


@pytest.mark.parametrize(("changed", "said"), WRONG, ids=lambda value: str(value)[:30])
def test_bad_input_is_one_line_and_writes_nothing(changed: list[str], said: str, short: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ["--trace", str(short), "--cascade", "sdturbo", "--gpus", "2", "--policies", "quality", "--out", str(out)]
    with pytest.raises(SettingsError) as raised:
        compare.main([*given, *changed])
    assert said in str(raised.value) and "\n" not in str(raised.value)
    assert not out.exists()


@pytest.mark.parametrize("missing", ["trace", "cascade", "gpus"])
def test_what_is_missing_is_named(missing: str, short: Path) -> None:
    given = {"trace": str(short), "cascade": "sdturbo", "gpus": "2"}
    kept_options = [part for name, value in given.items() if name != missing for part in (f"--{name}", value)]
    with pytest.raises(SettingsError, match=f"{missing}: --{missing} is needed"):
        compare.main(kept_options)


def test_a_place_that_cannot_be_written_is_one_line(short: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    given = ["--trace", str(short), "--cascade", "sdturbo", "--gpus", "2", "--policies", "clipper-light"]
    with pytest.raises(SettingsError, match="file"):
        compare.main([*given, "--out", str(tmp_path / "file" / "out")])


def test_the_command_ends_with_2_and_one_line(tmp_path: Path) -> None:
    trace = tmp_path / "wrong.csv"
    trace.write_text("arrival_s\n0.5\nsoon\n")
    command = [sys.executable, "-m", "analysis.compare", "--trace", str(trace), "--cascade", "sdturbo", "--gpus", "4"]
    ended = subprocess.run([*command, "--out", str(tmp_path / "out")], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"{trace}:3: arrival_s: not a number: 'soon'\n"
    assert not (tmp_path / "out").exists()


# --- what the notebooks call


def test_published_figures_stand_beside_the_trace_they_were_measured_on() -> None:
    (found,) = published("sdturbo", "2_5to20qps", 10)
    assert (found.system, found.violation, found.whole) == ("diffserve", (0.042, 0.056), (17.31, 17.38))
    assert published("sdturbo", "2_5to20qps-stand-in", 10) == []
    assert published("sdturbo", "2_5to20qps", 11) == []


def test_only_plans_with_another_fleet_are_changes() -> None:
    other = replace(PLANS[0], threshold=0.9, version=9)
    busier = replace(PLANS[0], heavy_workers=5, version=10)
    assert changes([PLANS[0], other, busier, busier, PLANS[0]]) == [PLANS[0], busier, PLANS[0]]
    assert changes([]) == []


def test_who_was_kept_light_is_told_apart_from_who_was_confident() -> None:
    assert [outcome.id for outcome in kept(run(outcomes=tuple(reversed(OUTCOMES))))] == ["d", "e"]


def test_what_if_simulates_every_fleet_under_every_deadline(short: Path) -> None:
    trial = make_trial(str(short), "sdturbo", 4)
    answers = what_if(trial, (1, 4), (3.0, 5.0))
    assert [(each.gpus, each.deadline_s) for each in answers] == [(1, 3.0), (1, 5.0), (4, 3.0), (4, 5.0)]
    for each in answers:
        again = summarise(make_trial(str(short), "sdturbo", each.gpus, each.deadline_s).run("quality"), trial.cascade)
        assert each.found["quality"] == again["quality"]
    assert answers[0].found["quality"]["value"] > answers[-1].found["quality"]["value"]
    assert "5 s" in draw_what_if(answers, trial.cascade)
