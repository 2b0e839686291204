"""What a run left behind is read back whole and counted right."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from analysis import recording, report
from analysis.tiles import questions
from shared import summary
from shared.errors import SettingsError
from shared.files import write_text
from shared.messages import Visit
from shared.schema import Stage
from tests.synthetic_run import OUTCOMES, PLANS, cascade, outcome, run

ISSUE_COUNTS = {
    "offered",
    "refused",
    "published",
    "light",
    "heavy",
    "dropped",
    "failed",
    "cancelled",
    "on_time",
    "late",
}
ISSUE_SHARES = {"violation", "heavy_share", "latency_p50_s", "latency_p99_s", "quality", "gpu_s_per_prompt"}
ISSUE_PLANS = {"switches", "plans", "solve_ms_p50", "solve_ms_p99"}


# --- the recording ---------------------------------------------------------------------------------------------


def test_a_saved_run_reads_back_as_it_was(tmp_path: Path) -> None:
    awkward = 'a "red", ring;\r\nor\rnot\x00 = é 猫'
    visits = (
        Visit("light", "w,1", 0.1, 0.2, 1, 0.25),
        Visit("light", "w2", 0.3, 1 / 3, 3),
        Visit("heavy", "", 1, 2, 1, 0.5),
    )
    strange = replace(
        outcome("../x", "heavy", "bare\rreturn", 1e9 + 1 / 3, 1e9 + 2, *visits, prompt=awkward), route="heavy", seed=7
    )
    saved = run(outcomes=(*OUTCOMES, strange), settings={"slots": 3})
    recording.save(saved, tmp_path / "logs" / "one")
    assert recording.load(tmp_path / "logs" / "one") == saved
    assert sorted(path.name for path in (tmp_path / "logs" / "one").iterdir()) == [
        "failures.csv",
        "outcomes.csv",
        "plans.csv",
        "run.json",
        "ticks.csv",
    ]


def test_the_table_of_outcomes_tells_the_path_of_a_prompt(tmp_path: Path) -> None:
    recording.save(run(), tmp_path)
    header, _, row, *_ = (tmp_path / "outcomes.csv").read_text().replace('"', "").splitlines()
    told = dict(zip(header.split(","), row.split(","), strict=True))
    expected = {"id": "b", "end": "heavy", "latency_s": "3.0", "on_time": "1", "score": "0.2", "gpu_s": "0.7"}
    assert {name: told[name] for name in expected} == expected
    assert (told["light_started"], told["heavy_finished"], told["heavy_batch"]) == ("1.1", "4.0", "4")


def test_a_password_is_not_saved(tmp_path: Path) -> None:
    recording.save(run(), tmp_path)
    assert "secret" not in (tmp_path / "run.json").read_text()
    assert recording.load(tmp_path).settings["redis_url"] == "redis://:***@host:6379/0"
    assert "secret" not in str(run().public_settings)


def test_a_damaged_table_is_named_with_its_line(tmp_path: Path) -> None:
    recording.save(run(), tmp_path)
    table = tmp_path / "outcomes.csv"
    table.write_text(table.read_text().replace("10.9", "soon"))
    with pytest.raises(SettingsError, match=r"outcomes\.csv:5: .*soon"):
        recording.load(tmp_path)


def test_a_reader_never_meets_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_text("old")
    with path.open() as reader:
        write_text(path, "new text")
        assert reader.read() == "old"
    assert path.read_text() == "new text"


def test_a_full_disk_leaves_the_old_file_and_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "summary.json"
    kept.write_text("old")

    def full(path: Path, content: bytes) -> int:
        path.write_text(content.decode()[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: .*summary\.json"):
        write_text(kept, "new text")
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    assert kept.read_text() == "old"


# --- the summary -----------------------------------------------------------------------------------------------


def test_the_summary_counts_what_a_hand_counts() -> None:
    found = summary.summarise(run(), cascade())
    counts = {"light": 3, "heavy": 2, "dropped": 1, "failed": 1, "cancelled": 1, "open": 1, "on_time": 4, "late": 1}
    counts |= {"kept_light": 1, "no_time": 1, "upgraded": 2, "answered_twice": 0, "plans": 5, "switches": 2}
    counts |= {"offered": 10, "refused": 1, "published": 9}
    assert {name: found[name] for name in counts} == counts
    assert found["violation"] == pytest.approx((1 + 1 + 1 + 1) / 10)
    assert found["heavy_share"] == pytest.approx(2 / 5)
    assert (found["latency_p50_s"], found["latency_p99_s"]) == pytest.approx((3.0, 6.0))
    assert found["seconds"] == pytest.approx(12.0)
    assert found["gpu_s_per_prompt"] == pytest.approx((5 * 0.4 - 4 * 0.2 + 0.5 + 2.0 + 0.3) / 5)
    assert found["light_batch_mean"] == pytest.approx(5 / 3)
    assert found["heavy_batch_mean"] == pytest.approx(2 / 1.25)
    assert (found["solve_ms_p50"], found["solve_ms_p99"]) == (6.0, 8.0)


def test_light_pictures_kept_by_the_keeper_are_counted_apart() -> None:
    found = summary.summarise(run(outcomes=OUTCOMES[:4]), cascade())
    assert (found["kept_light"], found["no_time"]) == (1, 0)


def test_quality_stands_beside_the_control_at_the_same_shares() -> None:
    found = summary.summarise(run(), cascade())["quality"]
    # Four prompts on time: two in the first window, one of them heavy, and two light ones in the second.
    expected = {"value": (10 + 20) / 2, "control": (17.5 + 20) / 2, "whole": 15.0}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert (found["metric"], found["selector"]) == ("fid", "discriminator")
    assert (found["control_assumed"], found["assumed"]) == (True, False)


def test_the_summary_keeps_the_conservation_law_and_every_promised_key() -> None:
    for changed in (run(), run(offered=0, refused=0, published=0, outcomes=(), plans=(), ticks=())):
        found = summary.summarise(changed, cascade())
        assert found.keys() >= ISSUE_COUNTS | ISSUE_SHARES | ISSUE_PLANS
        ends = sum(found[end] for end in ("light", "heavy", "dropped", "failed", "cancelled", "open"))
        assert found["offered"] == found["refused"] + ends
        json.dumps(found, allow_nan=False)


def test_a_prompt_answered_twice_is_seen() -> None:
    found = summary.summarise(run(outcomes=(*OUTCOMES, OUTCOMES[0])), cascade())
    assert found["answered_twice"] == 1
    assert "1 answered twice" in report.headline(found)


def test_a_switch_is_counted_after_a_rest_too_and_no_slot_that_comes_or_goes() -> None:
    stages: list[dict[str, Stage]] = [{"a": "light", "b": "heavy"}, {"b": "heavy"}, {"a": "heavy", "b": "heavy"}]
    stages.append({"b": "light", "c": "light"})
    plans = [replace(PLANS[0], assignment=each) for each in stages]
    assert summary.switches(plans) == 2


@pytest.mark.parametrize(
    ("changes", "who"),
    [({"lot": True}, "lot"), ({"heavy_direct": 0.2}, "discriminator"), ({}, "discriminator")],
)
def test_quality_is_read_off_the_curve_of_whoever_chose(changes: dict[str, object], who: str) -> None:
    plans = tuple(replace(each, **changes) for each in PLANS)  # type: ignore[arg-type]
    found = summary.summarise(run(plans=plans), cascade())["quality"]
    assert found["selector"] == who
    assert found["assumed"] == (who != "discriminator")


def test_without_a_curve_the_quality_is_unknown_and_not_zero(tmp_path: Path) -> None:
    bare = replace(cascade(), curves={})
    found = report.write_summary(run(), bare, tmp_path)
    assert found["quality"]["value"] is None
    assert json.loads((tmp_path / "summary.json").read_text())["quality"]["control"] is None
    told = [(tile.figure, tile.remark) for asked in questions(run(), found) for tile in asked.tiles]
    assert ("not measured", "random control: no curve measured") in told


def test_the_terminal_table_shows_the_figures() -> None:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(summary.table(summary.summarise(run(), cascade())))
    shown = console.export_text()
    for figure in (
        "40.0 %",
        "3.00 s",
        "6.00 s",
        "15.00",
        "18.75 by lot (assumed)",
        "0.800 s",
        "2 switches",
        "1.7 / 1.6",
    ):
        assert figure in shown


# --- the command -----------------------------------------------------------------------------------------------


def test_the_command_rebuilds_summary_and_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording.save(run(cascade="sdturbo"), tmp_path)
    assert report.main([str(tmp_path)]) == 0
    assert json.loads((tmp_path / "summary.json").read_text())["offered"] == 10
    assert "10 prompts offered" in (tmp_path / "report.html").read_text()
    assert "violation" in capsys.readouterr().out


def test_a_folder_without_a_run_is_one_line_and_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err == f"{tmp_path}/nowhere holds no run: run.json: No such file or directory\n"


def test_a_place_that_cannot_be_written_is_one_line_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording.save(run(cascade="sdturbo"), tmp_path)
    (tmp_path / "report.html").mkdir()
    assert report.main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "report.html" in said and said.count("\n") == 1
