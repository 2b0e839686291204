"""Which constraint of a plan binds, in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from planner.explain import EASED, Situation, binding_constraints, loads
from planner.orders import obeying
from planner.viewing import next_plan
from shared.catalog import Cascade
from shared.orders import Orders
from shared.plans import Plan, Slot, View
from tests.planning import DEADLINE_S, SDTURBO, fleet, largest_shares, policy_of, view
from tests.random_cases import of_types

PEAK = 32.0


def situation(
    demand: float, slots: tuple[Slot, ...], deadline_s: float = DEADLINE_S, cascade: Cascade = SDTURBO, **seen: Any
) -> Situation:
    return Situation(cascade, View(0.0, (), slots, **seen), demand, deadline_s)


def bound(asked: Situation) -> list[str]:
    return [line.split(" binds")[0] for line in binding_constraints(asked)]


def test_at_low_load_nothing_binds() -> None:
    assert binding_constraints(situation(1.0, fleet(16))) == [
        "nothing binds: the heavy share of best quality is carried in time"
    ]


def test_at_high_load_the_number_of_slots_binds_and_the_share_named_is_the_best_there_is() -> None:
    (line,) = [
        line for line in binding_constraints(situation(PEAK, fleet(16))) if line.startswith("the number of slots binds")
    ]
    demand = situation(PEAK, fleet(16)).case().demand
    for slots, place in ((17, "a heavy share of "), (16, "in place of ")):
        best = max(largest_shares(SDTURBO, demand, slots, headroom=0.9, wait_share=0.25))
        assert f"{place}{best:.2f}" in line
    assert "fid" in line


def test_a_deadline_that_is_too_short_for_larger_batches_binds() -> None:
    assert "the deadline" in bound(situation(16.0, fleet(8), deadline_s=2.6))
    assert "the deadline" not in bound(situation(1.0, fleet(8)))


@pytest.mark.parametrize(
    ("asked", "constraint"),
    [
        (situation(8.0, fleet(4, ("light",)) + fleet(1, ("heavy",), "other")), "which models are ready where"),
        (situation(8.0, fleet(8), ceilings={"heavy": {SDTURBO.gpu: 1}}), "the GPUs' memory"),
        (situation(8.0, fleet(8), pace={"heavy": 2.0}), "the measured pace"),
    ],
)
def test_what_else_stands_in_the_way_is_named(asked: Situation, constraint: str) -> None:
    assert constraint in bound(asked)
    assert constraint not in bound(situation(8.0, fleet(8)))


def test_where_the_demand_can_not_be_drawn_what_would_help_is_named() -> None:
    lines = binding_constraints(situation(1000.0, fleet(2)))
    assert "shedding" in lines[0]
    just = situation(1.0, fleet(1))
    while just.solve():
        just = replace(just, demand=just.demand * 1.1)
    assert "the number of slots binds: with one more slot all of the demand would be drawn" in binding_constraints(just)


def test_each_easing_eases_and_a_situation_that_has_nothing_to_ease_is_left_alone() -> None:
    asked = situation(8.0, fleet(8))
    changed = {constraint for constraint, (_, ease) in EASED.items() if ease(asked) != asked}
    assert changed == {"the number of slots", "the deadline"}


def test_mixed_gpus_are_explained_too() -> None:
    kinds = ("fast", "slow")
    slots = tuple(replace(slot, gpu=kinds[slot.number % 2]) for slot in fleet(6))
    cascade = of_types("sdturbo", {"fast": 0.5, "slow": 3.0})
    assert "the number of slots" in bound(situation(20.0, slots, cascade=cascade))


def test_the_loads_of_a_plan_are_what_it_draws_and_what_it_is_sent() -> None:
    plan = Plan("quality", 0.1, 2, 6, 4, 2, 0.5, 3.0, heavy_share=0.25, demand=10.0)
    light, heavy, time = loads(plan, 5.0)
    assert light == "light: 2 x 4 draw 16.0 prompts/s, planned for 10.0, 62% busy"
    assert heavy == "heavy: 6 x 2 draw 4.0 prompts/s, planned for 2.5, 62% busy"
    assert time == "time: light 0.62 s + heavy 3.75 s, waits included, of 5 s"


def test_a_plan_under_orders_is_explained_as_it_stands() -> None:
    made = next_plan(obeying(policy_of("quality"), Orders(heavy_workers=0), SDTURBO), view(8, fleet(4)))
    assert made is not None
    assert "0 x " in list(loads(made, DEADLINE_S))[1]
