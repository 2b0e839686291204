"""The rules of the cascade, read as tables."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.cascade import (
    Take,
    Waiting,
    batch_to_take,
    decide,
    draw_lot,
    heavy_time_s,
    hopeless,
    last_call_s,
    lets_go,
    light_draws,
    light_wait_s,
    looks_weak,
    verdict,
)
from shared.schema import Stage
from tests.helpers import a_plan

IDS = [f"id-{number}" for number in range(2_000)]


def test_scores_below_the_threshold_escalate_and_those_above_do_not() -> None:
    plan = a_plan(threshold=0.5, tie_share=0.0)
    assert [looks_weak(score, "p", plan) for score in (0.49, 0.5, 0.51)] == [True, False, False]
    assert looks_weak(0.5, "p", a_plan(threshold=0.5, tie_share=1.0))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.7, 1.0])
def test_of_equal_scores_any_share_can_escalate(share: float) -> None:
    tied = sum(looks_weak(0.5, each, a_plan(threshold=0.5, tie_share=share)) for each in IDS)
    lot = sum(looks_weak(0.99, each, a_plan(lot=True, heavy_share=share)) for each in IDS)
    assert tied == lot == pytest.approx(share * len(IDS), abs=0.04 * len(IDS))


def test_a_lot_belongs_to_its_prompt() -> None:
    assert all(0 <= draw_lot(each) < 1 for each in IDS)
    assert draw_lot("p") == draw_lot("p") != draw_lot("q")


def test_the_heavy_stages_time_counts_the_prompts_before_it() -> None:
    plan = a_plan(heavy_workers=2, heavy_batch=4, heavy_service_s=2.0)  # every second a worker takes four
    assert heavy_time_s(3, plan) == 2.0, "the next batch has room for it"
    assert heavy_time_s(4, plan) == 3.0
    assert heavy_time_s(12, plan) == 5.0
    assert heavy_time_s(0, a_plan(heavy_workers=0)) == float("inf")


def test_the_light_stages_time_counts_the_prompts_before_it() -> None:
    plan = a_plan(light_workers=2, light_batch=4, light_service_s=2.0)
    assert light_wait_s(8, plan) == 4.0
    assert light_wait_s(0, a_plan(light_workers=0)) == float("inf")


def test_a_light_picture_is_the_answer_or_escalates_for_one_stated_reason() -> None:
    plan = a_plan(threshold=0.5, heavy_workers=1, heavy_batch=1, heavy_service_s=2.0)
    assert decide(0.1, "p", "light", 99.0, 0, plan) == "light_only"
    assert decide(0.1, "p", "heavy", 99.0, 0, plan) == "moved"
    assert decide(0.9, "p", "cascade", 99.0, 0, plan) == "confident"
    assert decide(0.1, "p", "cascade", 2.0, 0, plan) == "escalate"
    assert decide(0.1, "p", "cascade", 1.9, 0, plan) == "no_time"
    assert decide(0.1, "p", "cascade", 9.0, 4, plan) == "no_time"


def test_while_heavy_has_room_whoever_could_gain_escalates() -> None:
    plan = a_plan(threshold=0.2, eager_threshold=0.5, heavy_workers=2, heavy_batch=4, heavy_service_s=2.0)
    assert decide(0.3, "p", "cascade", 9.0, 3, plan) == "escalate"
    assert decide(0.5, "p", "cascade", 9.0, 3, plan) == "confident", "a heavy picture would not better the whole"
    assert decide(0.3, "p", "cascade", 9.0, 4, plan) == "confident", "a batch waits: the planned threshold holds"
    assert decide(0.1, "p", "cascade", 9.0, 4, plan) == "escalate"
    assert decide(0.3, "p", "cascade", 1.9, 0, plan) == "confident", "nobody wanted it enough to speak of no time"
    assert decide(0.3, "p", "cascade", 9.0, 0, replace(plan, heavy_workers=0)) == "confident"
    by_lot = [decide(0.9, each, "cascade", 9.0, 0, replace(plan, lot=True, eager_share=0.6)) for each in IDS]
    assert by_lot.count("escalate") == pytest.approx(0.6 * len(IDS), rel=0.1)


# stage, has a light picture, time left, what the keeper does; light takes 0.5 s, the margin is 0.2 s
VERDICTS = [
    ("heavy", True, 0.21, "wait"),
    ("heavy", True, 0.2, "keep_light"),
    ("heavy", True, -1.0, "keep_light"),
    ("heavy", False, 0.71, "wait"),
    ("heavy", False, 0.69, "to_light"),
    ("heavy", False, 0.51, "to_light"),
    ("heavy", False, 0.0, "drop"),
    ("light", False, 0.01, "wait"),
    ("light", False, 0.0, "drop"),
]


@pytest.mark.parametrize(("stage", "has_light", "left_s", "expected"), VERDICTS)
def test_the_keepers_verdict(stage: str, has_light: bool, left_s: float, expected: str) -> None:
    assert verdict(stage, has_light, left_s, 0.5, 0.2) == expected  # type: ignore[arg-type]


@given(st.booleans(), st.floats(0.001, 10.0), st.floats(0.0, 20.0), st.floats(0.01, 1.0))
def test_nothing_is_dropped_before_its_deadline(
    has_light: bool, left_s: float, light_s: float, margin_s: float
) -> None:
    assert verdict("light", has_light, left_s, light_s, margin_s) != "drop"
    assert verdict("heavy", has_light, left_s, light_s, margin_s) != "drop"


SERVICE = [1.0, 1.5, 2.0, 2.5]


def waiting(*pairs: tuple[float, float]) -> list[Waiting]:
    return [Waiting(100.0 - age, 100.0 + slack) for age, slack in pairs]


TAKES = [
    ("nothing waits", [], 4, 5.0, Take(0, 0.0)),
    ("a full batch goes at once", [(0.1, 9), (0.1, 9)], 2, 5.0, Take(2, 0.0)),
    ("a part-filled one is held", [(1.0, 9), (0.1, 9)], 4, 5.0, Take(0, 4.0)),
    ("until its oldest has waited enough", [(5.0, 9), (0.1, 9)], 4, 5.0, Take(2, 0.0)),
    ("or one more would cost a deadline", [(0.5, 3.0), (0.1, 9)], 4, 5.0, Take(0, 1.0)),
    ("or just has", [(0.5, 2.0), (0.1, 9)], 4, 5.0, Take(2, 0.0)),
    ("never larger than the most urgent can bear", [(0.5, 1.2), (0.1, 9), (0.1, 9)], 3, 0.0, Take(1, 0.0)),
    ("the hopeless ride along", [(0.5, 0.5), (0.1, 9), (0.1, 0.5), (0.1, 9)], 2, 5.0, Take(4, 0.0)),
    ("only hopeless ones: all at once", [(0.5, 0.5), (0.1, 0.9)], 4, 5.0, Take(2, 0.0)),
]


@pytest.mark.parametrize(("why", "queue", "batch", "hold_s", "expected"), TAKES, ids=[row[0] for row in TAKES])
def test_how_many_an_idle_worker_takes(
    why: str, queue: list[tuple[float, float]], batch: int, hold_s: float, expected: Take
) -> None:
    take = batch_to_take(waiting(*queue), 100.0, batch, hold_s, SERVICE)
    assert take.count == expected.count, why
    assert take.ask_again_s == pytest.approx(expected.ask_again_s)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(-2, 10)), max_size=12), st.integers(1, 4), st.floats(0, 5))
def test_a_batch_is_never_larger_than_asked_or_than_its_members_can_bear(
    pairs: list[tuple[float, float]], batch: int, hold_s: float
) -> None:
    queue = waiting(*pairs)
    take = batch_to_take(queue, 100.0, batch, hold_s, SERVICE)
    drawn = [item for item in queue[: take.count] if not hopeless(item.deadline, 100.0, SERVICE[0])]
    assert len(drawn) <= batch
    assert all(100.0 + SERVICE[len(drawn) - 1] <= item.deadline for item in drawn)
    assert take.count or not queue or take.ask_again_s > 0, "whoever waits is told for how long"
    assert take.ask_again_s <= hold_s + 1e-9


LETTING_GO: list[tuple[str, Stage, bool, float, bool]] = [
    ("drawn where it is in time", "heavy", True, 3.0, False),
    ("light has no other way out", "light", False, 1.9, False),
    ("nobody can draw it in time, not even alone", "light", False, 0.9, True),
    ("a picture to fall back on bears the risk", "heavy", True, 2.1, False),
    ("without one, heavy must be sure", "heavy", False, 2.1, True),
    ("and is", "heavy", False, 2.6, False),
]


@pytest.mark.parametrize(
    ("why", "stage", "has_light", "left_s", "goes"), LETTING_GO, ids=[row[0] for row in LETTING_GO]
)
def test_what_a_worker_lets_go(why: str, stage: Stage, has_light: bool, left_s: float, goes: bool) -> None:
    assert lets_go(stage, has_light, 100.0 + left_s, 100.0, [1.0, 2.0], 0.5, a_plan()) is goes, why


def test_nothing_leaves_heavy_for_light_while_the_plan_has_no_light_worker() -> None:
    """What heavy can draw in time at all it draws: there is no other way out."""
    alone = a_plan(light_workers=0, heavy_direct=1.0)
    assert not lets_go("heavy", False, 102.1, 100.0, [1.0, 2.0], 0.5, alone)
    assert lets_go("heavy", False, 100.9, 100.0, [1.0, 2.0], 0.5, alone)
    assert light_draws(a_plan()) and light_draws(None), "it may come"
    assert not light_draws(alone)


LAST_CALLS = [
    ("light is quick: it is asked late", {"light": 0, "heavy": 0}, 1, 1.0),
    ("light is crowded, heavy draws it sooner: it stays until heavy can't", {"light": 100, "heavy": 0}, 1, 2.0),
    ("both are crowded", {"light": 100, "heavy": 100}, 1, 6.0),
    ("heavy has nobody", {"light": 100, "heavy": 0}, 0, 6.0),
]


@pytest.mark.parametrize(("why", "waits", "heavy_workers", "expected"), LAST_CALLS, ids=[row[0] for row in LAST_CALLS])
def test_when_a_prompt_without_a_picture_leaves_heavy(
    why: str, waits: dict[Stage, int], heavy_workers: int, expected: float
) -> None:
    plan = a_plan(light_batch=10, light_service_s=0.5, heavy_service_s=2.0, heavy_workers=heavy_workers)
    alone_s: dict[Stage, float] = {"light": 0.5, "heavy": 2.0}
    assert last_call_s(waits, plan, alone_s) == pytest.approx(expected), why
    assert last_call_s(waits, None, alone_s) == 0.5
