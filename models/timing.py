"""How long a loaded model takes: batch by batch, as often as it needs, up to what its device's memory holds."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from models.backend import Backend, OutOfMemory
from shared.messages import Job

CONFIDENCE: Final = 0.95
PROMPTS: Final = (
    "big red circle on white",
    "two small blue rings on black",
    "big green triangle right on grey",
    "big red cross below big green ring on black",
)
Clock = Callable[[], float]


class Memory(Protocol):
    """What a device's memory says."""

    def restart(self) -> None:
        """Forget the most that was held so far."""

    def most_gib(self) -> float:
        """The most that was held since then, in GiB."""

    def free_gib(self) -> float:
        """What may still be taken, where asking for too much would end the process; infinite where it only raises."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds for a batch, and the memory in GiB that it took at most."""

    batch: int
    p50_s: float
    p95_s: float
    memory_gib: float


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a batch is timed: at least `least` times, then until the median is known to a share `width` of it.

    No more than `most` times, and once there are `least`, no longer than `limit_s` seconds.
    """

    least: int = 7
    most: int = 50
    width: float = 0.05
    limit_s: float = 60.0

    def enough(self, took_s: Sequence[float]) -> bool:
        """Whether so many timings do."""
        if len(took_s) < self.least:
            return False
        if len(took_s) >= self.most or sum(took_s) >= self.limit_s:
            return True
        low, high = median_interval(took_s)
        return high - low <= self.width * statistics.median(took_s)


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """A confidence interval of 95 % for the median, whatever the distribution; infinite for fewer than six values.

    The k-th smallest and k-th largest, k from the binomial distribution (Conover, Practical Nonparametric
    Statistics, 3.2).
    """
    ordered, tail, k = sorted(values), 0.0, 0
    while (tail := tail + math.comb(len(ordered), k) / 2 ** len(ordered)) <= (1 - CONFIDENCE) / 2:
        k += 1
    return (ordered[k - 1], ordered[-k]) if k else (-math.inf, math.inf)


def nearest_rank(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def measure(backend: Backend, batch: int, patience: Patience, memory: Memory, clock: Clock) -> Measured:
    """Time batches after one that does not count; raises ModelError, OutOfMemory."""
    memory.restart()
    backend.warm_up([batch])
    took_s: list[float] = []
    while not patience.enough(took_s):
        first = len(took_s) * batch
        jobs = [Job(f"profile-{i}", PROMPTS[i % len(PROMPTS)], 0.0, 0.0, seed=first + i) for i in range(batch)]
        started = clock()
        backend.draw(jobs)
        took_s.append(clock() - started)
    return Measured(batch, statistics.median(took_s), nearest_rank(took_s, 0.95), memory.most_gib())


class Profiling:
    """The batches of one model, in order. `rows`: what is measured, some of it perhaps by an earlier run.

    `ceiling`: the largest batch that was drawn; where one did not fit, the largest that does.
    """

    def __init__(
        self,
        backend: Backend,
        memory: Memory,
        patience: Patience | None = None,
        rows: Sequence[Measured] = (),
        clock: Clock = time.perf_counter,
    ) -> None:
        self.rows = list(rows)
        self.ceiling = max((row.batch for row in rows), default=0)
        self._backend = backend
        self._memory = memory
        self._patience = patience or Patience()
        self._clock = clock

    def measure_all(self, batches: Sequence[int]) -> Iterator[Measured]:
        """Each batch size that is not measured yet, ascending, up to the first that does not fit, as it is done.

        Raises ModelError, and OutOfMemory where none fits.
        """
        for batch in sorted(set(batches) - {row.batch for row in self.rows}):
            try:
                self._foresee(batch)
                self.rows.append(measure(self._backend, batch, self._patience, self._memory, self._clock))
            except OutOfMemory:
                if not self.rows:
                    raise
                self._bisect(batch)
                return
            self.ceiling = batch
            yield self.rows[-1]

    def _bisect(self, too_many: int) -> None:
        """Find the largest batch that can be drawn, below one that can't."""
        while too_many - self.ceiling > 1:
            middle = (self.ceiling + too_many) // 2
            try:
                self._foresee(middle)
                self._backend.warm_up([middle])
                self.ceiling = middle
            except OutOfMemory:
                too_many = middle

    def _foresee(self, batch: int) -> None:
        """Raise OutOfMemory for a batch that is likely to get the process killed: prolonged from those measured."""
        if len(self.rows) < 2:
            return
        first, last = self.rows[0], self.rows[-1]
        each_gib = max(0.0, last.memory_gib - first.memory_gib) / (last.batch - first.batch)
        more_gib, free_gib = each_gib * (batch - first.batch), self._memory.free_gib()
        if more_gib > free_gib:
            raise OutOfMemory(f"a batch of {batch} would take {more_gib:.1f} GiB more, {free_gib:.1f} GiB are free")
