"""The policies to compare with, in numbers worked out by hand or by trying everything."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest

from planner.policies import make_policy
from shared.catalog import load_cascade
from shared.errors import SettingsError
from shared.plans import Plan, Slot, View
from tests.planning import DEADLINE_S, PINNED, SDTURBO, fleet, policy_of, same, view

# The largest batch whose seconds, a quarter more for the wait, fit the deadline; light with the discriminator's 0.02 s.
CLIPPER = [
    ("sdturbo", 5.0, 32, 4),  # 1.25 * 1.58 and 1.25 * 3.68 fit 5 s, 1.25 * 6.79 does not
    ("sdxs", 5.0, 32, 4),
    ("sdxlltn", 15.0, 16, 2),  # 1.25 * 7.12 and 1.25 * 10.65 fit 15 s, 1.25 * 20.92 does not
    ("sdturbo", 1.0, 16, 1),  # 1.25 * 0.79; no heavy batch fits: all light
    ("sdturbo", 2.3, 32, 1),  # 1.25 * 1.78 fits 2.3 s only without a light picture first
]


@pytest.mark.parametrize(("cascade", "deadline_s", "light_batch", "heavy_batch"), CLIPPER)
def test_clipper_draws_all_prompts_with_one_model_in_the_largest_batch_in_time(
    cascade: str, deadline_s: float, light_batch: int, heavy_batch: int
) -> None:
    known = load_cascade(cascade)
    for rate in (0, 20, 400):
        light = make_policy("clipper-light", known, deadline_s)(view(rate, fleet(16)))
        assert (light.light_workers, light.heavy_workers, light.light_batch) == (16, 0, light_batch)
        assert (light.heavy_load, light.threshold, light.lot) == (0.0, 0.0, False)
        heavy = make_policy("clipper-heavy", known, deadline_s)(view(rate, fleet(16)))
        if deadline_s > 1:
            assert (heavy.light_workers, heavy.heavy_workers, heavy.heavy_batch) == (0, 16, heavy_batch)
            assert (heavy.heavy_direct, heavy.heavy_load, heavy.lot) == (1.0, 1.0, True)
        else:
            assert (heavy.light_workers, heavy.heavy_direct) == (16, 0.0)
        assert {light.heavy_hold_s, light.light_hold_s, heavy.heavy_hold_s} == {0.0}, "workers take what waits"


def test_clipper_uses_only_gpus_that_are_fast_enough() -> None:
    fast = SDTURBO.profiles["heavy"]["a100-80g"]
    slow = replace(fast.scaled(3.0), gpu="slow")  # 1.25 * 3 * 1.78 s is past 5 s
    known = replace(SDTURBO, profiles={**SDTURBO.profiles, "heavy": {"a100-80g": fast, "slow": slow}})
    slots = (*fleet(2), Slot("node", 2, "slow"))
    plan = make_policy("clipper-heavy", known, DEADLINE_S)(view(1, slots))
    assert (plan.heavy_workers, plan.heavy_batch, dict(plan.heavy_on)) == (2, 4, {"a100-80g": 2})


def proteus_share(demand: float, slots: int, light_each: float, heavy_each: float) -> float:
    """The largest heavy share of all splits with a light worker, each stage at nine tenths of its throughput."""
    shares = [0.0]
    for heavy in range(slots):
        share = min(1.0, 0.9 * heavy * heavy_each / demand)
        if 0.9 * (slots - heavy) * light_each >= (1 - share) * demand * (1 - 1e-9):
            shares.append(share)
    return max(shares)


@pytest.mark.parametrize(
    ("rate", "slots"), [(4, 16), (12, 16), (20, 16), (32, 16), (150, 16), (250, 16), (8, 4), (1, 2)]
)
def test_proteus_sends_the_largest_share_that_the_slots_carry_past_light_by_lot(rate: int, slots: int) -> None:
    plan = policy_of("proteus")(view(rate, fleet(slots)))
    # One light worker draws 16 in 0.79 s, one heavy worker 4 in 3.68 s.
    assert plan.heavy_direct == pytest.approx(proteus_share(plan.demand, slots, 16 / 0.79, 4 / 3.68), abs=1e-9)
    assert (plan.lot, plan.heavy_share, plan.heavy_load) == (True, 0.0, plan.heavy_direct)
    assert plan.light_workers + plan.heavy_workers == slots
    assert 0.9 * plan.throughput("light") >= plan.demand * (1 - plan.heavy_direct) * (1 - 1e-9)


def test_proteus_carries_more_than_who_draws_every_prompt_light_first() -> None:
    # 250 prompts/s and the burst are 14 of 16 slots light; what goes straight to heavy frees light.
    proteus, cascading = (policy_of(name)(view(250, fleet(16))) for name in ("proteus", "quality"))
    assert proteus.heavy_direct > cascading.heavy_load > 0


def test_proteus_gives_heavy_to_the_gpus_that_are_better_at_it() -> None:
    light, heavy = (SDTURBO.profiles[stage]["a100-80g"] for stage in ("light", "heavy"))
    # `b` draws light as fast, heavy in half the time.
    known = replace(
        SDTURBO,
        profiles={
            "light": {"a100-80g": light, "b": replace(light, gpu="b")},
            "heavy": {"a100-80g": heavy, "b": replace(heavy.scaled(0.5), gpu="b")},
        },
    )
    slots = tuple(Slot("node", number, gpu) for number, gpu in enumerate(["a100-80g", "b"] * 3))
    plan = make_policy("proteus", known, DEADLINE_S)(view(20, slots))
    # One worker draws 16 in 0.79 s light, at nine tenths 18 prompts/s: that and 7 heavy are enough for 22.
    assert (dict(plan.light_on), dict(plan.heavy_on)) == ({"a100-80g": 1}, {"a100-80g": 2, "b": 3})
    batch = plan.heavy_batch
    drawn = 0.9 * batch * (2 / heavy.p50_s[batch] + 3 / (0.5 * heavy.p50_s[batch]))
    assert plan.heavy_direct == pytest.approx(drawn / plan.demand)


def test_static_is_the_plan_for_its_peak_whatever_comes() -> None:
    policy, draw = policy_of("static"), random.Random(3)
    plan = policy(view(4, fleet(16)))
    # Best for 32 prompts/s in steps of 2 %: 3 light workers in fours, 13 heavy in fours at nine tenths.
    assert (plan.light_workers, plan.heavy_workers, plan.light_batch, plan.heavy_batch) == (3, 13, 4, 4)
    assert plan.heavy_share == pytest.approx(0.9 * 13 * 4 / 3.68 / plan.demand)
    assert 32 <= plan.demand <= 32 * 1.02
    below, through = (sum(map(bar, SDTURBO.scores)) for bar in (plan.threshold.__gt__, plan.threshold.__ge__))
    assert below <= plan.heavy_share * len(SDTURBO.scores) <= through, "the threshold is that of the recorded scores"
    for second in range(20):
        seen = View(101.0 + second, (draw.randint(0, 500),) * 20, fleet(16), tuple(draw.random() for _ in range(400)))
        after = policy(replace(seen, pace={"heavy": 1.5}, waiting={"heavy": 99}, plan=plan))
        assert same(after, plan) and after.made == seen.now
    assert policy(view(4, fleet(8))).heavy_share < plan.heavy_share, "another fleet is another plan"


@pytest.mark.parametrize("peak", [None, 0.0, -1.0, math.nan, math.inf])
def test_static_without_a_peak_says_what_to_give(peak: float | None) -> None:
    with pytest.raises(SettingsError, match=r"peak_per_s: .*give it in prompts/s"):
        policy_of("static", peak=peak)


def test_pinned_is_the_plan_of_its_file_whatever_comes(tmp_path: Path) -> None:
    policy = policy_of("pinned")
    plans = [policy(replace(view(rate, fleet(16)), scores=(0.5,) * rate)) for rate in (0, 32, 500)]
    assert all(same(plan, plans[0]) for plan in plans)
    plan = plans[0]
    assert (plan.light_workers, plan.heavy_workers, plan.light_batch, plan.heavy_batch) == (4, 12, 16, 4)
    assert (plan.threshold, plan.heavy_service_s) == (0.02, 3.68)
    assert plan.light_service_s == pytest.approx(0.77 + 0.02)
    assert plan.heavy_share == pytest.approx(sum(score < 0.02 for score in SDTURBO.scores) / len(SDTURBO.scores))
    as_json = tmp_path / "plan.json"
    said = {"light_workers": 4, "heavy_workers": 12, "light_batch": 16, "heavy_batch": 4, "threshold": 0.02}
    as_json.write_text(json.dumps(said))
    assert same(policy_of("pinned", pinned=as_json)(view(32, fleet(16))), plan)


def test_a_pinned_plan_on_too_few_slots_gives_light_its_workers_first() -> None:
    plan = policy_of("pinned")(view(32, fleet(6)))
    assert (plan.light_workers, plan.heavy_workers, plan.threshold) == (4, 2, 0.02)
    assert "slots for 10 of 16 workers are missing" in plan.why
    one = policy_of("pinned")(view(32, fleet(4)))
    assert (one.light_workers, one.heavy_workers, one.threshold, one.heavy_load) == (4, 0, 0.0, 0.0)


GOOD = PINNED.read_text()
BROKEN = [
    ("light_workers = 4", 'light_workers = "four"', ":2: light_workers: Input should be a valid integer"),
    ("light_workers = 4", "light_workers = 0", ":2: light_workers: without light workers heavy_direct must be 1"),
    ("heavy_workers = 12", "heavy_workers = -1", ":3: heavy_workers: "),
    (
        "heavy_batch = 4",
        "heavy_batch = 3",
        ":5: heavy_batch: no profile for batch 3: models/profiles/sd-v1-5.csv has 1, 2",
    ),
    ("threshold = 0.02", "threshold = nan", ":6: threshold: "),
    ("threshold = 0.02", "threshold = 1.5", ":6: threshold: "),
    ("threshold = 0.02", "threshold = 0.5\nlot = true", ":7: lot: lots need a heavy_share"),
    ("threshold = 0.02", "treshold = 0.02", ": threshold: Field required"),
    ("threshold = 0.02", "threshold = 0.02\ntypo = 1", ":7: typo: "),
    ("threshold = 0.02", "threshold == 0.02", "line 6"),
]


@pytest.mark.parametrize(("right", "wrong", "said"), BROKEN)
def test_a_wrong_pinned_file_is_named_with_line_and_field(tmp_path: Path, right: str, wrong: str, said: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(GOOD.replace(right, wrong))
    with pytest.raises(SettingsError) as caught:
        policy_of("pinned", pinned=path)
    assert str(caught.value).startswith(str(path)) and said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b'{"light_workers": }', b"[1, 2]"])
def test_a_pinned_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=str(path)):
        policy_of("pinned", pinned=path)
    with pytest.raises(SettingsError, match=r"pinned: .*TOML or JSON"):
        policy_of("pinned", pinned=None)


def test_who_solves_no_program_names_no_solver() -> None:
    named = {
        name: policy_of(name)(view(4, fleet(4))) for name in ("clipper-light", "clipper-heavy", "proteus", "pinned")
    }
    assert {(plan.solver, plan.solve_ms) for plan in named.values()} == {("", 0.0)}
    solved: list[Plan] = [policy_of(name)(view(4, fleet(4))) for name in ("static", "hybrid", "random")]
    assert {plan.solver for plan in solved} == {"exhaustive"}
