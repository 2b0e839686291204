"""`make bench BENCH=planner`: from view to plan, and how a solve grows with GPUs, GPU types and cascades.

A view to plan is a whole call of the policy `quality`; the rest are solves with HiGHS, from light load to overload,
with the plan of the load before in force. No answer comes from memory: every view and every demand differs. GPU
types other than the published one are made up: that one at other paces. Cascades are the published ones in turn.
Milliseconds of processor time, for solvers do nothing but compute and the machine may be shared.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from matplotlib.figure import Figure as Drawing

from analysis.figures import FAINT, HEAVY, KEPT, LIGHT, WIDE_IN, as_svg, drawing
from planner.milp import Case, case_of, loss_points
from planner.policies import make_policy
from planner.sharing import Sharing, share
from planner.solvers import make_solver
from shared.catalog import Cascade, load_cascade
from shared.files import write_text
from shared.plans import Plan, Slot, View

VIEWS: Final = 200
SCORES: Final = 1_000
# GPU type -> seconds over the published ones, light and heavy: each is best at something.
PACES: Final = {"type-a": (1.0, 1.0), "type-b": (0.6, 0.5), "type-c": (1.3, 1.9), "type-d": (2.2, 3.4)}
CASCADES: Final = ("sdturbo", "sdxs", "sdxlltn", "sdturbo")
# Prompts/s of each GPU: the best quality is easy, just within reach, out of reach, and light alone is hard.
LOADS: Final = (0.05, 0.2, 0.5, 0.9, 1.2, 1.5, 2.0, 2.5, 4.0, 8.0)
HEAVY_CASCADE: Final = 0.2  # of that load for the cascade whose pictures are four times as large


class Grown(NamedTuple):
    """Solves of one size: along which line it grows, how far, and milliseconds in the median and at worst."""

    line: str
    size: int
    middle_ms: float
    worst_ms: float


class Line(NamedTuple):
    """A line of growth: its name, its counts, the size at each (GPUs, types, cascades), and how it is drawn."""

    name: str
    counts: tuple[int, ...]
    size: Callable[[int], tuple[int, int, int]]
    colour: str
    words: str = ""


LINES: Final = (
    Line("GPUs of 1 type", (16, 64, 256, 1024), lambda count: (count, 1, 1), LIGHT, "1 type"),
    Line("GPUs of 4 types", (16, 64, 256, 1024), lambda count: (count, 4, 1), HEAVY, "4 types"),
    Line("types of 1,024 GPUs", (1, 2, 3, 4), lambda count: (1024, count, 1), HEAVY),
    Line("cascades on 256 GPUs of 2 types", (1, 2, 3, 4), lambda count: (256, 2, count), KEPT, "2 types"),
    Line("cascades on 256 GPUs of 1 type", (1, 2, 4, 6, 8), lambda count: (256, 1, count), LIGHT, "1 type"),
)
AIMS: Final = {
    ("GPUs of 4 types", 1024): "<= 150",
    ("cascades on 256 GPUs of 1 type", 8): "<= 500",
}
SOLVERS: Final = ("highs", "gurobi", "exhaustive")


def view_to_plan(solver: str, gpus: int = 16) -> tuple[float, float]:
    """Milliseconds from view to plan, median and 99th percentile, over views that all differ."""
    cascade = load_cascade("sdturbo")
    policy = make_policy("quality", cascade, cascade.deadline_s, solver)
    slots = tuple(Slot("node", number, cascade.gpu) for number in range(gpus))
    draw = random.Random(1)
    plan: Plan | None = None
    taken: list[float] = []
    for second in range(VIEWS + 10):
        rate = draw.uniform(0.1, 3) * gpus
        offered = tuple(max(0, round(draw.gauss(rate, rate**0.5))) for _ in range(60))
        scores = tuple(draw.random() for _ in range(SCORES))
        view = View(float(second), offered, slots, scores, plan=plan)
        began = time.process_time()
        plan = policy(view)
        taken.append((time.process_time() - began) * 1e3)
    taken = sorted(taken[10:])  # the first calls load the solver
    return median(taken), taken[int(0.99 * len(taken))]


def growth() -> Iterator[Grown]:
    """Solve programs of every size, each at every load."""
    for line in LINES:
        for count in line.counts:
            taken = sorted(solves(*line.size(count)))
            yield Grown(line.name, count, median(taken), taken[-1])


def solves(gpus: int, types: int, cascades: int) -> Iterator[float]:
    """Milliseconds of a solve at each load."""
    solver = make_solver("highs")
    known = [_slower(name, place, types) for place, name in enumerate(CASCADES * 2)][:cascades]
    slots = tuple(Slot("node", number, list(PACES)[number % types]) for number in range(gpus))
    plans: Sequence[Plan | None] = [None] * cascades
    for load in LOADS:
        cases = [
            case_of(cascade, slots, rate, cascade.deadline_s, loss_points(cascade.curve()), plan)
            for cascade, plan in zip(known, plans, strict=True)
            for rate in [load * gpus / cascades * (HEAVY_CASCADE if cascade.name == "sdxlltn" else 1.0)]
        ]
        began = time.process_time()
        found = share(cases, solver)
        yield (time.process_time() - began) * 1e3
        plans = [_in_force(found, place, case) for place, case in enumerate(cases)]


def _slower(name: str, place: int, types: int) -> Cascade:
    """The cascade on the made-up GPU types, a little slower at each place, so that no two are alike."""
    cascade = load_cascade(name)
    paces = dict(zip(cascade.profiles, zip(*list(PACES.values())[:types], strict=True), strict=True))
    profiles = {
        stage: {
            gpu: replace(cascade.profile(stage).scaled(pace * (1 + place / 20)), gpu=gpu)
            for gpu, pace in zip(PACES, paces[stage], strict=False)
        }
        for stage in cascade.profiles
    }
    return replace(cascade, profiles=profiles, gpu=next(iter(PACES)))


def _in_force(found: Sharing, place: int, case: Case) -> Plan | None:
    solution = found.solutions[place]
    if solution is None:
        return None
    light_on, heavy_on = case.by_type(solution.light_on), case.by_type(solution.heavy_on)
    counts = (solution.light_workers, solution.heavy_workers)
    return Plan("quality", 0.1, *counts, 1, 1, 0.1, 1.0, light_on=light_on, heavy_on=heavy_on)


def draw_growth(grown: Sequence[Grown], path: Path) -> None:
    """Milliseconds over GPUs, types and cascades: the median as a line, up to the worst in a lighter shade."""
    with drawing("planner-growth"):
        figure = Drawing(figsize=(WIDE_IN, 3.2))
        axes = figure.subplots(1, 3, sharey=True, width_ratios=(4, 3, 4))
        panels = (("GPUs", 0, 1), ("GPU types, on 1,024 GPUs", 2, 2), ("cascades, on 256 GPUs", 3, 4))
        for axis, (label, first, last) in zip(axes, panels, strict=True):
            axis.set_xlabel(label)
            axis.set_xscale("log" if label == "GPUs" else "linear")
            for line in LINES[first : last + 1]:
                _draw_line(axis, line, [each for each in grown if each.line == line.name])
            axis.grid(axis="y", color=FAINT, alpha=0.25, linewidth=0.6)
            axis.set_yscale("log")
            axis.set_yticks([3, 10, 30, 100, 300, 1000], ["3", "10", "30", "100", "300", "1,000"])
            axis.minorticks_off()
            axis.set_ylim(3, 1500)
        axes[0].set_ylabel("milliseconds a solve, HiGHS")
        figure.subplots_adjust(left=0.08, right=0.98, top=0.95, bottom=0.16, wspace=0.08)
        write_text(path, as_svg(figure))


def _draw_line(axis: Any, line: Line, grown: Sequence[Grown]) -> None:
    sizes = [each.size for each in grown]
    middle, worst = [each.middle_ms for each in grown], [each.worst_ms for each in grown]
    axis.plot(sizes, middle, color=line.colour, marker="o", markersize=3.5, linewidth=1.6)
    axis.fill_between(sizes, middle, worst, color=line.colour, alpha=0.2, linewidth=0)
    if line.words:
        place = {"ha": "center", "color": line.colour, "textcoords": "offset points"}
        axis.annotate(line.words, (sizes[-2], worst[-2]), (0, 5), **place)
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
