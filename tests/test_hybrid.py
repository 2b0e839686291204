"""Who skips light and who escalates by lot: the router, the door, and the policies that use them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.policies.hybrid import hardest
from shared.cascade import could_gain, draw_lot, hardness, looks_weak, routes_heavy
from shared.door import LOOK_S, Door
from shared.plans import Plan
from tests.helpers import a_plan
from tests.planning import fleet, policy_of, same, view

IDS = [f"id-{number}" for number in range(4_000)]
PLAIN = "a cat"
HARD = "two hands holding a sign with text, a crowd behind, each face lit by a mirror; oil on canvas"


def test_a_prompt_of_more_words_more_parts_or_harder_things_looks_harder() -> None:
    # 2 words of 30 that make one half hard; with a comma 2 words more; with hands 5.
    assert hardness(PLAIN) == pytest.approx(2 / 32)
    assert hardness("a cat, black") == pytest.approx((3 + 2) / 35)
    assert hardness("Two hands") == pytest.approx((2 + 5 * 2) / 42)
    assert hardness("") == 0.0
    assert hardness(HARD) > 0.6


@given(st.text(max_size=300))
def test_hardness_is_a_share_for_any_text(prompt: str) -> None:
    assert 0 <= hardness(prompt) < 1


@pytest.mark.parametrize("share", [0.0, 0.2, 0.65, 1.0])
def test_any_share_goes_straight_to_heavy_by_lot(share: float) -> None:
    plan = a_plan(heavy_direct=share, lot=True)
    sent = sum(routes_heavy(PLAIN, each, plan) for each in IDS)
    assert sent / len(IDS) == pytest.approx(share, abs=0.03)


def test_the_hardest_prompts_go_straight_to_heavy_and_the_just_as_hard_by_lot() -> None:
    plan = a_plan(heavy_direct=0.9, direct_above=hardness(PLAIN), direct_tie_share=0.25)
    assert all(routes_heavy(HARD, each, plan) for each in IDS[:50])
    assert not any(routes_heavy("cat", each, plan) for each in IDS[:50])
    assert sum(routes_heavy(PLAIN, each, plan) for each in IDS) / len(IDS) == pytest.approx(0.25, abs=0.03)
    assert not routes_heavy(HARD, "p", a_plan(heavy_direct=0.0, direct_above=0.0))


def test_the_lot_at_the_door_has_nothing_to_do_with_the_lot_of_an_escalation() -> None:
    plan = a_plan(heavy_direct=0.5, lot=True, heavy_share=0.5, eager_share=0.75)
    past = [each for each in IDS if not routes_heavy(PLAIN, each, plan)]
    assert sum(looks_weak(0.9, each, plan) for each in past) / len(past) == pytest.approx(0.5, abs=0.03)
    assert sum(could_gain(0.9, each, plan) for each in past) / len(past) == pytest.approx(0.75, abs=0.03)
    assert draw_lot("p") == draw_lot("p", "") != draw_lot("p", "route")


def sent_heavy(looks: Sequence[float], plan: Plan) -> float:
    """The share of these prompts that the plan sends straight to heavy, in the mean over their lots."""
    above = sum(each > plan.direct_above for each in looks)
    just = sum(each == plan.direct_above for each in looks)
    return (above + plan.direct_tie_share * just) / len(looks)


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.9]) | st.floats(0, 0.99), min_size=300, max_size=400), st.floats(0.01, 1)
)
def test_exactly_the_wanted_share_is_the_hardest_however_prompts_tie(looks: list[float], share: float) -> None:
    above, tie_share = hardest(looks, share)
    plan = a_plan(heavy_direct=share, direct_above=above, direct_tie_share=tie_share)
    assert share == 1 or sent_heavy(looks, plan) == pytest.approx(share, abs=1e-9)


def test_before_any_prompt_was_seen_hardness_is_taken_as_uniform() -> None:
    above, _ = hardest((), 0.3)
    assert above == pytest.approx(0.7, abs=0.011)
    # With 150 of 300 prompts seen half the weight is theirs: 0.25 at 0.95, and 0.05 of the uniform above 0.9.
    above, _ = hardest([0.95] * 75 + [0.0] * 75, 0.3)
    assert above == pytest.approx(0.9, abs=0.011)


@pytest.mark.parametrize("rate", [0, 10, 24, 32, 150, 500])
def test_hybrid_sends_the_heavy_share_of_quality_half_by_looks_and_half_by_score(rate: int) -> None:
    draw = random.Random(5)
    scores, looks = (tuple(draw.random() for _ in range(1_000)) for _ in range(2))
    seen = replace(view(rate, fleet(16)), scores=scores, hardness=looks)
    plan, quality = policy_of("hybrid")(seen), policy_of("quality")(seen)
    assert plan.heavy_load == pytest.approx(quality.heavy_share)
    assert plan.heavy_direct == pytest.approx(quality.heavy_share / 2)
    if plan.heavy_direct:
        assert sent_heavy(looks, plan) == pytest.approx(plan.heavy_direct, abs=1e-9)
        weak = sum(score < plan.threshold for score in scores) + plan.tie_share * scores.count(plan.threshold)
        assert weak / 1_000 == pytest.approx(plan.heavy_share, abs=1e-9)
        gaining = sum(score < plan.eager_threshold for score in scores) / 1_000
        assert gaining == pytest.approx(plan.eager_share, abs=2e-3)
        assert plan.heavy_direct + (1 - plan.heavy_direct) * plan.eager_share == pytest.approx(quality.eager_share)
    assert not plan.lot
    own = {"threshold", "tie_share", "heavy_share", "eager_threshold", "eager_share"} | {
        "heavy_direct",
        "direct_above",
        "direct_tie_share",
    }
    assert same(replace(plan, **{name: getattr(quality, name) for name in own}), quality)


@pytest.mark.parametrize("rate", [0, 24, 150, 500])
def test_random_is_quality_with_lots_for_scores(rate: int) -> None:
    seen = replace(view(rate, fleet(16)), scores=tuple(number / 1_000 for number in range(1_000)))
    plan, quality = policy_of("random")(seen), policy_of("quality")(seen)
    assert plan.lot and not quality.lot
    assert same(replace(plan, lot=False), quality)
    sent = sum(looks_weak(0.999, each, plan) for each in IDS)
    assert sent / len(IDS) == pytest.approx(quality.heavy_share, abs=0.03)


@pytest.mark.parametrize("name", ["random", "hybrid"])
def test_the_control_holds_its_workers_as_quality_holds_its_own(name: str) -> None:
    draw = random.Random(2)
    control, quality = policy_of(name, dwell_s=3.0), policy_of("quality", dwell_s=3.0)
    plans: list[Plan | None] = [None, None]
    counts = set()
    for second in range(60):
        offered = tuple(draw.randint(15, 50) for _ in range(20))
        seen = replace(view(0, fleet(16), now=1_000.0 + second), offered=offered)
        plans = [each(replace(seen, plan=plan)) for each, plan in zip((control, quality), plans, strict=True)]
        first, second_ = ((plan.light_workers, plan.heavy_workers) for plan in plans if plan)
        assert first == second_
        counts.add(first)
    assert len(counts) > 1


def test_the_door_looks_at_the_plan_once_a_second_and_routes_by_the_one_in_force() -> None:
    now, looks = 10.0, 0
    plan: Plan | None = None

    def read() -> Plan | None:
        nonlocal looks
        looks += 1
        return plan

    door = Door(read, lambda: now)
    assert [door.route(HARD, each) for each in IDS[:100]] == ["cascade"] * 100
    plan = a_plan(heavy_direct=0.5, direct_above=0.5)
    now += 0.99 * LOOK_S
    assert door.route(HARD, "p") == "cascade" and looks == 1
    now += 0.01 * LOOK_S
    assert [door.route(text, "p") for text in (HARD, PLAIN)] == ["heavy", "cascade"]
    assert looks == 2
