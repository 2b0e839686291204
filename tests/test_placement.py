"""Which slot runs which stage."""

from __future__ import annotations

from itertools import product
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from planner.placement import place
from shared.plans import Plan, Slot
from shared.schema import STAGES, Stage

KINDS: tuple[tuple[Stage, ...], ...] = (("light", "heavy"), ("light",), ("heavy",))


def plan(light: int, heavy: int) -> Plan:
    return Plan("quality", 0.1, light, heavy, 1, 1, 0.1, 1.0)


def fleet(*kinds: tuple[Stage, ...]) -> tuple[Slot, ...]:
    return tuple(Slot("node", number, "cpu", stages) for number, stages in enumerate(kinds))


@st.composite
def situations(draw: st.DrawFn) -> tuple[Plan, tuple[Slot, ...], dict[str, Stage]]:
    slots = fleet(*draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5)))
    current: dict[str, Stage] = {}
    for slot in slots:
        stage = draw(st.sampled_from([None, *slot.stages]))
        if stage:
            current[slot.name] = stage
    light = draw(st.integers(0, len(slots)))
    return plan(light, draw(st.integers(0, len(slots) - light))), slots, current


def counted(assignment: dict[str, Stage], stage: Stage) -> int:
    return sum(now == stage for now in assignment.values())


def stays(assignment: dict[str, Stage], current: dict[str, Stage]) -> int:
    return sum(assignment.get(name) == stage for name, stage in current.items())


@given(situations())
def test_slots_run_only_what_they_can_and_no_stage_is_emptied_at_once(
    situation: tuple[Plan, tuple[Slot, ...], dict[str, Stage]],
) -> None:
    wanted, slots, current = situation
    assignment = dict(place(wanted, slots, current).assignment)
    stages = {slot.name: slot.stages for slot in slots}
    assert all(stage in stages[name] for name, stage in assignment.items())
    for stage in STAGES:
        workers = [name for name, now in current.items() if now == stage]
        if len(workers) > 1 or (workers and wanted.workers(stage)):
            assert any(assignment.get(name) == stage for name in workers)


@given(situations())
def test_no_assignment_of_these_counts_moves_fewer_workers(
    situation: tuple[Plan, tuple[Slot, ...], dict[str, Stage]],
) -> None:
    wanted, slots, current = situation
    got = dict(place(wanted, slots, current).assignment)
    possible = []
    for stages in product(*([None, *slot.stages] for slot in slots)):
        tried = {slot.name: stage for slot, stage in zip(slots, stages, strict=True) if stage}
        if all(counted(tried, stage) == wanted.workers(stage) for stage in STAGES):
            possible.append(stays(tried, current))
    if possible:
        assert stays(got, current) >= max(possible)


@given(situations())
def test_repeated_steps_reach_the_planned_counts(
    situation: tuple[Plan, tuple[Slot, ...], dict[str, Stage]],
) -> None:
    wanted, slots, current = situation
    for _ in range(4):
        current = dict(place(wanted, slots, current).assignment)
    assert dict(place(wanted, slots, current).assignment) == current
    only = {stage: sum(slot.stages == (stage,) for slot in slots) for stage in STAGES}
    two_way = len(slots) - sum(only.values())
    if sum(max(0, wanted.workers(stage) - only[stage]) for stage in STAGES) <= two_way:
        assert all(counted(current, stage) == wanted.workers(stage) for stage in STAGES)


def test_four_two_way_slots_keep_as_many_workers_as_any_placement_could() -> None:
    slots = fleet(*[KINDS[0]] * 4)
    for stages in product((None, "light", "heavy"), repeat=4):
        current = cast("dict[str, Stage]", {slot.name: now for slot, now in zip(slots, stages, strict=True) if now})
        for light, heavy in product(range(1, 4), range(1, 4)):
            if light + heavy <= 4:
                kept = sum(min(wanted, stages.count(now)) for wanted, now in ((light, "light"), (heavy, "heavy")))
                assert stays(dict(place(plan(light, heavy), slots, current).assignment), current) == kept


def test_the_order_of_slots_and_of_the_assignment_changes_nothing() -> None:
    slots = fleet(*[KINDS[0]] * 6)
    current: dict[str, Stage] = {"node:1": "heavy", "node:4": "light", "node:2": "heavy"}
    turned = dict(reversed(current.items()))
    assert place(plan(2, 3), slots, current) == place(plan(2, 3), slots[::-1], turned)


def test_a_slot_beyond_the_plan_idles_and_a_slot_that_is_gone_is_forgotten() -> None:
    slots = fleet(*[KINDS[0]] * 3)
    placed = place(plan(1, 1), slots, {"node:0": "light", "node:1": "heavy", "gone:0": "heavy"})
    assert placed.assignment == {"node:0": "light", "node:1": "heavy"}


def test_all_workers_of_an_unwanted_stage_leave_in_two_steps() -> None:
    slots = fleet(*[KINDS[0]] * 3)
    current: dict[str, Stage] = {"node:0": "light", "node:1": "heavy", "node:2": "heavy"}
    first = dict(place(plan(3, 0), slots, current).assignment)
    assert first == {"node:0": "light", "node:1": "heavy", "node:2": "light"}
    assert set(place(plan(3, 0), slots, first).assignment.values()) == {"light"}
