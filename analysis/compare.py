"""All policies in the simulator on one trace and fleet, beside the clairvoyant bound; or live runs beside simulated.

    python -m analysis.compare --trace FILE --cascade sdturbo --gpus 16 [--policies quality,diffserve] [--json]
    python -m analysis.compare --live logs/RUN [logs/RUN ...]

The first prints one table and writes comparison.csv and the figures into --out. FILE may be the name of a published
trace, such as 4to32. The second simulates anew what each folder holds, and prints both; see `analysis.side_by_side`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from analysis.bound import MARGIN, Bound, bound
from analysis.comparison_figures import write_figures
from analysis.looks import OURS
from analysis.published import published
from analysis.side_by_side import side_by_side
from analysis.trial import Trial, all_policies, check_policies, make_trial
from shared.catalog import Cascade
from shared.errors import SettingsError
from shared.process import guarded
from shared.recording import Recording
from shared.summary import percent, quality_figure, summarise
from shared.tables import write_table

WIDTH: Final = 180  # columns, where the output is no terminal
BOUNDS: Final = {f"bound, {MARGIN - 1:.0%} spare": MARGIN, "bound, none spare": 1.0}
HEADS: Final = (
    *("violation", "late", "dropped", "refused"),
    *("whole run", "kept by lot", "random control", "heavy", "p50", "p99", "switches", "GPU s"),
)
CAPTION: Final = (
    "Whole run: at its heavy share, as published systems give it. Kept by lot: pictures kept light for want of time "
    "count on the lot's curve. Random control: the same heavy shares drawn by lot. GPU s: per answered prompt. "
    "Published: measured by the systems' own stacks, not by this code."
)
COUNTS: Final = ("offered", "refused", "light", "heavy", "late", "dropped", "failed", "kept_light", "no_time")
FIGURES: Final = ("heavy_share", "latency_p50_s", "latency_p99_s", "switches", "gpu_s_per_prompt", "solve_ms_p50")
QUALITIES: Final = ("metric", "value", "whole", "kept_by_lot", "control", "control_assumed", "selector", "assumed")
COLUMNS: Final = ("policy", "violation", *QUALITIES, *COUNTS, *FIGURES)


def compare(trial: Trial, policies: Sequence[str]) -> dict[str, Recording]:
    """The trace simulated under each policy, by name; raises SettingsError."""
    return {name: trial.run(name) for name in policies}


def bounds(trial: Trial) -> dict[str, Bound]:
    """The clairvoyant bounds of a trial by name; the first is the one that figures show."""
    return {
        name: bound(trial.arrivals, trial.cascade, trial.gpus, trial.deadline_s, margin)
        for name, margin in BOUNDS.items()
    }


def summaries(runs: Mapping[str, Recording], cascade: Cascade) -> dict[str, dict[str, Any]]:
    """The summary of each run, by policy."""
    return {name: summarise(run, cascade) for name, run in runs.items()}


def table(trial: Trial, found: Mapping[str, dict[str, Any]], limits: Mapping[str, Bound]) -> Table:
    """A row a policy, and one for each bound."""
    metric = trial.cascade.metric
    title = f"{trial.cascade.name} · {trial.label} · {trial.gpus} GPUs · {trial.deadline_s:g} s · simulated"
    made = Table(title=title, caption=CAPTION)
    made.add_column("policy", no_wrap=True)
    for head in (*HEADS[:4], metric, *HEADS[4:]):
        made.add_column(head, justify="right")
    for name, summary in found.items():
        made.add_row(name, *_cells(summary), style="bold" if name == OURS else "")
    made.add_section()
    for system in published(trial.cascade.name, trial.label, trial.gpus):
        missed, whole = _range(system.violation, percent), _range(system.whole, "{:.2f}".format)
        made.add_row(f"{system.system}, published", missed, "", "", "", "", whole, style="dim")
    for name, limit in limits.items():
        best = quality_figure({"metric": metric, "value": limit.best_quality}, "value")
        made.add_row(name, percent(limit.violation), "", "", "", best, style="dim")
    return made


def _cells(found: dict[str, Any]) -> list[str]:
    qualities = [quality_figure(found["quality"], name) for name in ("value", "whole", "kept_by_lot")]
    return [
        percent(found["violation"]),
        *(f"{found[name]:,}" for name in ("late", "dropped", "refused")),
        *qualities,
        f"{quality_figure(found['quality'], 'control')}{' assumed' if found['quality']['control_assumed'] else ''}",
        percent(found["heavy_share"]),
        *(f"{found[name]:.2f} s" for name in ("latency_p50_s", "latency_p99_s")),
        f"{found['switches']:,}",
        f"{found['gpu_s_per_prompt']:.2f}",
    ]


def _range(ends: tuple[float, float], shown: Callable[[float], str]) -> str:
    return shown(ends[0]) if ends[0] == ends[1] else f"{shown(ends[0])} to {shown(ends[1])}"


def write_comparison(found: Mapping[str, dict[str, Any]], limits: Mapping[str, Bound], path: Path) -> None:
    """All figures as a table; raises OSError that names the file."""
    write_table(path, COLUMNS, comparison_rows(found, limits))


def comparison_rows(found: Mapping[str, dict[str, Any]], limits: Mapping[str, Bound]) -> list[list[Any]]:
    """A row a policy and a row a bound, in the order of COLUMNS."""
    rows = [_row(name, summary) for name, summary in found.items()]
    for name, limit in limits.items():
        known = {"policy": name, "violation": limit.violation, "value": limit.best_quality}
        rows.append([known.get(column, "") for column in COLUMNS])
    return [[round(each, 6) if isinstance(each, float) else each for each in row] for row in rows]


def _row(name: str, found: dict[str, Any]) -> list[Any]:
    values = {**found, **{key: found["quality"][key] for key in QUALITIES}, "policy": name}
    return [values[column] for column in COLUMNS]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code. Raises SettingsError before anything is written."""
    given = _parser().parse_args(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    if given.live:
        return side_by_side(given.live, given.trace, console, given.json, given.out)
    for name in ("trace", "cascade", "gpus"):
        if getattr(given, name) is None:
            raise SettingsError(f"{name}: --{name} is needed, or --live")
    policies = check_policies(given.policies.split(",") if given.policies else all_policies(given.pinned), given.pinned)
    trial = make_trial(given.trace, given.cascade, given.gpus, given.deadline_s, given.seed, given.solver, given.pinned)
    runs = compare(trial, policies)
    found, limits = summaries(runs, trial.cascade), bounds(trial)
    folder = given.out or Path("logs") / f"compare-{trial.cascade.name}-{trial.label}"
    try:
        write_figures(runs, trial.cascade, folder, next(iter(limits.values())))
        write_comparison(found, limits, folder / "comparison.csv")
    except OSError as wrong:
        raise SettingsError(f"{wrong.filename or folder}: {wrong.strerror}") from None
    if given.json:
        whole = {"trace": trial.label, "gpus": trial.gpus, "deadline_s": trial.deadline_s, "policies": found}
        bounded = {name: asdict(limit) for name, limit in limits.items()}
        sys.stdout.write(json.dumps({**whole, "bounds": bounded}, indent=2) + "\n")
        return 0
    console.print(table(trial, found, limits))
    console.print(f"{folder}", soft_wrap=True, highlight=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--trace", help="a trace's file, or the name of a published one, such as 4to32")
    made.add_argument("--cascade", help="a row of [cascades] in models/catalog.toml")
    made.add_argument("--gpus", type=int, help="GPUs of the cascade's own type")
    made.add_argument("--policies", help="names with commas; default: all")
    made.add_argument("--pinned", type=Path, help="file of the policy `pinned`")
    made.add_argument("--deadline-s", type=float, help="default: the cascade's")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--solver", default="exhaustive", help="auto, gurobi, highs or exhaustive")
    made.add_argument("--out", type=Path, help="folder; default: logs/compare-<cascade>-<trace>, none with --live")
    made.add_argument("--live", type=Path, nargs="+", metavar="DIR", help="folders of live runs")
    made.add_argument("--json", action="store_true", help="print JSON, not a table")
    return made


if __name__ == "__main__":
    guarded(main)
