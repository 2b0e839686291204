"""Live runs beside simulations of the same trace, cascade, fleet and policy, as each run's folder names them.

The yardstick is how far the simulations lie apart whose batches each take up to 10 ms longer, by lot, and the one
without that. A run whose
plan was pinned is simulated under the very plan that was recorded. Prompts are matched by their place in the trace,
which is their seed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from analysis.recording import load
from analysis.trial import NEEDS_A_FILE, Trial, make_trial
from shared.cascade import JITTER
from shared.errors import SettingsError
from shared.messages import Outcome
from shared.plans import Plan, View
from shared.recording import Recording
from shared.summary import summarise
from shared.tables import write_table
from traces.published import TRACES

JITTER_S: Final = 0.01
JITTER_SEEDS: Final = (1, 2, 3)
SCENARIO: Final = ("margin_s", "plan_period_s", "resident", "lease_s")  # fields that settings and scenarios share
COUNTS: Final = ("offered", "refused", "light", "heavy", "dropped", "failed")
# How far live may lie from simulated: shares and qualities in their units, counts as a share of the prompts offered.
ALLOWED: Final = {"heavy_share": 0.015, "quality": 0.15, "violation": 0.003, **dict.fromkeys(COUNTS, 0.01)}
FIGURES: Final = ("heavy_share", "violation", "quality", "quality_whole", "latency_p50_s", "latency_p99_s")

OFFERED: Final = "trace.csv"  # in a run's folder: what was offered, however the trace was cut and scaled

ROW: Final = ("run", "figure", "live", "simulated", "difference", "allowed", "apart_with_jitter")
Figures = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Side:
    """The figures of a live run, of its simulation, and of some simulations with jitter; shares of equal paths."""

    name: str
    live: Figures
    simulated: Figures
    jitter: tuple[Figures, ...]
    paths_equal: float
    jitter_paths_equal: float

    def difference(self, figure: str) -> float | None:
        """Live less simulated; counts as a share of the prompts offered."""
        return _difference(self.live, self.simulated, figure)

    def yardstick(self, figure: str) -> float | None:
        """How far the simulations lie apart at most, in the same unit."""
        apart = [_difference(one, other, figure) for one, other in combinations((self.simulated, *self.jitter), 2)]
        return max((abs(each) for each in apart if each is not None), default=None)

    def holds(self, figure: str) -> bool | None:
        """Whether the difference is allowed; None where there is no limit or nothing was measured."""
        found = self.difference(figure)
        return abs(found) <= ALLOWED[figure] if figure in ALLOWED and found is not None else None


def beside(folder: Path, trace: str | None = None) -> Side:
    """Simulate anew what a folder holds; `trace` where its file is not where the run says. Raises SettingsError."""
    live = load(folder)
    if live.settings.get("simulated"):
        raise SettingsError(f"{folder}: is a simulated run, not a live one")
    trial = trial_of(live, folder, trace)
    simulated = simulate_like(live, trial)
    if live.settings.get("backend") == "sleeping" and not same_scores(live.outcomes, simulated.outcomes):
        raise SettingsError(f"{folder}: its scores are not those recorded here: set CASCADE_DATA as it was for the run")
    jittered = [simulate_like(live, trial, jitter_s=JITTER_S, seed=seed) for seed in JITTER_SEEDS]
    return Side(
        name=folder.name,
        live=figures(live, trial),
        simulated=figures(simulated, trial),
        jitter=tuple(figures(each, trial) for each in jittered),
        paths_equal=paths_equal(live.outcomes, simulated.outcomes),
        jitter_paths_equal=min(paths_equal(simulated.outcomes, each.outcomes) for each in jittered),
    )


def trial_of(live: Recording, folder: Path, trace: str | None = None) -> Trial:
    """The trial that a live run was; raises SettingsError where its settings do not tell."""
    settings = live.settings
    try:
        offered = folder / OFFERED
        there = str(offered) if offered.is_file() else trace_of(str(settings["trace"]))
        named, gpus = trace or there, int(settings["slots"])
    except KeyError as missing:
        raise SettingsError(f"{folder / 'run.json'}: settings: no {missing.args[0]}") from None
    except (TypeError, ValueError) as wrong:
        raise SettingsError(f"{folder / 'run.json'}: settings: slots: {wrong}") from None
    trial = make_trial(named, live.cascade, gpus, live.deadline_s)
    cascade = replace(trial.cascade, gpu=settings.get("gpu") or trial.cascade.gpu)
    return replace(trial, cascade=cascade, dwell_s=settings.get("dwell_s", trial.dwell_s))


def trace_of(said: str) -> str:
    """What `make_trial` finds a run's trace by: its path, or the name of the published one whose file it was."""
    published = {Path(dataset.path).name: name for name, dataset in TRACES.items()}
    return said if Path(said).exists() else published.get(Path(said).name, Path(said).stem.removesuffix("-stand-in"))


def simulate_like(live: Recording, trial: Trial, **changes: Any) -> Recording:
    """Simulate the trial as the live run was set; raises SettingsError."""
    policy = str(live.settings.get("policy", ""))
    told = {name: live.settings[name] for name in SCENARIO if name in live.settings}
    if policy == NEEDS_A_FILE and live.plans:
        return trial.run_made(policy, Pinned(live.plans[-1]), **told, **changes)
    return trial.run(policy, **told, **changes)


