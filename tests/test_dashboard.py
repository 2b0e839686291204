"""What the dashboard shows of a snapshot: charts, words, and nothing that people wrote as markup."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from services.gateway import histogram as bars_of
from services.gateway import plain
from services.gateway import timelines as lines_of
from services.gateway.charts import merged
from services.gateway.gallery import Gallery
from services.gateway.histogram import BINS, histogram
from services.gateway.panels import Panels, moves, reasons, verdict
from services.gateway.roster import nodes
from services.gateway.snapshot import Moment, SlotRow, Snapshot, StageMoment, WorkerRow
from services.gateway.timelines import LINES, MARKS, POINTS, timelines
from shared.figures import Figures
from shared.letters import Letter
from shared.lookout import Mark
from shared.messages import Outcome, Visit
from shared.orders import Deed, Orders
from tests.helpers import a_plan

NOW = 10_000.0
EVIL = "<script>alert('x')</script>"
NO_ENDS: dict[Any, float] = dict.fromkeys(("light", "heavy", "dropped", "failed", "cancelled"), 0)


def a_moment(time_s: float, offered: float | None = 1.0, **given: Any) -> Moment:
    known: dict[str, Any] = {
        "time_s": time_s,
        "offered_per_s": offered,
        "refused_per_s": 0.0,
        "ends_per_s": {**NO_ENDS, "light": 3.0},
        "late_per_s": 0.0,
        "violations_per_s": 0.0,
        "p50_s": 0.5,
        "p99_s": 1.0,
        "planned_for_per_s": 2.0,
        "threshold": 0.5,
        "escalation": 0.4,
        "escalation_planned": 0.3,
        "light": StageMoment(),
        "heavy": StageMoment(waiting=7),
    }
    return Moment(**{**known, **given})


def some_tiles(**given: Any) -> Figures:
    known: dict[str, Any] = {
        "seconds": 60.0,
        "offered": 100,
        "refused": 0,
        "late": 0,
        "ends": {**NO_ENDS, "light": 60, "heavy": 40},
        "why": {},
        "on_time": 1.0,
        "p50_s": 0.5,
        "p99_s": 2.0,
        "heavy_share": 0.4,
        "quality": None,
    }
    return Figures(**{**known, **given})


def a_snapshot(**given: Any) -> Snapshot:
    known: dict[str, Any] = {
        "window_s": 600.0,
        "time_s": NOW,
        "trouble": "",
        "tiles": some_tiles(),
        "moments": tuple(a_moment(NOW - 599 + second) for second in range(600)),
        "marks": (),
        "plan": a_plan(threshold=0.3),
        "fleet": (),
        "scores": (),
        "latest": (),
        "open": 0,
        "dead": 0,
        "letters": (),
    }
    return Snapshot(**{**known, **given})


def an_answer(prompt: str, *stages: Any) -> Outcome:
    visits = tuple(Visit(stage, "w", 1.0, 2.0, 1, 0.2 if stage == "light" else None) for stage in stages)
    return Outcome("id", prompt, stages[-1], "confident", 1.0, 9.0, 3.0, visits)


def column(options: dict[str, Any], name: str, row: int) -> list[float | None]:
    (place,) = [place for place, (at, each) in enumerate(LINES) if (at, each.name) == (row, name)]
    return [line[place + 1] for line in options["dataset"]["source"]]


# -- charts ------------------------------------------------------------------------------------------------------


def test_an_hour_is_thinned_to_what_a_screen_shows_and_keeps_its_mean() -> None:
    moments = tuple(a_moment(NOW - 3599 + second, float(second % 2)) for second in range(3600))
    made = timelines(a_snapshot(window_s=3600.0, moments=moments), 5.0)
    offered = column(made, "offered", 0)
    assert POINTS <= len(offered) <= POINTS + 1
    assert set(offered[1:-1]) == {0.5}
    assert len(json.dumps(made)) < 120_000


def test_what_a_look_changes_is_small_and_makes_the_chart_whole() -> None:
    marks = tuple(Mark(NOW - 599 + second, a_plan(second)) for second in range(600))
    before, after = a_snapshot(time_s=NOW - 5), a_snapshot(marks=marks, scores=(0.1, 0.9))
    assert len(json.dumps([lines_of.news(after), bars_of.news(after)], separators=(",", ":"))) < 60_000
    for whole, frame, news in (
        (lambda shown: timelines(shown, 5.0), lines_of.frame(5.0), lines_of.news),
        (histogram, bars_of.FRAME, bars_of.news),
    ):
        assert merged(merged(frame, news(before)), news(after)) == whole(after) != whole(before)


def test_what_nobody_knew_is_a_gap_and_not_a_zero() -> None:
    made = timelines(a_snapshot(moments=(a_moment(NOW - 9, None), a_moment(NOW, 2.0))), 5.0)
    assert column(made, "offered", 0) == [None, 2.0]
    assert column(made, "heavy waiting", 2) == [7.0, 7.0]
    assert column(made, "light waiting", 2) == [None, None]


def test_the_past_stands_still_while_time_goes_on() -> None:
    moments = tuple(a_moment(NOW + second, float(second)) for second in range(100))
    now, then = a_snapshot(moments=moments[:90]), a_snapshot(moments=moments, time_s=NOW + 10)
    before, after = (timelines(each, 5.0)["dataset"]["source"] for each in (now, then))
    assert before[:-1] == after[: len(before) - 1]


def test_each_new_plan_has_its_mark_in_every_plot_and_a_change_of_workers_a_plain_one() -> None:
    plans = [a_plan(1), a_plan(2, threshold=0.1), a_plan(3, threshold=0.1, light_workers=2)]
    marks = tuple(Mark(NOW - 30 + 10 * number, plan) for number, plan in enumerate(plans))
    made = timelines(a_snapshot(marks=marks), 5.0)
    drawn = [line["markLine"]["data"] for line in made["series"] if "xAxis" in str(line.get("markLine"))]
    assert len(drawn) == len(made["grid"])
    for lines in drawn:
        assert [line["xAxis"] for line in lines] == [1000 * mark.time_s for mark in marks]
        assert ["lineStyle" in line for line in lines] == [True, False, True]


def test_many_plans_are_few_marks_and_changes_of_workers_stay() -> None:
    marks = tuple(Mark(NOW - 599 + second, a_plan(second, light_workers=1 + second // 300)) for second in range(600))
    made = timelines(a_snapshot(marks=marks), 5.0)["series"][0]["markLine"]["data"]
    assert len(made) <= MARKS + 1
    assert 1000 * (NOW - 299) in [line["xAxis"] for line in made]


def test_the_histogram_counts_every_score_and_is_cut_at_the_threshold() -> None:
    scores = (0.0, 0.01, 0.29, 0.31, 0.99, 1.0)
    made = histogram(a_snapshot(scores=scores))
    bars = made["series"][0]["data"]
    assert [bar["value"] for bar in bars if bar["value"]] == [2, 2, 2]
    heavy = [bar["itemStyle"]["color"] == "var(--heavy)" for bar in bars]
    assert heavy == [(place + 0.5) / BINS < 0.3 for place in range(BINS)]
    assert made["series"][1]["markLine"]["data"] == [{"xAxis": 0.3}]


def test_every_colour_is_a_variable_that_light_and_dark_both_set() -> None:
    style = plain.STYLE.read_text()
    blocks = re.findall(r"color-scheme: (light|dark);([^}]*)}", style)
    assert [kind for kind, _ in blocks] == ["light", "dark", "dark"]
    known = [set(re.findall(r"(--[a-z]+):", block)) for _, block in blocks]
    drawn = json.dumps([timelines(a_snapshot(), 5.0), histogram(a_snapshot())]) + style
    for names in known:
        assert set(re.findall(r"var\((--(?!nicegui|q-)[a-z]+)\)", drawn)) <= names
    assert not re.findall(r"#[0-9a-f]{3,8}", json.dumps([timelines(a_snapshot(), 5.0), histogram(a_snapshot())]))


# -- words -------------------------------------------------------------------------------------------------------


def test_what_people_wrote_is_shown_and_not_run() -> None:
    letter = Letter("1-0", EVIL, EVIL, EVIL, EVIL, EVIL, EVIL, EVIL, 1, NOW, 5.0, (), {})
    worker = WorkerRow(EVIL, "light", EVIL, ready=True, draws=True, error=EVIL)
    slot = SlotRow(EVIL, 0, EVIL, "light", (worker,), {})
    shown = a_snapshot(
        latest=(an_answer(EVIL, "light"),),
        letters=(letter,),
        dead=1,
        fleet=(slot,),
        trouble=EVIL,
        plan=a_plan(why=EVIL, policy=EVIL),
        tiles=some_tiles(why={f"failed:{EVIL}": 1}),
    )
    panels = Panels(5.0, Gallery().address)
    parts = (
        panels.render(shown)
        | panels.pictures(shown)
        | panels.orders(Orders(frozenset({EVIL})), [Deed(NOW, EVIL, EVIL)])
    )
    for name in ("verdict", "reasons", "plan", "fleet", "pictures", "letters", "orders", "deeds"):
        assert "<script" not in parts[name], name
        assert "&lt;script&gt;" in parts[name], name


def test_an_escalated_prompt_shows_both_its_pictures_and_another_one() -> None:
    shown = a_snapshot(latest=(an_answer("first", "light", "heavy"), an_answer("second", "light")))
    text = Panels(5.0, lambda prompt_id, stage: f"{prompt_id}/{stage}").pictures(shown)["pictures"]
    first, second = text.split("</li>")[:2]
    assert re.findall(r'src="([^"]*)"', first) == ["id/light", "id/heavy"]
    assert re.findall(r'src="([^"]*)"', second) == ["id/light"]


def test_the_headline_says_whether_deadlines_are_met_and_if_not_why() -> None:
    assert verdict(a_snapshot(), 5.0).headline == "Deadlines are met: 100 % on time"
    # One of ten thousand is not none.
    assert "99.9 %" in verdict(a_snapshot(tiles=some_tiles(on_time=0.9999)), 5.0).headline
    assert verdict(a_snapshot(tiles=some_tiles(on_time=None)), 5.0).mood == "idle"
    why = {"light:confident": 60, "dropped:deadline": 4, "refused:deadline": 16, "light:no_time": 30}
    missed = verdict(a_snapshot(tiles=some_tiles(on_time=0.8, why=why, refused=16)), 5.0)
    assert missed.mood == "bad"
    assert missed.headline.startswith("20.0 % miss their deadline, mostly refused: the queue is too long")
    assert verdict(a_snapshot(trouble="Redis: gone"), 5.0).remark == "Redis: gone"


def test_reasons_name_all_that_missed_before_those_kept_light() -> None:
    why = {
        "light:confident": 60,
        "dropped:deadline": 4,
        "refused:deadline": 16,
        "light:no_time": 30,
        "light:deadline": 0,
    }
    found = reasons(some_tiles(why=why, late=5))
    assert [(row.count, row.accent) for row in found] == [(16, "bad"), (5, "bad"), (4, "bad"), (30, "light")]
    assert max(row.percent for row in found) == 100


def test_a_slot_says_what_is_wrong_with_it() -> None:
    good = WorkerRow("a", "light", "m", ready=True, draws=True, error="")
    rows = (
        SlotRow("n", 0, "g", "light", (good,), {}),
        SlotRow("n", 1, "g", "heavy", (replace(good, stage="heavy", ready=False, draws=False),), {}),
        SlotRow("n", 2, "g", "heavy", (), {"heavy": "FATAL"}),
        SlotRow("n", 3, "g", "heavy", (good,), {}),
        SlotRow("n", 4, "g", None, (good,), {}),
    )
    (node,) = nodes(rows)
    assert [slot.state for slot in node.slots] == ["draws", "loading", "wrong", "away", "rests"]
    assert node.slots[2].errors == ("heavy: FATAL",)
    assert node.about == "g: 1 of 5 slots draw"


def test_the_list_of_plans_holds_changes_of_workers_newest_first() -> None:
    plans = [a_plan(1), a_plan(2, threshold=0.9), a_plan(3, heavy_workers=5)]
    shown = a_snapshot(marks=tuple(Mark(float(number), plan) for number, plan in enumerate(plans)))
    assert [mark.plan.version for mark in moves(shown)] == [3, 1]


def test_what_stands_ordered_is_said_in_words() -> None:
    panels = Panels(5.0, Gallery().address)
    assert "Nothing is pinned, paused or drained." in panels.orders(Orders(), ())["orders"]
    shown = panels.orders(Orders(frozenset({"b"}), threshold=0.25, paused=True), [Deed(NOW, "eve", "pause")])
    assert "The planner is paused, threshold pinned at 0.25, b is drained." in shown["orders"]
    assert "eve" in shown["deeds"]
    assert "eve" not in shown["orders"], "who ordered it is for the keys of admins"


def test_an_address_of_a_picture_opens_that_picture_only() -> None:
    gallery, other = Gallery(), Gallery()
    sign = gallery.address("p", "light").split("sign=")[1]
    assert gallery.knows("p", "light", sign)
    assert not gallery.knows("p", "heavy", sign)
    assert not gallery.knows("q", "light", sign)
    assert not other.knows("p", "light", sign)
    assert not gallery.knows("p", "light", "é")
