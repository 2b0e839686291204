"""`make experiments`: every policy on the published traces, simulated; with LIVE=1, one live run a cascade.

    logs/<cascade>-<trace>-<policy>/         tables, summary and report of each simulated run
    logs/<cascade>-<trace>/                  comparison.csv and the figures over its policies, with the bound
    logs/experiments.csv                     all of those in one table
    logs/<cascade>-<trace>-quality-live/     a live run, which is then printed beside its simulation
    logs/example-<cascade>/                  with --examples: a small run a cascade, on a trace of traces/examples

Where a published trace is not at hand, a made one stands in and the folder's name says so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from analysis import compare
from analysis.comparison_figures import write_figures
from analysis.recording import save
from analysis.report import write_summary
from analysis.side_by_side import side_by_side
from analysis.trial import Trial, all_policies, check_policies, make_trial
from deploy.replay import Offer, offer, run_live, settings_for
from deploy.results import cleared, end_on_sigterm, keep
from shared.config import Settings
from shared.errors import SettingsError
from shared.process import guarded
from shared.tables import write_table

OURS: Final = "quality"
EXAMPLES: Final = Path(__file__).resolve().parent.parent / "traces" / "examples"


@dataclass(frozen=True, slots=True)
class Experiment:
    """A cascade on so many GPUs of its own type, under a trace; `live`: the cascade's live run."""

    cascade: str
    trace: str
    gpus: int
    live: bool = False


PUBLISHED: Final = (
    Experiment("sdturbo", "4to32qps", 16, live=True),
    Experiment("sdturbo", "2_5to20qps", 10),
    Experiment("sdturbo", "1to8qps", 4),
    Experiment("sdturbo", "fixed_30qps", 16),
    Experiment("sdxs", "4to32qps", 16, live=True),
    Experiment("sdxlltn", "1to8qps", 16, live=True),
    Experiment("sdxlltn", "4to32qps", 16),
)
# Small enough to be committed; of as much load as these few GPUs bear.
SMALL: Final = (
    Experiment("sdturbo", str(EXAMPLES / "bursty-1to8.csv"), 4),
    Experiment("sdxs", str(EXAMPLES / "steps-1to6.csv"), 4),
    Experiment("sdxlltn", str(EXAMPLES / "azure-1to4.csv"), 16),
)


def trial_of(experiment: Experiment, offered: Offer, given: argparse.Namespace) -> Trial:
    """What is simulated of an experiment; raises SettingsError."""
    made = make_trial(
        experiment.trace, experiment.cascade, experiment.gpus, seed=given.seed, solver=given.solver, pinned=given.pinned
    )
    return replace(made, label=offered.label, arrivals=tuple(offered.arrivals))


def simulated(trial: Trial, policies: Sequence[str], logs: Path, console: Console) -> list[list[Any]]:
    """Every policy on one trace: a folder a run, and one for table and figures; its rows. Raises SettingsError."""
    name = f"{trial.cascade.name}-{trial.label}"
    runs, found = {}, {}
    for policy in policies:
        runs[policy] = trial.run(policy)
        found[policy] = keep(runs[policy], trial.cascade, cleared(logs / f"{name}-{policy}"))
    limits = compare.bounds(trial)
    try:
        write_figures(runs, trial.cascade, logs / name, next(iter(limits.values())))
        compare.write_comparison(found, limits, logs / name / "comparison.csv")
    except OSError as wrong:
        raise SettingsError(f"{wrong.filename or logs}: {wrong.strerror}") from None
    console.print(compare.table(trial, found, limits))
    return [[trial.cascade.name, trial.label, trial.gpus, *row] for row in compare.comparison_rows(found, limits)]


def live(chosen: Sequence[tuple[Experiment, Offer]], given: argparse.Namespace, console: Console) -> int:
    """One live run a cascade, then each beside its simulation; returns the exit code."""
    codes, folders = [], []
    for experiment, offered in chosen:
        wanted = Settings(cascade=experiment.cascade, policy=OURS, backend="sleeping")
        settings = settings_for(wanted, experiment.gpus, offered)
        folders.append(given.out / f"{experiment.cascade}-{offered.label}-{OURS}-live")
        codes.append(run_live(settings, offered, folders[-1], None, console))
    return max([*codes, side_by_side(folders, None, console, False)])


def examples(given: argparse.Namespace, console: Console) -> None:
    """A small run a cascade: summary and tables, which are committed. Raises SettingsError."""
    for experiment in SMALL:
        trial = trial_of(experiment, offer(experiment.trace, seconds=given.seconds), given)
        folder = cleared(given.out / f"example-{experiment.cascade}")
        recording = trial.run(OURS)
        try:
            save(recording, folder)
            write_summary(recording, trial.cascade, folder)
        except OSError as wrong:
            raise SettingsError(f"{wrong.filename or folder}: {wrong.strerror}") from None
        console.print(f"{folder}", highlight=False)


def chosen_of(given: argparse.Namespace) -> Iterator[tuple[Experiment, Offer]]:
    """The experiments that were asked for, each with what is offered; raises SettingsError."""
    for option, known in (("cascade", {one.cascade for one in PUBLISHED}), ("trace", {one.trace for one in PUBLISHED})):
        if getattr(given, option) not in {None, *known}:
            raise SettingsError(f"{option}: no experiment on {getattr(given, option)!r}; {', '.join(sorted(known))}")
    for experiment in PUBLISHED:
        wanted = given.cascade in (None, experiment.cascade) and given.trace in (None, experiment.trace)
        if wanted and (experiment.live or not given.live):
            yield experiment, offer(experiment.trace, seconds=given.seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them; 0 when all ran and, live, every prompt ended once."""
    given = _parser().parse_args(arguments)
    end_on_sigterm()
    console = Console() if sys.stdout.isatty() else Console(width=compare.WIDTH)
    policies = check_policies(given.policies.split(",") if given.policies else all_policies(given.pinned), given.pinned)
    if given.examples:
        examples(given, console)
        return 0
    chosen = list(chosen_of(given))
    if not chosen:
        raise SettingsError(f"cascade, trace: no experiment on {given.cascade} and {given.trace}")
    if given.live:
        return live(chosen, given, console)
    rows: list[list[Any]] = []
    for experiment, offered in chosen:
        rows += simulated(trial_of(experiment, offered, given), policies, given.out, console)
    try:
        write_table(given.out / "experiments.csv", ["cascade", "trace", "gpus", *compare.COLUMNS], rows)
    except OSError as wrong:
        raise SettingsError(f"{wrong.filename or given.out}: {wrong.strerror}") from None
    return 0


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--live", action="store_true", help="one live run a cascade, with workers that sleep")
    made.add_argument("--examples", action="store_true", help="the small runs that are committed, nothing else")
    made.add_argument("--cascade", help="only this cascade")
    made.add_argument("--trace", help="only this published trace, such as 4to32qps")
    made.add_argument("--policies", help="names with commas; default: all that need no file")
    made.add_argument("--pinned", type=Path, help="file of the policy `pinned`")
    made.add_argument("--solver", default="exhaustive", help="of simulated runs: auto, gurobi, highs or exhaustive")
    made.add_argument("--seconds", type=float, help="only so much of each trace")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", type=Path, default=Path("logs"), help="default: logs")
    return made


if __name__ == "__main__":
    guarded(main)
