"""The accounting: the conservation law, violation, percentiles, quality."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.ledger import Tally, account, percentile, quality
from shared.measured import Curve
from shared.messages import ENDS, End, Outcome, Visit

VISIT = Visit("light", "w", 0.0, 2.0, 4, 0.5)


def outcome(number: int, end: End, late: bool = False, published: float = 0.0) -> Outcome:
    finished = published + (3.0 if late else 1.0)
    return Outcome(str(number), "a cat", end, "why", published, published + 2.0, finished, (VISIT,))


@given(st.lists(st.tuples(st.sampled_from(ENDS), st.booleans())), st.integers(0, 9), st.integers(0, 9))
def test_offered_is_refused_plus_ends_plus_open(rows: list[tuple[End, bool]], refused: int, still_open: int) -> None:
    offered = len(rows) + refused + still_open
    book = account([outcome(i, *row) for i, row in enumerate(rows)], offered, refused, wasted_s=1.0)
    assert book.open == still_open
    answered = [late for end, late in rows if end in ("light", "heavy")]
    missed = sum(answered) + sum(end in ("dropped", "failed") for end, _ in rows) + refused
    assert book.violation == pytest.approx(missed / offered if offered else 0.0)
    assert book.on_time + book.late == len(answered) == len(book.latencies_s)
    assert book.gpu_s == pytest.approx(0.5 * len(rows) + 1.0)
    assert sum(book.why.values()) == len(rows)
    assert not book.twice


def test_a_prompt_that_ended_twice_is_named() -> None:
    book = account([outcome(1, "light"), outcome(2, "light"), outcome(1, "heavy")], 3)
    assert book.twice == ("1",)
    assert book.heavy_share == pytest.approx(1 / 3)


@pytest.mark.parametrize(("percent", "expected"), [(0, 1), (50, 50), (99, 99), (99.5, 100), (100, 100)])
def test_percentiles_are_values_that_occurred(percent: float, expected: float) -> None:
    assert percentile(tuple(range(1, 101)), percent) == expected
    assert percentile((), percent) == 0.0


def test_quality_is_read_window_by_window_and_weighted_by_prompts_on_time() -> None:
    curve = Curve("discriminator", "fid", ((0.0, 20.0), (0.5, 10.0), (1.0, 16.0)))
    lot = Curve("lot", "fid", ((0.0, 20.0), (1.0, 16.0)), assumed=True)
    first = [outcome(i, "heavy" if i < 2 else "light") for i in range(4)]  # half heavy
    second = [outcome(9, "light", published=7.0), outcome(10, "heavy", late=True, published=7.0)]  # the late one is out
    found = quality(Tally.of([*first, *second]), curve, lot)
    assert found.value == pytest.approx((4 * 10.0 + 1 * 20.0) / 5)
    assert found.control == pytest.approx((4 * 18.0 + 1 * 20.0) / 5)
    assert found.whole == pytest.approx(curve.at(2 / 5))
    assert (found.control_assumed, found.selector, found.metric) == (True, "discriminator", "fid")
    assert quality(Tally(), curve, lot).value == 20.0


def test_who_was_chosen_by_no_picture_counts_on_the_curve_of_the_lot() -> None:
    curve = Curve("discriminator", "fid", ((0.0, 20.0), (0.5, 10.0), (1.0, 16.0)))
    lot = Curve("lot", "fid", ((0.0, 20.0), (1.0, 16.0)), assumed=True)
    half = [outcome(i, "heavy" if i < 2 else "light") for i in range(4)]
    direct = [replace(half[0], route="heavy", visits=()), *half[1:]]
    found = quality(Tally.of(direct), curve, lot)
    assert found.value == pytest.approx((18.0 + 3 * 10.0) / 4)
    assert found.assumed, "nobody measured the lot's curve"
    assert not quality(Tally.of(half), curve, lot).assumed
    kept = quality(Tally.of([*half[:3], replace(half[3], why="no_time")]), curve, lot)
    assert [kept.value, kept.kept_by_lot] == pytest.approx([10.0, (18.0 + 3 * 10.0) / 4])


def test_all_light_and_all_heavy_are_measured_whoever_chose() -> None:
    curve = Curve("discriminator", "fid", ((0.0, 20.0), (0.5, 10.0), (1.0, 16.0)))
    lot = Curve("lot", "fid", ((0.0, 20.0), (1.0, 16.0)), assumed=True)
    heavy = [replace(outcome(i, "heavy"), route="heavy") for i in range(4)]
    for chosen in (curve, lot):
        found = quality(Tally.of(heavy), chosen, lot)
        assert (found.value, found.whole, found.assumed, found.control_assumed) == (16.0, 16.0, False, False)
    mixed = quality(Tally.of([*heavy, outcome(5, "light", published=1.0)]), lot, lot)
    assert mixed.value == mixed.control == mixed.whole == pytest.approx(16.8)
    assert mixed.assumed and mixed.control_assumed


def test_the_share_of_the_whole_run_is_blended_as_its_windows_are() -> None:
    curve = Curve("discriminator", "fid", ((0.0, 20.0), (0.5, 10.0), (1.0, 16.0)))
    lot = Curve("lot", "fid", ((0.0, 20.0), (1.0, 16.0)), assumed=True)
    half = [outcome(i, "heavy" if i < 2 else "light") for i in range(4)]
    found = quality(Tally.of([replace(half[0], route="heavy"), *half[1:]]), curve, lot)
    assert found.whole == found.value == pytest.approx((18.0 + 3 * 10.0) / 4)
