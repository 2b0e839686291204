"""What a run's page answers: deadlines, why not, what the planner did, and what the pictures are like."""

from __future__ import annotations

from dataclasses import replace
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from analysis import over_time, report, scores, timelines
from analysis.recording import load, missing_pictures, save
from analysis.tiles import escalation, questions
from deploy.recorder import Recorder
from shared.broker import Broker
from shared.letters import find_letter
from shared.messages import Visit
from shared.observer import Observer
from shared.recording import Failure, Recording
from shared.summary import summarise
from tests.helpers import hire, publish
from tests.synthetic_run import OUTCOMES, PLANS, cascade, heavy, light, outcome, run, with_pictures

HOSTILE = "<script>alert(1)</script>"


def told(recording: Recording) -> dict[str, dict[str, tuple[str, str]]]:
    found = summarise(recording, cascade(), missing_pictures(recording))
    return {
        asked.text: {tile.name: (tile.figure, tile.remark) for tile in asked.tiles}
        for asked in questions(recording, found)
    }


# --- the tiles -------------------------------------------------------------------------------------------------


def test_the_four_questions_are_answered_in_their_order() -> None:
    answers = told(run())
    assert list(answers) == [
        "Are deadlines met?",
        "If not, why?",
        "What did the planner do?",
        "What are the pictures like?",
    ]
    met, why, planner, pictures = answers.values()
    assert met["On time"] == ("60.0 %", "of all offered, within 5 s")
    assert met["Answered"] == ("5", "3 light, 2 heavy")
    assert {name: figure for name, (figure, _) in why.items()} == {
        "Late": "1",
        "Refused": "1",
        "Dropped": "1",
        "Failed": "1",
    }
    assert why["Failed"][1] == "most often: out of memory: alloc_pool"
    assert why["Late"][1] == "answered after the deadline; 1 still open"
    assert planner["Escalated"][0] == "60.0 %", "b, c and d of the five that were drawn light"
    assert pictures["Light score"] == ("0.20", "median; threshold 0.30")
    assert pictures["Pictures"] == ("\u2013", "none were recorded")


def test_all_but_whole_is_not_shown_as_whole_and_nothing_is_not_a_share(tmp_path: Path) -> None:
    many = [outcome(f"{n}", "light", "confident", n, n + 1.0, light(n, 1, 0.5)) for n in range(9_999)]
    shown = run(offered=10_000, refused=1, outcomes=tuple(many), pictures=with_pictures(tmp_path, "3-light.png"))
    met, _, _, pictures = told(shown).values()
    assert met["On time"][0] == "> 99.9 %"
    assert pictures["Pictures"] == ("1", "recorded; 9,998 missing")
    assert next(iter(told(replace(shown, offered=9_999, refused=0)).values()))["On time"][0] == "100 %"
    met, _, planner, pictures = told(run(offered=0, refused=0, outcomes=(), plans=(), ticks=())).values()
    assert (met["On time"][0], planner["Escalated"][0], pictures["Light score"][0]) == ("\u2013",) * 3


def test_predicted_escalation_is_that_of_the_plan_in_force_when_the_picture_was_drawn() -> None:
    plans = (replace(PLANS[0], made=0.0, heavy_share=0.2), replace(PLANS[1], made=2.0, heavy_share=0.7))
    # Drawn light at 0.5, 1.5 under the first plan, at 2.4, 6.5, 7.5 under the second.
    assert escalation(run(plans=plans)) == pytest.approx((3 / 5, (2 * 0.2 + 3 * 0.7) / 5))
    assert escalation(run(plans=())) is None
    direct = tuple(replace(each, route="heavy") for each in OUTCOMES)
    assert escalation(run(outcomes=direct)) is None, "nobody judged the pictures of those sent straight to heavy"


# --- over time -------------------------------------------------------------------------------------------------


def test_escalation_over_time_counts_those_that_came_back_undrawn() -> None:
    assert over_time.escalations(run()) == [(0.0, 2 / 3), (5.0, 1 / 2)]


