"""`make demo`: the whole cascade on this machine, with real pictures, in two minutes.

A 90 s trace climbs past what the heavy model can take and falls again; every prompt is answered once, and
the run's folder holds pictures, tables and a report.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table

from analysis.recording import save
from analysis.report import write_report, write_summary
from deploy.recorder import Recorder
from deploy.runner import Run, replay
from shared.catalog import Cascade, load_cascade
from shared.config import Settings
from shared.process import guarded
from shared.recording import Tick
from shared.summary import table
from traces.generate import as_csv, generate
from traces.generate import write as write_trace
from traces.shapes import Span

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
    cores = len(os.sched_getaffinity(0)) if cascade.gpu == "cpu" else slots
    best = max(batch / cascade.service_s("heavy", batch) for batch in cascade.batches("heavy"))
    return OVERLOAD * min(slots, cores) * best


def shown(tick: Tick, recorder: Recorder, seconds: float) -> Table:
    """One look as a small table."""
    made = Table(title=f"{seconds:5.0f} s", title_justify="left")
    values = {
        "offered": tick.offered,
        "light": tick.light,
        "heavy": tick.heavy,
        "dropped": tick.dropped,
        "waiting": f"{tick.waiting_light} + {tick.waiting_heavy}",
        "workers": f"{tick.light_workers} light, {tick.heavy_workers} heavy",
        "threshold": f"{tick.threshold:.3f}",
        "on time": f"{100 * (1 - recorder.late_share()):.1f} %",
    }
    for name in values:
        made.add_column(name, justify="right")
    made.add_row(*(str(value) for value in values.values()))
    return made


def progress(console: Console, live: Live | None) -> Callable[[Tick, Recorder], None]:
    """Show each look: in place on a terminal, as a line every five seconds elsewhere."""
    began = time.monotonic()
    last = [-5.0]

    def show(tick: Tick, recorder: Recorder) -> None:
        seconds = time.monotonic() - began
        if live is not None:
            live.update(shown(tick, recorder, seconds))
        elif seconds - last[0] >= 5.0:
            last[0] = seconds
            console.print(
                f"{seconds:4.0f} s  offered {tick.offered}  light {tick.light}  heavy {tick.heavy}  "
                f"dropped {tick.dropped}  waiting {tick.waiting_light}+{tick.waiting_heavy}  "
                f"workers {tick.light_workers} light {tick.heavy_workers} heavy  "
                f"threshold {tick.threshold:.3f}  on time {100 * (1 - recorder.late_share()):.1f} %",
                highlight=False,
                soft_wrap=True,
            )

    return show


def main() -> int:
    """Run the demo; exit code 0 when every prompt was answered once, 1 otherwise."""
    given = _arguments()
    signal.signal(signal.SIGTERM, _end)
    console = Console()
    folder: Path = given.out or Path("logs") / time.strftime("demo-%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    trace = folder / "trace.csv"
    slots = given.slots or slots_that_fit()
    high = given.high or peak(load_cascade(given.cascade), slots)
    times, about = generate("hill", Span(min(given.low, high), high, given.seconds, given.seed))
    write_trace(as_csv(times, about), trace)
    settings = Settings(
        cascade=given.cascade,
        backend=given.backend,
        slots=slots,
        policy=given.policy,
        node="demo",
        deployment="demo",
    )
    run = Run(folder, settings, trace, prompts=given.prompts, nice=5)
    summary = _replayed(run, console)
    missing = summary["pictures_missing"] if given.backend == "diffusers" else 0
    return 1 if summary["open"] or summary["failed"] or summary["answered_twice"] or missing else 0


def _replayed(run: Run, console: Console) -> dict[str, Any]:
    say = console.print
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4) as live:
            recording = replay(run, live.console.print, progress(console, live))
    else:
        recording = replay(run, say, progress(console, None))
    cascade = load_cascade(run.settings.cascade)
    save(recording, run.folder)
    summary = write_summary(recording, cascade, run.folder)
    report = write_report(recording, cascade, run.folder)
    say(table(summary))
    say(f"pictures and figures: {report}")
    return summary


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


def _end(_signal: int, _frame: FrameType | None) -> None:
    # SIGTERM ends a run as Ctrl-C does: through the blocks that stop what they started.
    sys.exit(143)


if __name__ == "__main__":
    guarded(main)
