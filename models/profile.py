"""Measures how long models take here: `python -m models.profile --model sd-turbo --batches 1,2,4,8`.

Writes `models/profiles/<model>.csv`, the table that the planner reads. With --cascade the light model is timed with
its discriminator, as it serves; all are with their encoding. A batch is timed until the median is known to 5 % of
itself (95 % confidence), at least --repeats times, at most --most times or for --limit-s seconds; p95 is by nearest
rank, so with fewer than 20 timings it is the slowest. Memory: on a GPU what torch reserved at most, on a CPU the
process at its largest, libraries included. The first batch that does not fit is caught, and the ceiling found between
it and the last that does; on a CPU, where memory that runs out ends the process, such a batch is foreseen and not
tried. load_s: from the start of a process until the weights are loaded; warm_s: its first picture; swap_s: to let one
such model leave the device and to bring it back from a copy in host memory.

A run that is ended goes on where it stopped when the same command is given again. All rows of the same GPU type are
replaced at the end, those of other types stay.
"""

from __future__ import annotations

import argparse
import importlib
import math
import re
import resource
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from models.profile_table import Table
from models.timing import Memory, Patience, Profiling
from shared.catalog import TABLES, Cascade, load_model, unmeasured
from shared.config import load
from shared.errors import CascadeError, ModelError
from shared.model import on_processor
from shared.schema import STAGES, Stage

DIFFUSION: Final = "models.diffusion"
BATCHES: Final = (1, 2, 4, 8, 16)
SWAPS: Final = 5
CPU: Final = "cpu"
_PEAK: Final = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)


