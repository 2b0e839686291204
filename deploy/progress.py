"""Shows a live run, or a start, while it goes on: in place on a terminal, as lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deploy.recorder import Recorder
from deploy.runner import Run, replay
from shared.config import Settings
from shared.recording import Recording, Tick
from shared.schema import STAGES

LINE_EVERY_S: Final = 5.0
Say = Callable[[str], None]


def watched(run: Run, console: Console) -> Recording:
    """Run the pipeline around its trace, show how it fares, and return what was recorded."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4) as live:
            return replay(run, live.console.print, progress(console, live))
    return replay(run, console.print, progress(console, None))


def progress(console: Console, live: Live | None) -> Callable[[Tick, Recorder], None]:
    """What shows each look, by the seconds since the first."""
    began: list[float] = []
    last = [-LINE_EVERY_S]

    def show(tick: Tick, recorder: Recorder) -> None:
        began.extend([] if began else [time.monotonic()])
        seconds = time.monotonic() - began[0]
        if live is not None:
            live.update(shown(tick, recorder, seconds))
        elif seconds - last[0] >= LINE_EVERY_S:
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


@contextmanager
def timed(console: Console, clock: Callable[[], float] = time.monotonic) -> Iterator[Say]:
    """A `say` that puts the seconds before the words; what it said last stays.

    On a terminal the words stand in one place; elsewhere they are a line where they are new, or LINE_EVERY_S old.
    """
    began, last = clock(), ("", 0.0)

    def line(words: str) -> str:
        return f"{clock() - began:4.0f} s  {words}"

    def told(words: str) -> None:
        nonlocal last
        now = clock()
        if words != last[0] or now - last[1] >= LINE_EVERY_S:
            last = (words, now)
            console.print(line(words), markup=False, emoji=False, highlight=False, soft_wrap=True)

    if not console.is_terminal:
        yield told
        return
    with Live(console=console, refresh_per_second=4) as live:
        yield lambda words: live.update(Text(line(words)))


def workers_ready(workers: Sequence[Mapping[str, str]], settings: Settings) -> dict[str, tuple[int, int]]:
    """Of each stage, how many workers have loaded their model, and how many start."""
    ready = [worker.get("stage") for worker in workers if worker.get("ready") == "1"]
    if settings.resident is False:  # a slot has one worker, of whichever stage the plan asks for
        return {"either": (len(ready), settings.slots)}
    return {stage: (ready.count(stage), settings.slots) for stage in STAGES}


def in_words(ready: Mapping[str, tuple[int, int]]) -> str:
    """What `workers_ready` counted."""
    return "workers ready: " + ", ".join(f"{stage} {count} of {slots}" for stage, (count, slots) in ready.items())