@dataclass(frozen=True, slots=True)
class Pinned:
    """A policy that always gives one recorded plan; which slot runs what is left to the placement."""

    plan: Plan

    def __call__(self, view: View) -> Plan:
        return replace(self.plan, version=0, assignment={}, made=view.now)


def figures(run: Recording, trial: Trial) -> Figures:
    """The figures that are compared; a quality is None where the cascade has no curve."""
    found = summarise(run, trial.cascade)
    qualities = {"quality": found["quality"]["value"], "quality_whole": found["quality"]["whole"]}
    return {name: {**found, **qualities}[name] for name in (*COUNTS, *FIGURES)}


def paths_equal(some: Sequence[Outcome], others: Sequence[Outcome]) -> float:
    """Share of the prompts that took the same path in both runs, of those that either of them has."""
    paths, other_paths = ({each.seed: path(each) for each in run} for run in (some, others))
    known = paths.keys() | other_paths.keys()
    return sum(paths.get(seed) == other_paths.get(seed) for seed in known) / len(known) if known else 1.0


def same_scores(some: Sequence[Outcome], others: Sequence[Outcome]) -> bool:
    """Whether most prompts got the same score in both runs, but for what tells equal scores apart."""
    scores, other_scores = ({each.seed: each.score for each in run if each.score is not None} for run in (some, others))
    both = scores.keys() & other_scores.keys()
    return 2 * sum(abs(scores[seed] - other_scores[seed]) < 2 * JITTER for seed in both) >= len(both)


def path(outcome: Outcome) -> tuple[str, ...]:
    """The stages that drew the prompt, in order, and how it ended."""
    return (*(visit.stage for visit in outcome.visits), outcome.end)


def side_by_side(
    folders: Sequence[Path], trace: str | None, console: Console, as_json: bool, out: Path | None = None
) -> int:
    """Print a table, or JSON, for each folder, and write `out`/live.csv; the exit code. Raises SettingsError."""
    sides = [beside(folder, trace) for folder in folders]
    if out is not None:
        rows = [row for side in sides for row in as_rows(side)]
        try:
            out.mkdir(parents=True, exist_ok=True)
            write_table(out / "live.csv", ROW, rows)
        except OSError as wrong:
            raise SettingsError(f"{wrong.filename or out}: {wrong.strerror}") from None
    if as_json:
        sys.stdout.write(json.dumps([as_dict(side) for side in sides], indent=2) + "\n")
        return 0
    for side in sides:
        console.print(table(side))
    return 0


def as_rows(side: Side) -> list[list[object]]:
    """A row a figure, in the order of ROW; the paths last."""
    rows: list[list[object]] = [
        [
            side.name,
            name,
            *(_rounded(each) for each in (side.live[name], side.simulated[name], side.difference(name))),
            ALLOWED.get(name, ""),
            _rounded(side.yardstick(name)),
        ]
        for name in (*COUNTS, *FIGURES)
    ]
    return [
        *rows,
        [side.name, "paths_equal", "", "", round(side.paths_equal, 6), "", round(side.jitter_paths_equal, 6)],
    ]


def as_dict(side: Side) -> dict[str, Any]:
    """All there is to say of a run, for JSON."""
    every = (*COUNTS, *FIGURES)
    return {
        "run": side.name,
        "live": side.live,
        "simulated": side.simulated,
        "difference": {name: side.difference(name) for name in every},
        "jitter_difference": {name: side.yardstick(name) for name in every},
        "holds": {name: side.holds(name) for name in ALLOWED},
        "paths_equal": side.paths_equal,
        "jitter_paths_equal": side.jitter_paths_equal,
    }


def table(side: Side) -> Table:
    """A row a figure: live, simulated, their difference, what is allowed, and the yardstick."""
    made = Table(title=f"{side.name}: live beside simulated", caption="difference of counts: of the prompts offered")
    made.add_column("figure")
    for head in ("live", "simulated", "difference", "allowed", "apart with 10 ms of jitter"):
        made.add_column(head, justify="right")
    for name in (*COUNTS, *FIGURES):
        allowed = f"{ALLOWED[name]:g}" if name in ALLOWED else ""
        style = "red" if side.holds(name) is False else ""
        shown = (_shown(side.live[name]), _shown(side.simulated[name]), _shown(side.difference(name)))
        made.add_row(name.replace("_", " "), *shown, allowed, _shown(side.yardstick(name)), style=style)
    made.add_row("paths equal", "", "", f"{side.paths_equal:.1%}", "", f"{side.jitter_paths_equal:.1%}")
    return made


def _difference(one: Mapping[str, float | None], other: Mapping[str, float | None], figure: str) -> float | None:
    left, right = one[figure], other[figure]
    if left is None or right is None:
        return None
    return (left - right) / ((one["offered"] or 1.0) if figure in COUNTS else 1.0)


def _rounded(value: float | None) -> object:
    return "" if value is None else round(value, 6)


def _shown(value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
