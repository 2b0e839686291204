"""Whatever a view holds, every policy answers with a plan that the slots can hold, and says why."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.placement import place
from planner.policies import POLICIES
from shared.plans import Plan, Slot, View
from shared.schema import Stage
from tests.planning import BOTH, SDTURBO, fleet, policy_of, view

HEAVY: tuple[Stage, ...] = ("heavy",)
LIGHT: tuple[Stage, ...] = ("light",)
SOLVING = ("quality", "diffserve", "random", "hybrid", "proteus", "static")
REASONS = [
    *((name, (), 10, 5.0, "no slot is there") for name in (*SOLVING, "clipper-light", "clipper-heavy")),
    *(
        (name, fleet(3, HEAVY), 10, 5.0, "no slot can run light")
        for name in ("diffserve", "proteus", "static", "clipper-light")
    ),
    *(
        (name, fleet(4), 10, 0.01, "no light batch meets the deadline of 0.01 s")
        for name in (*SOLVING, "clipper-light")
    ),
    *((name, fleet(4), 10**12, 5.0, "more than 4 slots can draw light") for name in SOLVING[:-1]),
    ("clipper-heavy", fleet(4), 10, 1.0, "no heavy batch meets the deadline of 1 s"),
    ("clipper-heavy", fleet(4, LIGHT), 10, 5.0, "no slot can run heavy"),
    ("clipper-light", fleet(4), 10**12, 5.0, "every prompt is drawn light"),
    ("pinned", (), 10, 5.0, "slots for 16 of 16 workers are missing"),
]


@pytest.mark.parametrize(("name", "slots", "rate", "deadline_s", "reason"), REASONS)
def test_where_nothing_can_be_planned_all_is_light_and_the_reason_is_said(
    name: str, slots: tuple[Slot, ...], rate: int, deadline_s: float, reason: str
) -> None:
    plan = policy_of(name, deadline_s, "highs")(view(rate, slots))
    assert reason in plan.why
    assert (plan.heavy_workers, plan.heavy_load, plan.threshold) == (0, 0.0, 0.0)
    assert plan.light_workers == sum("light" in slot.stages for slot in slots)
    if plan.light_workers:
        assert plan.light_batch == (1 if deadline_s < 1 else 32 if name == "clipper-light" else 16)


@pytest.mark.parametrize("name", ["quality", "random", "hybrid"])
def test_where_no_slot_can_run_light_every_prompt_goes_straight_to_heavy(name: str) -> None:
    plan = policy_of(name)(view(1, fleet(3, HEAVY)))
    assert "no slot can run light: heavy draws every new prompt" in plan.why
    assert (plan.policy, plan.light_workers, plan.heavy_workers, plan.heavy_direct) == (name, 0, 3, 1.0)
    for slots in (fleet(3), fleet(3, HEAVY) + fleet(1, LIGHT, "other")):
        again = policy_of(name)(replace(view(1, slots), plan=replace(plan, staffed=view(1, slots).now)))
        assert (again.light_workers >= 1, again.heavy_direct < 1) == (True, True), "as soon as one can, dwell or not"


@pytest.mark.parametrize("name", ["quality", "random", "hybrid"])
def test_a_plan_in_which_heavy_can_draw_nothing_in_time_does_not_say_that_it_does(name: str) -> None:
    plan = policy_of(name, 1.0)(view(1, fleet(3, HEAVY)))
    assert (plan.why, plan.heavy_workers, plan.heavy_direct) == ("no slot can run light", 0, 0.0)


def test_queues_that_leave_no_time_do_not_make_diffserve_draw_one_by_one() -> None:
    crowded = replace(view(20, fleet(16)), waiting={"light": 1_000, "heavy": 1_000})
    plan = policy_of("diffserve")(crowded)
    # 24 prompts/s planned, none escalated before: 1,000 / 24 in either queue.
    assert "queues of 83." in plan.why
    assert (plan.light_workers, plan.light_batch, plan.heavy_load) == (16, 16, 0.0)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("rate", [0, 5, 10**15])
def test_a_single_slot_draws_light_unless_all_is_heavy(name: str, rate: int) -> None:
    plan = policy_of(name)(view(rate, fleet(1)))
    expected = (0, 1, 1.0) if name == "clipper-heavy" else (1, 0, 0.0)
    assert (plan.light_workers, plan.heavy_workers, plan.heavy_load) == expected


def test_slots_of_one_stage_and_of_unknown_gpus_are_planned() -> None:
    slots = (Slot("a", 0, "unheard-of", LIGHT), Slot("a", 1, "unheard-of", HEAVY))
    for name in set(POLICIES) - {"clipper-light", "clipper-heavy"}:
        plan = place(policy_of(name, peak=1.0)(view(1, slots)), slots, {})
        # `diffserve` and the others need both for any heavy share.
        assert plan.assignment == {"a:0": "light", "a:1": "heavy"}, name
    assert place(policy_of("clipper-heavy")(view(1, slots)), slots, {}).assignment == {"a:1": "heavy"}


SLOTS = st.lists(st.sampled_from([(), LIGHT, HEAVY, BOTH]), max_size=6)
WILD = st.floats(allow_nan=True, allow_infinity=True)
PLANS = st.builds(
    Plan,
    policy=st.sampled_from(sorted(POLICIES)),
    threshold=st.floats(0, 1),
    light_workers=st.integers(0, 9),
    heavy_workers=st.integers(0, 9),
    light_batch=st.just(4),
    heavy_batch=st.just(2),
    light_service_s=st.just(0.2),
    heavy_service_s=st.just(2.0),
    heavy_share=st.floats(0, 1),
    heavy_direct=st.floats(0, 1),
    made=st.floats(0, 95),
)


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(POLICIES)),
    offered=st.lists(st.integers(0, 10**20), max_size=25),
    stages=SLOTS,
    gpu=st.sampled_from([SDTURBO.gpu, "unheard-of"]),
    scores=st.lists(WILD, max_size=10),
    hardness=st.lists(WILD, max_size=10),
    pace=st.dictionaries(st.sampled_from(["light", "heavy"]), WILD),
    waiting=st.integers(0, 10**9),
    deadline_s=st.floats(0.001, 1_000),
    before=st.none() | PLANS,
)
def test_any_view_gives_a_plan_that_the_slots_can_hold(
    name: str,
    offered: list[int],
    stages: list[tuple[Stage, ...]],
    gpu: str,
    scores: list[float],
    hardness: list[float],
    pace: dict[Stage, float],
    waiting: int,
    deadline_s: float,
    before: Plan | None,
) -> None:
    slots = tuple(Slot("node", number, gpu, each) for number, each in enumerate(stages))
    queues: dict[Stage, int] = {"light": waiting, "heavy": waiting}
    seen = View(100.0, tuple(offered), slots, tuple(scores), queues, {}, pace, before, tuple(hardness))
    made = policy_of(name, deadline_s)(seen)
    assert made.policy == name
    assert made.light_workers <= sum("light" in slot.stages for slot in slots)
    assert made.heavy_workers <= sum("heavy" in slot.stages for slot in slots)
    assert made.light_workers + made.heavy_workers <= len(slots)
    assert made.light_workers >= any("light" in slot.stages for slot in slots) or made.heavy_direct == 1
    shares = (made.threshold, made.tie_share, made.heavy_share, made.heavy_direct, made.direct_tie_share)
    assert all(0 <= share <= 1 for share in shares)
    assert 0 <= made.heavy_hold_s <= 0.1 * deadline_s + 1e-9
    assert made.why and math.isfinite(made.demand) and made.light_service_s > 0 < made.heavy_service_s
    assert made.heavy_workers > 0 or made.heavy_load == 0
    assert Plan.from_wire({k.encode(): str(v).encode() for k, v in made.wire().items()}) == made
