"""How every policy obeys what people ordered."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.deferral import deferral
from planner.drafting import Policy
from planner.orders import obeying, without_drained
from planner.policies import POLICIES, make_policy
from planner.viewing import next_plan
from shared.orders import Orders
from shared.plans import Plan, Slot, View
from shared.schema import STAGES, Stage
from tests.planning import SDTURBO, fleet, policy_of, view
from tests.random_cases import of_types

EVERY = sorted(POLICIES)
KINDS: tuple[tuple[Stage, ...], ...] = (("light", "heavy"), ("light",), ("heavy",))


@cache
def policy(name: str) -> Policy:
    return policy_of(name)


def planned(name: str, orders: Orders, seen: View, steps: int = 5) -> Plan:
    """The plan in force after some planning periods."""
    for _ in range(steps):
        plan = next_plan(obeying(policy(name), orders, SDTURBO), without_drained(seen, orders))
        seen = replace(seen, plan=plan or seen.plan, now=seen.now + 5.0)  # a whole period of `diffserve`
    assert seen.plan is not None
    return seen.plan


def counted(plan: Plan, stage: Stage) -> int:
    return sum(each == stage for each in plan.assignment.values())


@pytest.mark.parametrize("name", EVERY)
def test_a_drained_node_has_no_slot_in_any_plan_and_all_of_them_back_in_the_end(name: str) -> None:
    slots = fleet(4, node="stays") + fleet(4, node="goes")
    before = planned(name, Orders(), view(8, slots))
    drained = planned(name, Orders(drained=frozenset({"goes"})), view(8, slots, plan=before))
    assert drained.assignment
    assert {slot.split(":")[0] for slot in drained.assignment} == {"stays"}
    assert planned(name, Orders(), view(8, slots)).assignment == before.assignment


@pytest.mark.parametrize("name", EVERY)
def test_where_every_node_is_drained_the_plan_is_empty(name: str) -> None:
    slots = fleet(4)
    before = planned(name, Orders(), view(8, slots))
    assert not planned(name, Orders(drained=frozenset({"node"})), view(8, slots, plan=before)).assignment


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("light", "heavy"), [(1, 7), (3, 5), (7, 1), (2, 2), (8, 0)])
def test_pinned_counts_are_those_of_the_plan_and_of_its_slots(name: str, light: int, heavy: int) -> None:
    orders = Orders(light_workers=light, heavy_workers=heavy)
    for start in (None, planned(name, Orders(), view(8, fleet(8)))):
        plan = planned(name, orders, view(8, fleet(8), plan=start))
        assert (plan.light_workers, plan.heavy_workers) == (light, heavy)
        assert [counted(plan, stage) for stage in STAGES] == [light, heavy]
        assert f"{light} light workers, {heavy} heavy workers" in plan.why
        assert plan.throughput("light") > 0


def test_batches_and_threshold_are_fitted_to_pinned_counts() -> None:
    shares = []
    for light, heavy in ((7, 1), (5, 3), (3, 5)):
        plan = planned("quality", Orders(light_workers=light, heavy_workers=heavy), view(8, fleet(8)))
        assert plan.heavy_load * plan.demand <= plan.throughput("heavy") * 0.9 + 1e-6, "with its headroom"
        shares.append(plan.heavy_share)
    assert shares[0] < shares[1] < shares[2], "more heavy workers carry more"


@pytest.mark.parametrize("name", EVERY)
def test_one_pinned_count_leaves_the_rest_of_the_slots_to_the_other_stage(name: str) -> None:
    for orders, counts in ((Orders(heavy_workers=3), (5, 3)), (Orders(light_workers=3), (3, 5))):
        plan = planned(name, orders, view(8, fleet(8)))
        assert (plan.light_workers, plan.heavy_workers) == counts


def test_a_count_that_has_no_slots_is_met_as_far_as_it_goes_and_the_plan_says_so() -> None:
    plan = planned("quality", Orders(light_workers=3, heavy_workers=20), view(8, fleet(8)))
    assert (plan.light_workers, plan.heavy_workers) == (3, 5)
    assert "5 of 20 heavy workers, more have no slot" in plan.why
    only_light = fleet(8, ("light",))
    plan = planned("quality", Orders(heavy_workers=2), view(8, only_light))
    assert (plan.light_workers, plan.heavy_workers) == (6, 0), "two slots are left for heavy, and none can run it"
    assert "0 of 2 heavy workers" in plan.why


@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=6),
    light=st.none() | st.integers(1, 8),
    heavy=st.none() | st.integers(0, 8),
    rate=st.integers(0, 40),
)
def test_on_any_fleet_pinned_counts_are_placed_and_the_plan_comes_to_rest(
    kinds: list[tuple[Stage, ...]], light: int | None, heavy: int | None, rate: int
) -> None:
    slots = tuple(Slot("node", number, SDTURBO.gpu, stages) for number, stages in enumerate(kinds))
    orders = Orders(light_workers=light, heavy_workers=heavy)
    seen = view(rate, slots)
    plan = planned("quality", orders, seen)
    if light is not None or heavy is not None:
        assert [counted(plan, stage) for stage in STAGES] == [plan.light_workers, plan.heavy_workers]
        for stage in STAGES:
            pin = orders.workers(stage)
            assert pin is None or plan.workers(stage) <= pin
    decide = obeying(policy("quality"), orders, SDTURBO)
    assert next_plan(decide, replace(seen, plan=plan, now=seen.now + 100)) is None, "nothing changed: no new plan"


def test_counts_of_mixed_gpus_draw_what_the_plan_says() -> None:
    cascade = of_types("sdturbo", {"fast": 0.5, "slow": 3.0})
    slots = tuple(replace(slot, gpu=("fast", "slow")[slot.number % 2]) for slot in fleet(6))
    decide = obeying(make_policy("quality", cascade, 5.0, "highs"), Orders(light_workers=2, heavy_workers=4), cascade)
    seen = view(4, slots)
    for _ in range(3):
        seen = replace(seen, plan=next_plan(decide, seen) or seen.plan)
    plan, gpus = seen.plan, {slot.name: slot.gpu for slot in slots}
    assert plan is not None
    for stage, count in zip(STAGES, (2, 4), strict=True):
        placed = [gpus[name] for name, each in plan.assignment.items() if each == stage]
        assert len(placed) == count
        drawn = sum(plan.batch(stage) / cascade.service_s(stage, plan.batch(stage), gpu) for gpu in placed)
        assert plan.throughput(stage) == pytest.approx(drawn)


@pytest.mark.parametrize("name", EVERY)
def test_a_pinned_threshold_is_the_plans_and_nothing_escalates_beyond_it(name: str) -> None:
    below = deferral((), SDTURBO.scores).share_below(0.05)
    assert 0.1 < below < 0.9
    plan = planned(name, Orders(threshold=0.05), view(8, fleet(8)))
    assert (plan.threshold, plan.tie_share, plan.eager_threshold, plan.eager_share) == (0.05, 0.0, 0.0, 0.0)
    assert plan.heavy_share == pytest.approx(below)
    assert "threshold 0.05" in plan.why
    assert planned(name, Orders(threshold=1.0), view(8, fleet(8))).heavy_share == 1.0
    assert planned(name, Orders(threshold=0.0), view(8, fleet(8))).heavy_share == 0.0


def test_a_threshold_that_heavy_can_not_follow_says_so() -> None:
    assert "but heavy draws" in planned("quality", Orders(threshold=0.9), view(20, fleet(8))).why
    assert "but heavy draws" not in planned("quality", Orders(threshold=0.01), view(4, fleet(8))).why
    assert "nobody draws heavy" in planned("clipper-light", Orders(threshold=0.9), view(4, fleet(8))).why


@pytest.mark.parametrize("name", EVERY)
def test_a_paused_planner_changes_nothing_whatever_comes(name: str) -> None:
    before = planned(name, Orders(), view(4, fleet(8)))
    busy = replace(view(30, fleet(8), now=200.0, plan=before), scores=(0.9,) * 500, waiting={"heavy": 90})
    decide = obeying(policy(name), Orders(paused=True), SDTURBO)
    assert next_plan(decide, busy) is None
    if name not in ("pinned", "static", "clipper-light", "clipper-heavy"):
        assert next_plan(policy(name), busy) is not None, "without the order it would have planned anew"


def test_a_pause_keeps_the_counts_while_slots_come_and_go() -> None:
    before = planned("quality", Orders(), view(8, fleet(8)))
    orders = Orders(paused=True)
    fewer = planned("quality", orders, view(8, fleet(6), plan=before))
    assert len(fewer.assignment) == 6
    assert planned("quality", orders, view(8, fleet(8), plan=fewer)).assignment == before.assignment


def test_without_a_plan_in_force_a_paused_planner_makes_the_first() -> None:
    assert planned("quality", Orders(paused=True), view(8, fleet(8))).assignment


def test_what_is_ordered_while_the_planner_is_paused_is_obeyed() -> None:
    slots = fleet(4, node="stays") + fleet(4, node="goes")
    before = planned("quality", Orders(), view(8, slots))
    orders = Orders(frozenset({"goes"}), threshold=0.07, heavy_workers=1, paused=True)
    plan = planned("quality", orders, view(8, slots, plan=before))
    assert {slot.split(":")[0] for slot in plan.assignment} == {"stays"}
    assert (plan.threshold, plan.heavy_workers, plan.light_workers) == (0.07, 1, 3)
    assert (plan.light_batch, plan.heavy_batch) == (before.light_batch, before.heavy_batch)
    scored = replace(view(8, slots, plan=plan), scores=(0.5,) * 100)
    assert next_plan(obeying(policy("quality"), orders, SDTURBO), without_drained(scored, orders)) is None


@pytest.mark.parametrize("name", EVERY)
def test_what_is_taken_back_leaves_no_trace(name: str) -> None:
    orders = Orders(threshold=0.07, light_workers=6, heavy_workers=2)
    ordered = planned(name, orders, view(8, fleet(8)))
    assert ordered.why.count("by order") == 1
    after = planned(name, Orders(), view(8, fleet(8), now=500.0, plan=ordered))
    assert "by order" not in after.why
    assert after.threshold != 0.07


def test_without_orders_the_policy_is_itself() -> None:
    assert obeying(policy("quality"), Orders(drained=frozenset({"x"})), SDTURBO) is policy("quality")
