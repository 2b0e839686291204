"""The clairvoyant fluid bound: what a planner that knows each window's true rate could reach at most.

Each window of 5 s is planned for itself, with whole workers at the best pair of batches whose seconds, discriminator
included, meet the deadline without any wait; prompts flow like water and batches are always full. Qualities are
weighted by the prompts of the windows. `MARGIN` plans for 5 % more than comes, as the DiffServe paper does
(MLSys 2025, arXiv 2411.15381): no other variant tried came as near to the figures stated for the published traces,
16.87 for 16.88, 17.32 for 17.3, 16.87, 17.00 and 17.17 for 17.18 on cascades 1 and 2, 26.22 for 26.3 on cascade 3.
Without it, `margin=1`, the best qualities lie 0.02 to 0.25 lower.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from planner.milp import best_share, loss_points
from shared.catalog import Cascade
from shared.errors import SettingsError
from shared.ledger import WINDOW_S
from traces.read import Arrival

MARGIN: Final = 1.05
Pair = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Bound:
    """Quality without violations: at the best heavy share, and at the largest one (the highest threshold).

    `violation`: the share of the prompts that even all slots light could not draw in time.
    """

    best_quality: float
    highest_threshold: float
    violation: float


def bound(arrivals: Iterable[Arrival], cascade: Cascade, gpus: int, deadline_s: float, margin: float = MARGIN) -> Bound:
    """The bound on so many GPUs of the cascade's own type; raises SettingsError where there is nothing to bound."""
    times = sorted(arrival.at_s for arrival in arrivals)
    if not times or gpus < 1:
        raise SettingsError(f"a bound needs prompts and GPUs, got {len(times)} and {gpus}")
    curve = cascade.curve()
    loss = loss_points(curve)
    pairs = pairs_in_time(cascade, deadline_s)
    prompts = Counter(int(time // WINDOW_S) for time in times)
    best = highest = 0.0
    for count in prompts.values():
        share = largest_share(pairs, gpus, margin * count / WINDOW_S)
        best += count * curve.at(best_share(loss, share)[0])
        highest += count * curve.at(share)
    return Bound(best / len(times), highest / len(times), missed(times, cascade, gpus, deadline_s) / len(times))


def pairs_in_time(cascade: Cascade, deadline_s: float) -> list[Pair]:
    """Prompts per second of one light and one heavy worker, for each pair of batches that meets the deadline."""
    seconds = {
        stage: [(batch, cascade.service_s(stage, batch)) for batch in cascade.batches(stage)]
        for stage in cascade.profiles
    }
    return [
        (light / light_s, heavy / heavy_s)
        for light, light_s in seconds["light"]
        for heavy, heavy_s in seconds["heavy"]
        if light_s + heavy_s <= deadline_s
    ]


def largest_share(pairs: Iterable[Pair], gpus: int, rate: float) -> float:
    """The largest heavy share in [0, 1] that the GPUs carry at `rate` prompts/s, all of which light draws first."""
    shares = [0.0]
    for light, heavy in pairs:
        left = gpus - math.ceil(rate / light - 1e-9)
        shares.append(min(1.0, max(0, left) * heavy / rate))
    return max(shares)


def missed(times: Sequence[float], cascade: Cascade, gpus: int, deadline_s: float) -> float:
    """Prompts that no plan can draw in time, for any batch: a fluid queue before all GPUs, each of them light."""
    found = [float(len(times))]
    for batch in cascade.batches("light"):
        service_s = cascade.service_s("light", batch)
        if service_s <= deadline_s:
            found.append(_turned_away(times, gpus * batch / service_s, deadline_s - service_s))
    return min(found)


def _turned_away(times: Sequence[float], throughput: float, longest_wait_s: float) -> int:
    """How many find more than `longest_wait_s` seconds of work before them. Who must miss shall not delay others."""
    turned_away, waiting, before = 0, 0.0, times[0]
    for time in times:
        waiting = max(0.0, waiting - (time - before) * throughput)
        before = time
        if waiting > longest_wait_s * throughput:
            turned_away += 1
        else:
            waiting += 1
    return turned_away