def test_a_batch_counts_once_however_many_prompts_it_drew() -> None:
    batch = [Visit("light", "w", 1.0, 1.4, 4, 0.9) for _ in range(4)]
    drawn = [outcome(f"{n}", "light", "confident", 0.5, 1.5, visit) for n, visit in enumerate(batch)]
    alone = outcome("alone", "light", "confident", 0.0, 3.0, light(2.0, 1, 0.9))
    later = outcome("later", "heavy", "cascade", 6.0, 9.0, light(6.1, 1, 0.1), heavy(7.0, 3))
    shown = run(outcomes=(*drawn, alone, later), ticks=())
    assert over_time.mean_batches(shown, "light") == [(0.0, 2.5), (5.0, 1.0)]
    assert over_time.mean_batches(shown, "heavy") == [(5.0, 3.0)]


def test_what_was_planned_reaches_to_the_end_of_the_run() -> None:
    points = timelines.planned(run(), "heavy_batch")
    assert points == [(1.0, 4.0), (2.0, 4.0), (3.0, 4.0), (4.0, 4.0), (5.0, 4.0), (12.0, 4.0)]
    assert timelines.planned(run(plans=()), "heavy_batch") == []


def test_each_panel_has_a_mark_at_each_new_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    (axis, other) = Figure().subplots(2)
    timelines.mark_plans(axis, run())
    marks = [[float(segment[0][0]) for segment in collection.get_segments()] for collection in axis.collections]
    assert marks == [[1.0, 2.0, 3.0, 4.0, 5.0], [1.0]], "all five, and the one after which the fleet stayed as it was"
    timelines.mark_plans(other, run(plans=()))
    marked: list[object] = []
    monkeypatch.setattr(timelines, "mark_plans", lambda axis, _: marked.append(axis))
    timelines.draw(run(), cascade())
    assert len(set(marked)) == 6


# --- scores ----------------------------------------------------------------------------------------------------


def test_scores_are_held_against_the_thresholds_they_met() -> None:
    plans = (replace(PLANS[0], made=0.0, threshold=0.3), replace(PLANS[1], made=6.0, threshold=0.5))
    assert scores.scores(run()) == [0.1, 0.15, 0.2, 0.25, 0.9]
    assert scores.thresholds(run(plans=plans)) == [0.3, 0.3, 0.3, 0.5, 0.5]
    words = "".join(ElementTree.fromstring(scores.draw_scores(run(plans=plans))).itertext())
    assert "median threshold 0.30 (0.30\u20130.50)" in words and "escalated" in words
    assert scores.draw_scores(run(plans=(), outcomes=())).startswith("<svg")


# --- dead letters ----------------------------------------------------------------------------------------------

LETTER = Failure("p-1", HOSTILE, "unsafe", "the prompt holds the blocked phrase 'gore'", "n-0-light-1", 2, 8.5)


def test_dead_letters_are_kept_with_a_run_and_shown_newest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "draw", lambda *_: "")  # takes longer than all the rest
    monkeypatch.setattr(report, "draw_scores", lambda *_: "")
    letters = tuple(replace(LETTER, id=f"p-{n}", finished=float(n)) for n in range(report.LETTERS + 2))
    save(run(failures=letters), tmp_path)
    kept = load(tmp_path)
    assert kept.failures == letters
    page = report.render(kept, cascade(), "one")
    assert HOSTILE not in page and HOSTILE in unescape(page)
    assert page.index("p-51<") < page.index("p-50<") < page.index("p-2<")
    assert "p-1<" not in page, "only the newest"
    assert f"{report.LETTERS} of {report.LETTERS + 2}" in page
    (tmp_path / "failures.csv").unlink()
    assert load(tmp_path).failures == (), "runs recorded before had none"
    assert "No letter of those that failed was recorded." in report.render(run(), cascade(), "one")


def test_the_recorder_brings_the_dead_letters_home(broker: Broker) -> None:
    publish(broker, "good", "bad")
    hand = hire(broker)
    for entry in hand.take(2):
        hand.end(entry, "failed" if entry.job.id == "bad" else None, "error" if entry.job.id == "bad" else "confident")
    recorder = Recorder(broker, None)
    recorder.look()
    (failure,) = recorder.recording("tiny", 5.0, {}).failures
    letter = find_letter(Observer(broker), "bad")
    assert (failure.id, failure.why, failure.finished) == ("bad", "error", letter.finished)
