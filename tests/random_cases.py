"""Random small programs, and their answer by trying everything: an oracle that shares no rule with the planner.

It reads the numbers of a `Case` and follows the design: least loss, then within a thousandth of it the fewest
workers, the fewest switches, the smallest heavy batch, the smallest light one, the fewest workers pool by pool.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise, product

from planner.fleet import Choice, Pool, Staff
from planner.milp import HEAVY_PRICE, Case, Solution
from shared.catalog import Cascade, load_cascade

WORTH = 1e-3

# Workers of each stage by pool, and the places of the batches (heavy -1: none); None: nothing serves.
Found = tuple[tuple[int, ...], tuple[int, ...], int, int] | None
Cases = Callable[[], tuple[tuple[Case, Found], ...]]


def random_choices(draw: random.Random, pools: int, most: int = 5) -> tuple[Choice, ...]:
    batches = sorted(draw.sample([1, 2, 4, 8, 16, 32], draw.randint(1, most)))
    first_s, each_s = draw.uniform(0.05, 1.0), draw.uniform(0.02, 0.5)
    paces = [1.0, *(draw.uniform(0.3, 4) for _ in range(pools - 1))]
    return tuple(
        Choice(batch, tuple(_seconds(draw, first_s + each_s * batch, pace) for pace in paces)) for batch in batches
    )


def _seconds(draw: random.Random, seconds: float, pace: float) -> float:
    """Around `pace` times the seconds; now and then the batch doesn't run on another type at all."""
    return math.inf if pace != 1.0 and draw.random() < 0.1 else seconds * pace * draw.uniform(0.8, 1.25)


def random_pools(draw: random.Random, count: int, most: int) -> tuple[Pool, ...]:
    pools = []
    for place in range(count):
        slots = draw.randint(1, most)
        two_way = draw.random() < 0.6
        light = slots if two_way else draw.randint(int(count == 1), slots)
        # A slot that can run nothing is in no pool.
        heavy = slots if two_way else draw.randint(slots - light, slots)
        pools.append(Pool(f"type-{place}", slots, light, heavy))
    return tuple(pools)


def random_loss(draw: random.Random) -> tuple[tuple[float, float], ...]:
    shares = sorted({0.0, 1.0} | {round(draw.random(), 3) for _ in range(draw.randint(0, 5))})
    return tuple((share, draw.random() + HEAVY_PRICE * share) for share in shares)


def random_case(draw: random.Random, pools: tuple[Pool, ...], batches: int = 5, rate: float = 1.2) -> Case:
    slots = sum(pool.slots for pool in pools)
    before = [tuple(draw.randint(0, pool.slots) for pool in pools) for _ in range(2)]
    return Case(
        demand=draw.uniform(0.05, rate) * slots,
        deadline_s=draw.uniform(1, 20),
        light=random_choices(draw, len(pools), batches),
        heavy=random_choices(draw, len(pools), batches),
        pools=pools,
        slots=slots,
        loss=random_loss(draw),
        counts=Staff(before[0], before[1]) if draw.random() < 0.7 else None,
    )


def one_type(draw: random.Random) -> Case:
    """A case of up to 16 slots with GPUs of one type."""
    return random_case(draw, random_pools(draw, 1, 16))


def several_types(draw: random.Random) -> Case:
    """A case of two or three GPU types with few slots each."""
    count = draw.randint(2, 3)
    case = random_case(draw, random_pools(draw, count, 4 if count == 2 else 2), batches=3)
    return case if draw.random() < 0.8 else replace(case, slots=max(1, case.slots - 1))


def sharing(draw: random.Random) -> tuple[Case, ...]:
    """Two or three cascades on a few slots of one or two types."""
    count = draw.randint(2, 3)
    types = draw.randint(1, 2)
    pools = random_pools(draw, types, (7 if types == 1 else 3) if count == 2 else (6 if types == 1 else 2))
    return tuple(random_case(draw, pools, batches=2, rate=0.4) for _ in range(count))


@dataclass(frozen=True, slots=True)
class Answer:
    """One way to run a case: its loss, the workers, and the places of the batches (heavy -1: none)."""

    loss: float
    light: tuple[int, ...]
    heavy: tuple[int, ...]
    light_place: int
    heavy_place: int

    @property
    def workers(self) -> int:
        return sum(self.light) + sum(self.heavy)

    def switches(self, case: Case) -> int:
        if case.counts is None:
            return 0
        pairs = zip((*self.light, *self.heavy), (*case.counts.light, *case.counts.heavy), strict=True)
        return sum(abs(now - before) for now, before in pairs)


def brute(*cases: Case) -> tuple[Answer, ...] | None:
    """The answers of cases that share their pools; None where no number of workers serves them all."""
    total = sum(case.demand for case in cases)
    found = list(_together(cases, [list(answers(case)) for case in cases]))
    if not found:
        return None

    def loss(chosen: Sequence[Answer]) -> float:
        return sum(case.demand / total * each.loss for case, each in zip(cases, chosen, strict=True))

    least = min(map(loss, found))
    return min((chosen for chosen in found if loss(chosen) <= least + WORTH + 1e-9), key=lambda each: _key(cases, each))


