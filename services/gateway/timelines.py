"""The time lines of the dashboard: six plots in one chart, so that they share their axis, the pointer and plan marks.

Lines are thinned to POINTS, so that an open page costs little whatever time it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from services.gateway.charts import (
    ALARM,
    COLOUR,
    FAINT,
    FIGURES,
    FOOT_PX,
    INK,
    LEFT_PX,
    MUTED,
    RIGHT_PX,
    SMALL_PX,
    Options,
    base,
    figures_axis,
    ground_axis,
    mark_line,
    merged,
    tooltip,
)
from services.gateway.snapshot import Moment, Snapshot
from shared.lookout import Mark
from shared.plans import restaffed
from shared.schema import STAGES, Stage

POINTS: Final = 200
LEAST_S: Final = 60.0  # shown, however little is known
MARKS: Final = 60  # of plans; in an hour of changing load there may be hundreds
ROW_PX, HEAD_PX = 92, 56
Kind = Literal["line", "plan", "area", "stack"]
SIGNS: Final[Mapping[Kind, str]] = {"line": "━", "plan": "╍", "area": "▒", "stack": "▆"}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a row. `steps`: it holds its value until the next, as a plan does; `key`: its name in the key."""

    name: str
    colour: str
    value: Callable[[Moment], float | None]
    kind: Kind = "line"
    steps: bool = False
    key: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One plot of the time lines; `whole`: its figures are counts."""

    title: str
    lines: tuple[Line, ...]
    whole: bool = False
    top: float | None = None


def _of(stage: Stage, name: str) -> Callable[[Moment], float | None]:
    def value(moment: Moment) -> float | None:
        found: float | None = getattr(moment.stage(stage), name)
        return found

    return value


def _per_stage(name: str, label: str, kind: Kind = "line", steps: bool = False) -> tuple[Line, ...]:
    return tuple(Line(f"{stage} {label}", COLOUR[stage], _of(stage, name), kind, steps, label) for stage in STAGES)


MEDIAN: Final = "median"
ROWS: Final[tuple[Row, ...]] = (
    Row(
        "Prompts per second",
        (
            Line("light", COLOUR["light"], lambda m: m.ends_per_s["light"], "stack"),
            Line("heavy", COLOUR["heavy"], lambda m: m.ends_per_s["heavy"], "stack"),
            Line("no picture", ALARM, lambda m: m.ends_per_s["dropped"] + m.ends_per_s["failed"], "stack"),
            Line("refused", FAINT, lambda m: m.refused_per_s, "stack"),
            Line("offered", INK, lambda m: m.offered_per_s),
            Line("planned for", INK, lambda m: m.planned_for_per_s, "plan", steps=True),
        ),
    ),
    Row(
        "Seconds to the answer",
        (
            Line("99th percentile", ALARM, lambda m: m.p99_s),
            Line(MEDIAN, INK, lambda m: m.p50_s),
        ),
    ),
    Row(
        "Prompts on their way",
        (*_per_stage("running", "in flight", "area"), *_per_stage("waiting", "waiting")),
        whole=True,
    ),
    Row(
        "Workers",
        (
            *_per_stage("loading", "loading", "area"),
            *_per_stage("ready", "ready"),
            *_per_stage("wanted", "wanted", "plan", steps=True),
        ),
        whole=True,
    ),
    Row(
        "Shares",
        (
            Line("threshold", INK, lambda m: m.threshold, steps=True),
            Line("escalated", COLOUR["heavy"], lambda m: m.escalation),
            Line("escalation planned", COLOUR["heavy"], lambda m: m.escalation_planned, "plan", steps=True),
        ),
        top=1.0,
    ),
    Row(
        "Prompts per batch",
        (*_per_stage("batch_achieved", "achieved"), *_per_stage("batch_planned", "planned", "plan", steps=True)),
    ),
)
LINES: Final[tuple[tuple[int, Line], ...]] = tuple(
    (place, each) for place, row in enumerate(ROWS) for each in row.lines
)
FIRST: Final = frozenset(  # the lines that carry the marks of their row
    next(index for index, (place, _) in enumerate(LINES) if place == row) for row in range(len(ROWS))
)
PLAIN: Final[Options] = {"lineStyle": {"color": MUTED, "opacity": 0.4}}
HEIGHT_PX: Final = len(ROWS) * (HEAD_PX + ROW_PX) + FOOT_PX


def timelines(snapshot: Snapshot, deadline_s: float) -> Options:
    """All time lines in one chart. Times are milliseconds."""
    made: Options = merged(frame(deadline_s), news(snapshot))
    return made


def frame(deadline_s: float) -> Options:
    """What stays the same from look to look."""
    places = range(len(ROWS))
    return {
        **base(),
        "title": [_title(place, row) for place, row in enumerate(ROWS)],
        "grid": [{"left": LEFT_PX, "right": RIGHT_PX, "top": _top(place), "height": ROW_PX} for place in places],
        "axisPointer": {"link": [{"xAxisIndex": "all"}], "lineStyle": {"color": MUTED, "type": "solid"}},
        "tooltip": tooltip(**{"trigger": "axis", ":valueFormatter": FIGURES}),
        "xAxis": [ground_axis("time", labels=place == places[-1], gridIndex=place, splitNumber=5) for place in places],
        "yAxis": [figures_axis(whole=row.whole, top=row.top) | {"gridIndex": place} for place, row in enumerate(ROWS)],
        "dataset": {"source": []},
        "series": list(_lines(deadline_s)),
    }


def news(snapshot: Snapshot) -> Options:
    """What one look changes, for the frame's places."""
    until = snapshot.time_s * 1000
    # What nobody saw takes no room: a gateway that has just started shows what it knows.
    seen_s = max(LEAST_S, snapshot.time_s - snapshot.moments[0].time_s) if snapshot.moments else LEAST_S
    limits = {"min": round(until - min(seen_s, snapshot.window_s) * 1000), "max": round(until)}
    marked = {"markLine": {"data": _marks(snapshot)}}
    return {
        "xAxis": [limits] * len(ROWS),
        "dataset": {"source": list(_table(snapshot))},
        "series": [marked if index in FIRST else {} for index, _ in enumerate(LINES)],
    }


