"""What a fleet can do: its slots by GPU type, its workers, and the batch sizes on its GPUs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from shared.catalog import Cascade
from shared.plans import Plan, Slot
from shared.schema import Stage

# w / L, measured by the simulator: the 95th percentile of the waits for heavy on the published traces is 0.16 to
# 0.25 of its batch on 10 and 16 GPUs (0.57 on 4), the mean 0.05 to 0.21.
WAIT_SHARE: Final = 0.25


class Staff(NamedTuple):
    """Workers of each stage on the slots of each pool."""

    light: tuple[int, ...]
    heavy: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pool:
    """The slots with GPUs of one type: how many there are, and how many of them can run each stage."""

    gpu: str
    slots: int
    light_slots: int
    heavy_slots: int

    def limit(self, stage: Stage) -> int:
        """Slots that can run the stage."""
        return self.light_slots if stage == "light" else self.heavy_slots


@dataclass(frozen=True, slots=True)
class Choice:
    """A batch size of a model: seconds per batch on the GPUs of each pool, infinite where it can't be used.

    `wait_share`: the wait `w` counted against the deadline, as a share of the seconds.
    """

    batch: int
    seconds: tuple[float, ...]
    wait_share: float = WAIT_SHARE

    @property
    def service_s(self) -> float:
        """Seconds per batch on the slowest of these GPUs."""
        return max(seconds for seconds in self.seconds if seconds < math.inf)

    @property
    def throughput(self) -> float:
        """Prompts per second of one worker in full batches, on the slowest of these GPUs."""
        return self.batch / self.service_s

    @property
    def latency_s(self) -> float:
        """Seconds this stage takes from the deadline on the slowest of these GPUs."""
        return self.service_s * (1 + self.wait_share)

    @property
    def latencies(self) -> tuple[float, ...]:
        """Seconds this stage takes from the deadline, by pool."""
        return tuple(seconds * (1 + self.wait_share) for seconds in self.seconds)

    def latency_on(self, workers: Iterable[int]) -> float:
        """Seconds this stage takes from the deadline where so many workers run on each pool: the slowest's."""
        used = [seconds for seconds, count in zip(self.seconds, workers, strict=True) if count]
        return max(used, default=0.0) * (1 + self.wait_share)

    def drawn_by(self, workers: Iterable[int]) -> float:
        """Prompts per second of so many workers on each pool, in full batches."""
        return sum(count * self.batch / seconds for count, seconds in zip(workers, self.seconds, strict=True))


def service_s(choice: Choice, workers: tuple[int, ...]) -> float:
    """Seconds per batch in the mean over the batches that these workers draw (the harmonic mean over workers).

    So that workers * batch / service_s is their throughput. On the slowest GPUs where there is no worker.
    """
    used = {seconds for seconds, count in zip(choice.seconds, workers, strict=True) if count}
    if len(used) <= 1:
        return used.pop() if used else choice.service_s
    return sum(workers) * choice.batch / choice.drawn_by(workers)


def pools_of(slots: Iterable[Slot]) -> tuple[Pool, ...]:
    """The slots that can run anything, by GPU type, in the order of its name."""
    counted = Counter((slot.gpu, "light" in slot.stages, "heavy" in slot.stages) for slot in slots if slot.stages)

    def pool(gpu: str) -> Pool:
        mine = {key: count for key, count in counted.items() if key[0] == gpu}
        light, heavy = (sum(count for key, count in mine.items() if key[place]) for place in (1, 2))
        return Pool(gpu, sum(mine.values()), light, heavy)

    return tuple(pool(gpu) for gpu in sorted({gpu for gpu, _, _ in counted}))


def staff_of(plan: Plan, pools: tuple[Pool, ...], slots: Iterable[Slot]) -> Staff:
    """The workers of a plan by pool; where it names no GPU types, as its slots were assigned."""
    if len(pools) == 1:
        return Staff((plan.light_workers,), (plan.heavy_workers,))
    on = {"light": plan.light_on, "heavy": plan.heavy_on}
    if not plan.light_on:
        kinds = {slot.name: slot.gpu for slot in slots}
        placed = Counter((stage, kinds[name]) for name, stage in plan.assignment.items() if name in kinds)
        on = {stage: {gpu: count for (each, gpu), count in placed.items() if each == stage} for stage in on}
    light, heavy = (tuple(on[stage].get(pool.gpu, 0) for pool in pools) for stage in ("light", "heavy"))
    return Staff(light, heavy)


def choices_of(cascade: Cascade, stage: Stage, pools: tuple[Pool, ...], wait_share: float) -> tuple[Choice, ...]:
    """The profiled batch sizes of a stage; raises SettingsError where not even the cascade's own GPU was profiled."""
    somewhere = any(pool.limit(stage) for pool in pools)
    known = cascade.profiles[stage]
    # A slot whose GPU was never profiled is planned as the cascade's own; the measured pace corrects it.
    kinds = [pool.gpu if pool.gpu in known else cascade.gpu for pool in pools]
    by_pool: list[dict[int, float]] = [
        {batch: cascade.service_s(stage, batch, gpu) for batch in cascade.batches(stage, gpu)}
        if pool.limit(stage) or not somewhere
        else {}
        for pool, gpu in zip(pools, kinds, strict=True)
    ]
    batches = sorted({batch for seconds in by_pool for batch in seconds})
    return tuple(
        Choice(batch, tuple(seconds.get(batch, math.inf) for seconds in by_pool), wait_share) for batch in batches
    )


def worthwhile(choices: tuple[Choice, ...], time_s: float) -> tuple[Choice, ...]:
    """The choices on the GPUs on which they fit into the time, where these draw faster than any smaller batch.

    No optimum needs another.
    """
    kept: list[Choice] = []
    for choice in choices:
        fits = tuple(
            seconds if latency_s <= time_s else math.inf
            for seconds, latency_s in zip(choice.seconds, choice.latencies, strict=True)
        )
        fitting = Choice(choice.batch, fits, choice.wait_share)
        if min(fits) < math.inf and not any(_outdraws(smaller, fitting) for smaller in kept):
            kept.append(fitting)
    return tuple(kept)


def _outdraws(one: Choice, other: Choice) -> bool:
    """Whether one draws at least as fast as the other on every GPU on which the other can be used."""
    pairs = zip(one.seconds, other.seconds, strict=True)
    return all(one.batch / mine >= other.batch / theirs for mine, theirs in pairs if theirs < math.inf)
