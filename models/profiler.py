"""Measures how long a cascade's models take here: `python -m models.profiler --cascade tiny --stage heavy`.

Writes `models/profiles/<model>.csv`, the table that the planner reads. A light batch is timed with its
discriminator and its encoding, a heavy one with its encoding. p50 is the median; p95 is by nearest rank, so with
fewer than 20 repeats it is the slowest. Memory: on a GPU what torch reserved at most, on a CPU the process at its
largest, libraries included. All rows of the same GPU type are replaced, those of other types stay.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import resource
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.backend import Backend, OutOfMemory, open_backend
from shared.catalog import TABLES, Cascade, unmeasured
from shared.errors import CascadeError
from shared.files import write_text
from shared.messages import Job
from shared.schema import STAGES, Stage

COLUMNS: Final = ("model", "gpu", "batch", "p50_s", "p95_s", "memory_gib", "ceiling", "source")
BATCHES: Final = (1, 2, 4, 8, 16)
PROMPTS: Final = (
    "big red circle on white",
    "two small blue rings on black",
    "big green triangle right on grey",
    "big red cross below big green ring on black",
)


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds for a batch, and the memory in GiB that it took at most."""

    batch: int
    p50_s: float
    p95_s: float
    memory_gib: float


def measure(
    backend: Backend, batch: int, repeats: int, memory: Callable[[], float], clock: Callable[[], float]
) -> Measured:
    """Time `repeats` batches after one that does not count; raises ModelError."""
    backend.warm_up([batch])
    took_s = []
    for repeat in range(repeats):
        jobs = [Job(f"profile-{i}", PROMPTS[i % len(PROMPTS)], 0.0, 0.0, seed=repeat * batch + i) for i in range(batch)]
        started = clock()
        backend.draw(jobs)
        took_s.append(clock() - started)
    return Measured(batch, statistics.median(took_s), nearest_rank(took_s, 0.95), memory())


def measure_all(
    backend: Backend,
    batches: Sequence[int],
    repeats: int,
    memory: Callable[[], float],
    clock: Callable[[], float] = time.perf_counter,
) -> list[Measured]:
    """One row per batch size, ascending, up to the first that does not fit; raises OutOfMemory if none does."""
    rows: list[Measured] = []
    for batch in sorted(set(batches)):
        try:
            rows.append(measure(backend, batch, repeats, memory, clock))
        except OutOfMemory:
            if not rows:
                raise
            break
    return rows


def nearest_rank(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def peak_memory_gib(gpu: str) -> float:
    """The most memory that this process held so far, in GiB: of the GPU, or of the machine if `gpu` is "cpu"."""
    if gpu == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    import torch

    return torch.cuda.max_memory_reserved() / 2**30


def table(kept: Sequence[Sequence[str]], model: str, gpu: str, rows: Sequence[Measured], source: str) -> str:
    """The CSV: the rows kept from other GPU types, then what was measured; the ceiling is the largest that fits."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(COLUMNS)
    lines.writerows(kept)
    ceiling = max(row.batch for row in rows)
    for row in rows:
        figures = (f"{row.p50_s:.4f}", f"{row.p95_s:.4f}", f"{row.memory_gib:.2f}")
        lines.writerow((model, gpu, row.batch, *figures, ceiling, source))
    return text.getvalue()


def rows_of_others(path: Path, gpu: str) -> list[tuple[str, ...]]:
    """The rows of an existing table that belong to other GPU types; raises OSError."""
    if not path.exists():
        return []
    with path.open(newline="") as lines:
        rows = [tuple(row.get(name) or "" for name in COLUMNS) for row in csv.DictReader(lines)]
    return [row for row in rows if row[COLUMNS.index("gpu")] != gpu]


def profile(cascade: Cascade, stage: Stage, given: argparse.Namespace, command: str) -> Path:
    """Measure one stage and write its table; raises CascadeError and OSError."""
    model, gpu = cascade.models[stage].name, given.gpu or cascade.gpu
    path: Path = given.out / f"{model}.csv"
    given.out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be made is told before the long wait
    kept = rows_of_others(path, gpu)
    backend = open_backend("diffusers", cascade, stage, gpu)
    rows = measure_all(backend, given.batches, given.repeats, lambda: peak_memory_gib(gpu))
    write_text(path, table(kept, model, gpu, rows, f"measured, {command}"))
    return path


def positive(text: str) -> int:
    """An integer of at least 1; raises ValueError."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def positives(text: str) -> tuple[int, ...]:
    """Integers of at least 1, separated by commas; raises ValueError."""
    return tuple(positive(part) for part in text.split(","))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cascade", default="tiny", help="a row of [cascades] in models/catalog.toml")
    parser.add_argument("--stage", choices=STAGES, help="default: both, one after the other")
    parser.add_argument("--batches", type=positives, default=BATCHES, help="batch sizes, such as 1,2,4,8,16")
    parser.add_argument("--repeats", type=positive, default=7, help="timed batches per size")
    parser.add_argument("--gpu", help='name of the GPU type in the table; "cpu" uses none; default: the cascade\'s')
    parser.add_argument("--out", type=Path, default=TABLES / "profiles", help="folder of the tables")
    words = list(sys.argv[1:] if arguments is None else arguments)
    given = parser.parse_args(words)
    command = shlex.join(["python", "-m", "models.profiler", *words])
    try:
        cascade = unmeasured(given.cascade)
        for stage in (given.stage,) if given.stage else STAGES:
            sys.stdout.write(f"{profile(cascade, stage, given, command)}\n")
    except CascadeError as wrong:
        sys.stderr.write(f"{wrong}\n")
        return 2
    except OSError as wrong:
        sys.stderr.write(f"{wrong.filename or given.out}: {wrong.strerror}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