def _top(place: int) -> int:
    return place * (HEAD_PX + ROW_PX) + HEAD_PX


def _title(place: int, row: Row) -> Options:
    """The row's name and what its lines are: no legend to look up. Lines of both stages are named once, in grey."""
    named = {each.key or each.name: (SIGNS[each.kind], MUTED if each.key else each.colour) for each in row.lines}
    key = "   ".join(f"{{s{number}|{sign}}} {name}" for number, (name, (sign, _)) in enumerate(named.items()))
    line = {"fontSize": SMALL_PX, "lineHeight": 16}
    rich = {f"s{number}": {**line, "color": colour} for number, (_, colour) in enumerate(named.values())}
    return {
        "text": row.title,
        "subtext": key,
        "left": 0,
        "top": _top(place) - HEAD_PX + 12,
        "padding": 0,
        "itemGap": 2,
        "textStyle": {"color": INK, "fontSize": 13, "fontWeight": 600, "lineHeight": 18},
        "subtextStyle": {**line, "color": MUTED, "rich": rich},
    }


def _lines(deadline_s: float) -> Iterator[Options]:
    faint = {"color": FAINT, "type": "solid", "width": 1, "opacity": 0.25}
    deadline = {"yAxis": deadline_s, "lineStyle": {"color": MUTED, "type": "dotted", "width": 1.5}}
    limit = {"show": True, "formatter": "deadline", "position": "insideStartTop", "color": MUTED, "fontSize": SMALL_PX}
    for index, (place, each) in enumerate(LINES):
        line = _line(index, place, each)
        if index in FIRST:
            line["markLine"] = mark_line([], lineStyle=faint)
        elif each.name == MEDIAN:
            line["markLine"] = mark_line([deadline], label=limit)
        yield line


def _line(index: int, place: int, each: Line) -> Options:
    stacked = each.kind == "stack"
    filled = each.kind in ("stack", "area")
    return {
        "type": "line",
        "name": each.name,
        "xAxisIndex": place,
        "yAxisIndex": place,
        "encode": {"x": 0, "y": index + 1},
        "color": each.colour,
        "showSymbol": False,
        "silent": True,
        "step": "end" if each.steps else False,
        "stack": f"ends {place}" if stacked else None,
        "lineStyle": {"width": 0 if filled else 1.5, "type": [5, 3] if each.kind == "plan" else "solid"},
        "areaStyle": {"opacity": 0.55 if stacked else 0.18} if filled else None,
        "emphasis": {"disabled": True},
        "z": 2 if filled else 3,
    }


def _table(snapshot: Snapshot) -> Iterator[list[float | None]]:
    """Rows (milliseconds, one figure per line): means over equal parts of the window, aligned to the clock.

    Aligned to the clock and not to the newest look, the line of the past stands still while time goes on.
    """
    width_s = max(1.0, snapshot.window_s / POINTS)
    parts: dict[int, list[Moment]] = {}
    for moment in snapshot.moments:
        parts.setdefault(int(moment.time_s // width_s), []).append(moment)
    for moments in parts.values():
        yield [
            round(moments[-1].time_s * 1000),
            *(_mean([each.value(moment) for moment in moments]) for _, each in LINES),
        ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(f"{sum(known) / len(known):.4g}") if known else None


def _marks(snapshot: Snapshot) -> list[Options]:
    """A vertical line per plan: plain where workers or batches changed, faint where only the threshold moved.

    Where plans stand closer than lines can be told apart, the changes of workers or batches go before the others.
    """
    marks = snapshot.marks
    kept: dict[int, tuple[Mark, bool]] = {}
    for mark, strong in zip(marks, restaffed([mark.plan for mark in marks]), strict=True):
        place = int(mark.time_s // (snapshot.window_s / MARKS))
        if mark.time_s >= snapshot.time_s - snapshot.window_s and (strong or place not in kept):
            kept[place] = mark, strong
    return [{"xAxis": round(mark.time_s * 1000), **(PLAIN if strong else {})} for mark, strong in kept.values()]