def _key(cases: Sequence[Case], chosen: Sequence[Answer]) -> tuple[object, ...]:
    return (
        sum(each.workers for each in chosen),
        sum(each.switches(case) for case, each in zip(cases, chosen, strict=True)),
        [each.heavy_place for each in chosen],
        [each.light_place for each in chosen],
        [(each.light, each.heavy) for each in chosen],
    )


def answers(case: Case) -> Iterator[Answer]:
    """Every way to carry the demand in time: all batches, all numbers of workers on all pools."""
    staffs = list(product(*(list(_on(pool)) for pool in case.pools)))
    heavy_choices = list(enumerate([None, *case.heavy], -1))
    for (light_place, light), (heavy_place, heavy) in product(enumerate(case.light), heavy_choices):
        for staff in staffs:
            lights, heavies = tuple(each[0] for each in staff), tuple(each[1] for each in staff)
            if sum(lights) + sum(heavies) > case.slots or any(heavies) != (heavy is not None):
                continue
            light_s, light_rate = drawn(light, lights)
            heavy_s, heavy_rate = drawn(heavy, heavies) if heavy else (0.0, 0.0)
            if light_rate * 0.9 < case.demand or light_s + heavy_s > case.deadline_s:
                continue
            yield Answer(least_loss(case, 0.9 * heavy_rate / case.demand), lights, heavies, light_place, heavy_place)


def _on(pool: Pool) -> Iterator[tuple[int, int]]:
    for light, heavy in product(range(pool.light_slots + 1), range(pool.heavy_slots + 1)):
        if light + heavy <= pool.slots:
            yield light, heavy


def drawn(choice: Choice, workers: Sequence[int]) -> tuple[float, float]:
    """Seconds it takes from the deadline, a quarter of which is waiting, and prompts per second."""
    used = [(seconds, count) for seconds, count in zip(choice.seconds, workers, strict=True) if count]
    return 1.25 * max((seconds for seconds, _ in used), default=0.0), sum(n * choice.batch / s for s, n in used)


def least_loss(case: Case, capacity: float) -> float:
    """The least loss of any heavy share up to the capacity."""
    losses = [loss for share, loss in case.loss if share <= capacity]
    for (share0, loss0), (share1, loss1) in pairwise(case.loss):
        if share0 < capacity < share1:
            losses.append(loss0 + (loss1 - loss0) * (capacity - share0) / (share1 - share0))
    return min(losses)


def _together(cases: Sequence[Case], every: Sequence[list[Answer]]) -> Iterator[tuple[Answer, ...]]:
    """Every choice of one answer for each case that the slots can hold together."""
    pools, most = cases[0].pools, cases[0].slots

    def fits(chosen: Sequence[Answer]) -> bool:
        for place, pool in enumerate(pools):
            light, heavy = sum(each.light[place] for each in chosen), sum(each.heavy[place] for each in chosen)
            if light > pool.light_slots or heavy > pool.heavy_slots or light + heavy > pool.slots:
                return False
        return sum(each.workers for each in chosen) <= most

    def further(chosen: tuple[Answer, ...]) -> Iterator[tuple[Answer, ...]]:
        if len(chosen) == len(every):
            yield chosen
            return
        for each in every[len(chosen)]:
            if fits((*chosen, each)):
                yield from further((*chosen, each))

    return further(())


@cache
def cases(count: int = 300) -> tuple[tuple[Case, Found], ...]:
    """Cases of one GPU type and the one right answer to each."""
    draw = random.Random(20_251_122)
    return tuple((case, truth(brute(case))) for case in (one_type(draw) for _ in range(count)))


@cache
def mixed_cases(count: int = 300) -> tuple[tuple[Case, Found], ...]:
    """Cases of several GPU types and the one right answer to each."""
    draw = random.Random(20_260_301)
    return tuple((case, truth(brute(case))) for case in (several_types(draw) for _ in range(count)))


def truth(answers: tuple[Answer, ...] | None) -> Found:
    if answers is None:
        return None
    return answers[0].light, answers[0].heavy, answers[0].light_place, answers[0].heavy_place


def found(case: Case, solution: Solution | None) -> Found:
    if solution is None:
        return None
    heavy = case.heavy.index(solution.heavy) if solution.heavy else -1
    return solution.light_on, solution.heavy_on, case.light.index(solution.light), heavy


def of_types(name: str, paces: dict[str, float]) -> Cascade:
    """The cascade on made-up GPU types that take `pace` times as long."""
    cascade = load_cascade(name)
    profiles = {
        stage: {gpu: replace(cascade.profile(stage).scaled(pace), gpu=gpu) for gpu, pace in paces.items()}
        for stage in cascade.profiles
    }
    return replace(cascade, profiles=profiles, gpu=next(iter(paces)))
