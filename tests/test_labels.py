"""No name in a figure stands upon another, wherever the points lie."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from matplotlib.figure import Figure

from analysis.figures import INK, drawing
from analysis.labels import APART, Label, line_around, spread, write_labels

places = some.floats(0, 100)


@given(some.lists(places, min_size=1, max_size=12))
def test_spread_heights_keep_their_order_and_distance(wanted: list[float]) -> None:
    found = spread(sorted(wanted), 10, -200, 300)
    assert all(after - before >= 10 - 1e-9 for before, after in pairwise(found))
    assert found[0] >= -200 and found[-1] <= 300


def test_heights_that_are_apart_stay_and_close_ones_share_the_move() -> None:
    assert spread([0, 30, 60], 10, 0, 100) == [0, 30, 60]
    assert spread([50, 50], 10, 0, 100) == [45, 55]
    assert spread([0, 0, 0], 10, 0, 100) == [0, 10, 20]
    assert spread([100, 100], 10, 0, 100) == [90, 100]


@given(some.lists(some.tuples(places, places), min_size=1, max_size=9))
@settings(max_examples=20)
def test_no_name_stands_upon_another(points: list[tuple[float, float]]) -> None:
    with drawing("test"):
        axis = Figure(figsize=(9, 5)).subplots()
        for x, y in points:
            axis.plot(x, y, "o")
        axis.set_xlim(0, 100)
        labels = [Label(x, y, f"a-long-policy-{place} 17.38", INK) for place, (x, y) in enumerate(points)]
        boxes = write_labels(axis, labels)
        frame = axis.get_window_extent()
    assert not [True for one, other in combinations(boxes, 2) if one.padded(-0.5).overlaps(other.padded(-0.5))]
    assert all(frame.y0 - 1 <= box.y0 and box.y1 <= frame.y1 + 1 for box in boxes)
    assert all(box.height == pytest.approx(APART) for box in boxes)


def test_a_line_breaks_where_a_name_stands() -> None:
    with drawing("test"):
        axis = Figure(figsize=(9, 5)).subplots()
        axis.plot([50, 0, 100], [5.0, 0, 10], "o")
        (box,) = write_labels(axis, [Label(50, 5, "here", INK)])
        before = len(axis.lines)
        line_around(axis, [box], 5.0)
        line_around(axis, [box], 9.0)
        broken, other, whole = axis.lines[before:]
        ends = [axis.transData.transform(line.get_xydata())[:, 0] for line in (broken, other, whole)]
    assert ends[0][1] < box.x0 and ends[1][0] > box.x1
    assert (ends[2][0], ends[2][1]) == pytest.approx((axis.bbox.x0, axis.bbox.x1))