class HostMemory:
    """Of this process on a processor; what is free ends at the limit of its container."""

    def restart(self) -> None:
        """Linux forgets the peak when it is told so; where it may not be, the peak of the whole run stands."""
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return

    def most_gib(self) -> float:
        """The most that was resident."""
        try:
            found = _PEAK.search(Path("/proc/self/status").read_text())
        except OSError:
            found = None
        return (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 2**20

    def free_gib(self) -> float:
        """What the machine or the container has left."""
        import torch

        from models.memory import free_bytes

        return free_bytes(torch.device(CPU)) / 2**30


class GpuMemory:
    """Of this process on a GPU."""

    def restart(self) -> None:
        """Give back what earlier batches left, and forget their peak."""
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def most_gib(self) -> float:
        """The most that torch reserved."""
        import torch

        return torch.cuda.max_memory_reserved() / 2**30

    def free_gib(self) -> float:
        """Asking for too much only raises."""
        return math.inf


def profile(cascade: Cascade, stage: Stage, given: argparse.Namespace, source: str, console: Console) -> Path:
    """Measure one stage and write its table; raises CascadeError and OSError."""
    model = cascade.models[stage].name
    given.out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be made is told before the long wait
    backend, begin = opened(cascade, stage, given.device, random_weights=given.random_weights)
    table = Table(given.out / f"{model}.csv", given.gpu or gpu_name(given.device), source)
    before = table.unfinished()
    if before:
        console.print(f"{model}: going on after batch {before[-1].batch}, which the same command had measured")
    memory: Memory = HostMemory() if given.device == CPU else GpuMemory()
    patience = Patience(given.repeats, max(given.most, given.repeats), limit_s=given.limit_s)
    profiling = Profiling(backend, memory, patience, before)
    with progress(console) as shown:
        task = shown.add_task(model, total=len(set(given.batches)), completed=len(before))
        for row in profiling.measure_all(given.batches):
            table.keep(profiling.rows)
            shown.update(task, advance=1, description=f"{model}: batch {row.batch} in {row.p50_s:.3f} s")
    if profiling.ceiling < max(given.batches):
        console.print(f"{model}: no more than {profiling.ceiling} fit the memory; larger batches are left out")
    try:
        begin["swap_s"] = swap_s(backend, given.device)
    except (MemoryError, RuntimeError) as wrong:  # torch says so of a device and of page-locked memory alike
        console.print(f"{model}: a swap was not measured: {str(wrong).splitlines()[0]}")
    table.finish(profiling.rows, profiling.ceiling, begin)
    return table.path


def opened(cascade: Cascade, stage: Stage, device: str, *, random_weights: bool) -> tuple[Any, dict[str, float]]:
    """The stage's model, ready to draw, and the seconds until it was; raises ModelError."""
    began, first = time.perf_counter(), DIFFUSION not in sys.modules
    diffusion = importlib.import_module(DIFFUSION)  # it takes seconds, which a new worker waits for too
    more = {"random_weights": True} if random_weights else {}
    backend = diffusion.open_diffusion(cascade, stage, CPU if device == CPU else "cuda", **more)
    loaded = time.perf_counter()
    backend.warm_up([1])
    begin = {"load_s": loaded - began, "warm_s": time.perf_counter() - loaded}
    if random_weights or not first:  # nothing came from a disk, or the libraries were there already
        del begin["load_s"]
    return backend, begin


def swap_s(backend: Any, device: str, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds until one such model has left the device and come back from host memory; the median of some turns.

    The backend serves on afterwards.
    """
    import torch

    from models.swapping import Weights

    weights = Weights(backend.networks, torch.device(CPU if device == CPU else "cuda"))
    weights.load()
    took_s = []
    for _ in range(SWAPS):
        began = clock()
        weights.unload()
        weights.load()
        took_s.append(clock() - began)
    return statistics.median(took_s)


def gpu_name(device: str) -> str:
    """What the GPU type is called in the table where nobody says: as its driver does, in the table's manner."""
    if device == CPU:
        return CPU
    import torch

    name = torch.cuda.get_device_name().lower().removeprefix("nvidia ")
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def chosen_device(asked: str | None, gpu: str | None) -> str:
    """The device meant: as said, else the processor for the GPU type "cpu", else a GPU if there is one.

    Raises ModelError where there is no GPU and one is asked for.
    """
    device = asked or (CPU if on_processor(gpu) else None)
    if device == CPU:
        return CPU
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device or gpu:
        raise ModelError("there is no GPU that torch can use here; say --device cpu to measure on the processor")
    return CPU


def alone(name: str) -> Cascade:
    """A stand-in for a cascade of one model: it is drawn as a heavy one, without a discriminator."""
    model = load_model(name)
    return Cascade(name, dict.fromkeys(STAGES, model), 1.0, CPU, "", "", 0.0, {}, home=model.home)


def progress(console: Console) -> Progress:
    """A bar, where somebody looks."""
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def positive(text: str) -> int:
    """An integer of at least 1; raises ValueError."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def positives(text: str) -> tuple[int, ...]:
    """Integers of at least 1, separated by commas; raises ValueError."""
    return tuple(positive(part) for part in text.split(","))


def arguments_of(words: Sequence[str]) -> argparse.Namespace:
    """What the command line says; ends the process where it is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--model", help="a row of [models] in models/catalog.toml, alone")
    what.add_argument("--cascade", default="tiny", help="a row of [cascades]; default: tiny")
    parser.add_argument("--stage", choices=STAGES, help="of the cascade; default: both, one after the other")
    parser.add_argument("--batches", type=positives, default=BATCHES, help="batch sizes, such as 1,2,4,8,16")
    parser.add_argument("--device", choices=[CPU, "cuda"], help="default: a GPU if there is one; cpu for --gpu cpu")
    parser.add_argument("--gpu", help="name of the GPU type in the table; default: the device's own")
    parser.add_argument("--random-weights", action="store_true", help="the architecture alone, without its weights")
    parser.add_argument("--repeats", type=positive, default=7, help="timings of each batch size, at least")
    parser.add_argument("--most", type=positive, default=50, help="... at most")
    parser.add_argument("--limit-s", type=float, default=60.0, help="... no longer than so many seconds")
    parser.add_argument("--out", type=Path, default=TABLES / "profiles", help="folder of the tables")
    return parser.parse_args(words)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    given = arguments_of(words)
    source = f"measured, {shlex.join(['python', '-m', 'models.profile', *words])}"
    console = Console(stderr=True, soft_wrap=True)
    try:
        cascade = alone(given.model) if given.model else unmeasured(given.cascade)
        given.device = chosen_device(given.device, given.gpu or (None if given.model else cascade.gpu))
        stages: Sequence[Stage] = ("heavy",) if given.model else (given.stage,) if given.stage else STAGES
        given.random_weights = given.random_weights or load().random_weights
        for stage in stages:
            sys.stdout.write(f"{profile(cascade, stage, given, source, console)}\n")
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on from here\n")
        return 130
    except CascadeError as wrong:
        sys.stderr.write(f"{wrong}\n")
        return 2
    except OSError as wrong:
        sys.stderr.write(f"{wrong.filename or given.out}: {wrong.strerror}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
