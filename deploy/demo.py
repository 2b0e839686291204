"""`make demo`: the whole cascade on this machine, with real pictures, in two minutes.

A 90 s trace climbs past what the heavy model can take and falls again; every prompt is answered once, and
the run's folder holds pictures, tables and a report.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

from rich.console import Console

from deploy.progress import watched
from deploy.results import cleared, end_on_sigterm, exit_code, keep, new_folder, show
from deploy.runner import Run, settings_here
from shared.catalog import Cascade, load_cascade
from shared.model import on_processor
from shared.process import guarded
from traces.generate import generate
from traces.shapes import Span
from traces.write import as_csv
from traces.write import write as write_trace

LOW, SECONDS = 3.0, 90.0  # prompts/s at the ends; length of the trace
OVERLOAD: Final = 2.2  # the peak, over what the heavy model can take
GIB_PER_SLOT: Final = 1.3  # two processes with their libraries and models
SLOTS: Final = 4


def slots_that_fit() -> int:
    """As many slots as the memory carries, at most SLOTS."""
    # What could be had, not what lies idle: a download just before has filled the page cache.
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available_gib = int(lines["MemAvailable"].split()[0]) / 2**20
    return max(1, min(SLOTS, int(available_gib / GIB_PER_SLOT)))


def peak(cascade: Cascade, slots: int) -> float:
    """Prompts/s at the top of the hill: OVERLOAD times what the heavy model can take on this machine."""
    cores = len(os.sched_getaffinity(0)) if on_processor(cascade.gpu) else slots
    best = max(batch / cascade.service_s("heavy", batch) for batch in cascade.batches("heavy"))
    return OVERLOAD * min(slots, cores) * best


def main() -> int:
    """Run the demo; exit code 0 when every prompt was answered once, 1 otherwise."""
    given = _arguments()
    end_on_sigterm()
    console = Console()
    folder = cleared(given.out or new_folder("demo"))
    trace = folder / "trace.csv"
    slots = given.slots or slots_that_fit()
    high = given.high or peak(load_cascade(given.cascade), slots)
    times, about = generate("hill", Span(min(given.low, high), high, given.seconds, given.seed))
    write_trace(as_csv(times, about), trace)
    settings = settings_here(
        cascade=given.cascade,
        backend=given.backend,
        slots=slots,
        policy=given.policy,
        node="demo",
        deployment="demo",
    )
    run = Run(folder, settings, trace, prompts=given.prompts, nice=5)
    summary = keep(watched(run, console), load_cascade(given.cascade), folder)
    show(summary, folder, console)
    return exit_code(summary)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of the run; default: logs/demo-<time>")
    parser.add_argument("--slots", type=int, help=f"slots that draw; default: up to {SLOTS}, as memory allows")
    parser.add_argument("--cascade", default="tiny")
    parser.add_argument("--backend", default="diffusers", choices=["diffusers", "sleeping"])
    parser.add_argument("--policy", default="quality")
    parser.add_argument("--prompts", type=Path, help="file with one prompt a line; default: captions of scenes")
    parser.add_argument("--low", type=float, default=LOW, help="prompts/s at the ends")
    parser.add_argument("--high", type=float, help="prompts/s at the peak; default: more than heavy can take")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of the trace")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    guarded(main)
