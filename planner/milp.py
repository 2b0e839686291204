"""The program of the design: which workers at which batch size give the best quality in time.

    n[m,b,g]  workers of model m at batch b on GPU type g      (integer)
    y[m,b,k]  batch b is the one used for m, on the GPU types up to the k-th slowest   (binary)
    h         heavy share, on the segments of q   (weights of its points; a binary per segment where q is not convex)

    min   loss(h)  then  workers  then  switches  then  batches and counts in order   (lexicographic)
    s.t.  rho * sum_b,g n[light,b,g] * b/L >= D          rho * sum_b,g n[heavy,b,g] * b/L >= h * D
          sum_m,b n[m,b,g] <= slots of type g            n[m,b,g] <= slots of type g for m * sum_k>=g y[m,b,k]
          sum y[light] * (L + w) + sum y[heavy] * (L + w) <= deadline        one y for light, at most one for heavy

L in the deadline row is that of the slowest GPU type in use: each y names how slow a type it lets in. Counting
workers per batch size makes DiffServe's products (workers times throughput of a chosen batch, MLSys 2025,
section 4) linear. A `Case` holds the numbers, a `Solution` the answer; `formulation` writes the program down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from planner.fleet import WAIT_SHARE, Choice, Pool, Staff, choices_of, pools_of, staff_of, worthwhile
from shared.catalog import Cascade
from shared.measured import Curve
from shared.plans import Plan, Slot
from shared.schema import Stage

HEADROOM: Final = 0.9  # rho: share of the throughput that is planned for
HEAVY_PRICE: Final = 1e-3  # loss per unit of heavy share: where quality is equal, less heavy work wins
TOLERANCE: Final = 1e-3  # loss given up for fewer workers: a thousandth of the range of quality
DEMAND_FLOOR: Final = 0.1  # prompts/s; an idle system still keeps a worker of each stage
RESOLUTION: Final = 1.02  # demand and pace are rounded to steps of 2 %, so that a quiet view solves nothing
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Case:
    """The numbers of one program, hashable: equal cases have equal solutions.

    `light`, `heavy`: the batch sizes to choose from. `slots`: the most workers in all. `loss`: points of the
    loss over the heavy share. `counts`: workers of the plan in force, if there is one.
    """

    demand: float
    deadline_s: float
    light: tuple[Choice, ...]
    heavy: tuple[Choice, ...]
    pools: tuple[Pool, ...]
    slots: int
    loss: Points
    counts: Staff | None = None
    headroom: float = HEADROOM

    @property
    def light_slots(self) -> int:
        """Slots that can run light."""
        return sum(pool.light_slots for pool in self.pools)

    @property
    def heavy_slots(self) -> int:
        """Slots that can run heavy."""
        return sum(pool.heavy_slots for pool in self.pools)

    def choices(self, stage: Stage) -> tuple[Choice, ...]:
        """The batch sizes to choose from for a stage."""
        return self.light if stage == "light" else self.heavy

    def by_type(self, workers: tuple[int, ...]) -> dict[str, int]:
        """Workers by GPU type as a plan has them; empty where there is only one type."""
        if len(self.pools) == 1:
            return {}
        return {pool.gpu: count for pool, count in zip(self.pools, workers, strict=True) if count}


@dataclass(frozen=True, slots=True)
class Solution:
    """Workers by pool and batch sizes, the heavy share they carry and its loss; `heavy` is None where all is light."""

    light_on: tuple[int, ...]
    heavy_on: tuple[int, ...]
    light: Choice
    heavy: Choice | None
    heavy_share: float
    loss: float

    @property
    def light_workers(self) -> int:
        """Workers of the light stage."""
        return sum(self.light_on)

    @property
    def heavy_workers(self) -> int:
        """Workers of the heavy stage."""
        return sum(self.heavy_on)

    @property
    def staff(self) -> Staff:
        """The workers of both stages."""
        return Staff(self.light_on, self.heavy_on)

    def throughput(self, stage: Stage) -> float:
        """Prompts per second that the workers of the stage draw in full batches."""
        if stage == "light":
            return self.light.drawn_by(self.light_on)
        return self.heavy.drawn_by(self.heavy_on) if self.heavy else 0.0


def loss_points(curve: Curve) -> Points:
    """The curve as a loss in [0, 1], 0 at its best point, plus HEAVY_PRICE for each unit of heavy share."""
    shares = sorted({0.0, 1.0} | {share for share, _ in curve.points if 0 < share < 1})
    worth = [curve.at(share) * (1 if curve.lower_is_better else -1) for share in shares]
    scale = (max(worth) - min(worth)) or 1.0
    return tuple((h, (q - min(worth)) / scale + HEAVY_PRICE * h) for h, q in zip(shares, worth, strict=True))


def best_share(loss: Points, capacity: float) -> tuple[float, float]:
    """The heavy share in [0, capacity] of least loss, the smallest such, and its loss."""
    limit = min(1.0, max(0.0, capacity))
    within = [(value, h) for h, value in loss if h <= limit]
    for (h0, loss0), (h1, loss1) in pairwise(loss):
        if h0 < limit < h1:
            within.append((loss0 + (loss1 - loss0) * (limit - h0) / (h1 - h0), limit))
    value, share = min(within)
    return share, value


def finish(case: Case, staff: Staff, light: Choice, heavy: Choice | None) -> Solution:
    """The solution of these workers, with the heavy share of least loss that they carry."""
    drawn = heavy.drawn_by(staff.heavy) * case.headroom if heavy else 0.0
    share, loss = best_share(case.loss, drawn / case.demand)
    return Solution(staff.light, staff.heavy, light, heavy, share, loss)


def case_of(
    cascade: Cascade,
    slots: tuple[Slot, ...],
    demand: float,
    deadline_s: float,
    loss: Points,
    in_force: Plan | None = None,
    wait_share: float = WAIT_SHARE,
) -> Case:
    """The case of a (paced) cascade on these slots; `demand` in prompts/s is rounded up to the resolution."""
    pools = pools_of(slots) or (Pool(cascade.gpu, 0, 0, 0),)
    light = worthwhile(choices_of(cascade, "light", pools, wait_share), deadline_s)
    left_s = deadline_s - min((min(choice.latencies) for choice in light), default=deadline_s)
    return Case(
        demand=round_up(max(demand, DEMAND_FLOOR)),
        deadline_s=deadline_s,
        light=light,
        heavy=worthwhile(choices_of(cascade, "heavy", pools, wait_share), left_s),
        pools=pools,
        slots=sum(pool.slots for pool in pools),
        loss=loss,
        counts=staff_of(in_force, pools, slots) if in_force else None,
    )


def round_up(number: float) -> float:
    """The next step of the planner's resolution, for a positive number."""
    return float(RESOLUTION ** math.ceil(math.log(number, RESOLUTION) - 1e-9))
