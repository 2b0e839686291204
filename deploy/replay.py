"""`make replay`: a trace in real time through the real services, Redis and supervisor, with workers that sleep.

    python -m deploy.replay --trace 4to32 --cascade sdturbo --gpus 16 --policy quality

TRACE is a file, or the name of a published trace. The run's folder, logs/<cascade>-<trace>-<policy>-live/, holds
what was offered (trace.csv), the settings and totals (run.json), the tables, summary.json and report.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from deploy.progress import watched
from deploy.results import cleared, end_on_sigterm, exit_code, keep, show
from deploy.runner import Run
from planner.policies import make_policy
from planner.simulator import peak_rate
from shared.catalog import load_cascade
from shared.config import Settings, load, parser
from shared.errors import SettingsError
from shared.process import guarded
from traces.published import find, locate
from traces.read import Arrival, TraceError, cut, read_prompts, read_trace, scale
from traces.write import arrivals_as_csv, write

NAMES = (
    "cascade",
    "policy",
    "solver",
    "backend",
    "deadline_s",
    "pinned",
    "peak_per_s",
    "gpu",
    "dwell_s",
    "plan_period_s",
)


@dataclass(frozen=True, slots=True)
class Offer:
    """What is offered: the arrivals, and a label that says of which trace and how it was changed."""

    arrivals: Sequence[Arrival]
    label: str


def offer(trace: str, rate: float = 1.0, time: float = 1.0, seconds: float | None = None) -> Offer:
    """A trace by its file or published name, scaled in rate, then in time, then cut; raises SettingsError."""
    try:
        located = locate(trace)
        arrivals = scale(read_trace(located.path), rate=rate, time=time)
        if seconds is not None:
            arrivals = cut(arrivals, seconds)
    except TraceError as wrong:
        raise SettingsError(str(wrong)) from None
    except OSError as wrong:
        raise SettingsError(f"{wrong.filename or trace}: {wrong.strerror}") from None
    changes = [
        *([f"{rate:g}x"] if rate != 1 else []),
        *([f"stretched-{time:g}x"] if time != 1 else []),
        *([f"{seconds:g}s"] if seconds is not None else []),
    ]
    return Offer(arrivals, "-".join([located.label, *changes]))


def prompts_of(given: Path | None, cascade: str) -> Path | None:
    """The file of prompts: the one given, the published one or its stand-in; None for the tiny cascade's scenes.

    Raises SettingsError where it cannot be read.
    """
    if given is None and cascade == "tiny":
        return None
    try:
        path = given or find("prompts").path
        read_prompts(path)
    except TraceError as wrong:
        raise SettingsError(str(wrong)) from None
    return path


def settings_for(settings: Settings, gpus: int, offered: Offer) -> Settings:
    """The settings of a live run; raises SettingsError where no plan could be made, before anything is started.

    The peak that `static` is solved for is the trace's, unless it is given.
    """
    if gpus < 1:
        raise SettingsError(f"gpus: must be at least 1, got {gpus}")
    cascade = load_cascade(settings.cascade)
    peak = settings.peak_per_s or peak_rate(offered.arrivals)
    pinned = settings.pinned and settings.pinned.resolve()
    make_policy(
        settings.policy,
        cascade,
        settings.deadline_s or cascade.deadline_s,
        settings.solver,
        settings.dwell_s,
        peak=peak,
        pinned=pinned,
    )
    return settings.model_copy(
        update={"slots": gpus, "peak_per_s": peak, "pinned": pinned, "node": "replay", "deployment": "replay"}
    )


def run_live(settings: Settings, offered: Offer, folder: Path, prompts: Path | None, console: Console) -> int:
    """One run into its folder, shown while it goes on; returns the exit code. Raises CascadeError."""
    prompts = prompts_of(prompts, settings.cascade)
    trace = cleared(folder) / "trace.csv"
    write(arrivals_as_csv(offered.arrivals, f"as offered to {folder.name}: {offered.label}"), trace)
    run = Run(folder, settings, trace, prompts=prompts, label=offered.label)
    summary = keep(watched(run, console), load_cascade(settings.cascade), folder)
    show(summary, folder, console)
    return exit_code(summary)


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay one trace; 0 when every prompt was answered or refused once, 1 otherwise."""
    options = parser(__doc__ or "", NAMES)
    options.set_defaults(cascade="sdturbo", backend="sleeping")
    options.add_argument("--trace", required=True, help="a trace's file, or a published name, such as 4to32")
    options.add_argument("--gpus", type=int, default=16, help="slots, of the cascade's GPU type (default: 16)")
    options.add_argument("--prompts", type=Path, help="file with one prompt a line; default: the published one")
    options.add_argument("--rate", type=float, default=1.0, help="factor on the rate of the trace")
    options.add_argument("--time", type=float, default=1.0, help="factor on the length of the trace")
    options.add_argument("--seconds", type=float, help="only so much of the trace")
    options.add_argument("--out", type=Path, help="folder of the run; default: logs/<cascade>-<trace>-<policy>-live")
    given = options.parse_args(arguments)
    end_on_sigterm()
    offered = offer(given.trace, given.rate, given.time, given.seconds)
    settings = settings_for(load(given), given.gpus, offered)
    folder = given.out or Path("logs") / f"{settings.cascade}-{offered.label}-{settings.policy}-live"
    return run_live(settings, offered, folder, given.prompts, Console())


if __name__ == "__main__":
    guarded(main)
