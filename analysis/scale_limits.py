"""What one Redis carries: what prompts, pictures and idle workers take of it, and which limit a fleet meets first.

The costs are those that `make bench BENCH="queue polling"` measured, in `results/bench.csv`; how much a fleet draws is
what the profiles say. All of it is arithmetic: it tells where to look, not what a machine of yours will do.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from analysis.bound import pairs_in_time
from planner.milp import HEADROOM, best_share, loss_points
from shared.catalog import Cascade
from shared.config import Settings
from shared.errors import SettingsError
from shared.schema import PLANS_KEPT

BENCH: Final = Path(__file__).parent / "results" / "bench.csv"
SLOTS_A_NODE: Final = 8
BITS_A_PIXEL: Final = 2.2  # of WebP at the encoder's quality 92: a photograph of 512 x 512; assumed of other sizes
KIB: Final = 1024
PICTURES_A_PROMPT: Final = 1.4  # of the prompts that were measured
LOOK_SLOTS: Final = 1_000  # of the fleet that was looked at
PERIOD_S, SETTLED_PERIOD_S = 1.0, 5.0  # an agent's looks at the plan, and for its workers
SLOT_BYTES: Final = 24  # of a slot in a plan that is kept
# Lua hands no more than 8,000 values to one command: a plan's script passes every field of it, two values a slot.
PLAN_SLOTS: Final = 3_950
RESOURCES: Final = ("core", "memory", "network", "plan", "pictures")
SOFT: Final = "pictures"  # past its end pictures only leave before their time
BUDGET_SHARE: Final = 4  # pictures are given one part in so many of the memory, as by default
LARGEST: Final = 100_000  # slots up to which an end is sought


@dataclass(frozen=True, slots=True)
class Costs:
    """What is taken of Redis: seconds of a core for a prompt without pictures, for a byte of a picture, and each second
    for a slot and for each pair of slots, as agents look at the whole fleet.

    `left_bytes`: a prompt's record and outcome. `whole_per_s`: prompts a second that went all the way through one Redis
    and one worker a stage, clients and server on one machine.
    """

    prompt_s: float
    byte_s: float
    slot_s: float
    pair_s: float
    left_bytes: float
    whole_per_s: float


@dataclass(frozen=True, slots=True)
class Host:
    """Where Redis runs: seconds of a core a second, bytes, and bytes a second each way that it may use."""

    cores: float = 1.0
    memory_bytes: float = 16 * 2**30
    network_bytes_per_s: float = 10e9 / 8


@dataclass(frozen=True, slots=True)
class Load:
    """What a fleet asks of Redis: slots, prompts a second, the heavy share in [0, 1], bytes of a picture, seconds kept.

    `elsewhere`: pictures live in another place (`pictures_at`).
    """

    slots: int
    prompts_per_s: float
    heavy_share: float
    picture_bytes: float
    elsewhere: bool = False
    ttl_s: float = Settings.model_fields["picture_ttl_s"].default
    keep_s: float = Settings.model_fields["done_keep_s"].default

    @property
    def bytes_per_s(self) -> float:
        """Bytes of pictures that Redis is given each second."""
        return 0.0 if self.elsewhere else self.prompts_per_s * (1 + self.heavy_share) * self.picture_bytes


def measured(path: Path = BENCH) -> Costs:
    """The costs from a table of `make bench`; raises SettingsError that names what is missing."""
    try:
        with path.open(newline="") as file:
            found = {row["figure"]: float(row["value"]) for row in csv.DictReader(file)}
        bare, large = (found[f"a prompt, batches of 8, pictures of {kib} KiB, Redis"] for kib in (0, 192))
        slot_us = found["polling, 200 slots with both processes, Redis for each"]
        plan_us = found[f"an agent's look at the plan, {LOOK_SLOTS:,} slots, Redis"]
        names_us = found[f"an agent's look for its workers, {LOOK_SLOTS:,} slots, Redis"]
        left = found["a prompt, batches of 8, pictures of 0 KiB, bytes left"]
        whole = found["queue, appendfsync everysec"]
    except (OSError, KeyError, ValueError) as wrong:
        raise SettingsError(f"{path}: {wrong}; `make bench BENCH='queue polling'` measures it") from None
    looks_us = plan_us / PERIOD_S + names_us / SETTLED_PERIOD_S
    pair_s = looks_us * 1e-6 / LOOK_SLOTS / SLOTS_A_NODE
    byte_s = (large - bare) * 1e-6 / (192 * KIB * PICTURES_A_PROMPT)
    return Costs(bare * 1e-6, byte_s, slot_us * 1e-6 - 200 * pair_s, pair_s, left, whole)


def taken(load: Load, costs: Costs, host: Host) -> Mapping[str, float]:
    """The share of each resource that a load takes; 1 is all of it.

    `memory`: all but pictures; `pictures`: of their budget, if each is to stay for its whole time.
    """
    core = load.prompts_per_s * costs.prompt_s + load.bytes_per_s * costs.byte_s
    core += load.slots * costs.slot_s + load.slots**2 * costs.pair_s
    memory = load.prompts_per_s * costs.left_bytes * load.keep_s + PLANS_KEPT * load.slots * SLOT_BYTES
    budget = host.memory_bytes / BUDGET_SHARE
    return {
        "core": core / host.cores,
        "memory": memory / (host.memory_bytes - budget),
        "network": load.bytes_per_s / host.network_bytes_per_s,
        "plan": load.slots / PLAN_SLOTS,
        "pictures": load.bytes_per_s * load.ttl_s / budget,
    }


def best_heavy_share(cascade: Cascade) -> float:
    """The heavy share at which quality is best."""
    return best_share(loss_points(cascade.curve()), 1.0)[0]


def drawn_per_s(cascade: Cascade, slots: float, heavy_share: float) -> float:
    """Prompts a second that so many GPUs of the cascade's own type draw, with the planner's headroom."""
    pairs = pairs_in_time(cascade, cascade.deadline_s)
    return HEADROOM * max(slots / (1 / light + heavy_share / heavy) for light, heavy in pairs)


def load_of(cascade: Cascade, slots: int, heavy_share: float, *, elsewhere: bool = False) -> Load:
    """What a fleet asks that draws as much as it can at a heavy share."""
    pixels = cascade.models["light"].size ** 2
    rate = drawn_per_s(cascade, slots, heavy_share)
    return Load(slots, rate, heavy_share, pixels * BITS_A_PIXEL / 8, elsewhere)


def ends(cascade: Cascade, heavy_share: float, costs: Costs, host: Host, *, elsewhere: bool = False) -> dict[str, int]:
    """The fewest slots whose load is more than the host has of each resource; LARGEST where not even that many are."""

    def too_many(slots: int, resource: str) -> bool:
        return taken(load_of(cascade, slots, heavy_share, elsewhere=elsewhere), costs, host)[resource] > 1

    found: dict[str, int] = {}
    for resource in RESOURCES:
        low, high = 0, LARGEST
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if too_many(middle, resource) else (middle, high)
        found[resource] = high
    return found


def deployments_needed(load: Load, costs: Costs, host: Host, share: float = 0.5) -> int:
    """Into how many deployments of equal size a fleet is cut so that each takes at most a share of a node."""
    for parts in range(1, load.slots + 1):
        part = replace(load, slots=math.ceil(load.slots / parts), prompts_per_s=load.prompts_per_s / parts)
        if max(part_taken for name, part_taken in taken(part, costs, host).items() if name != SOFT) <= share:
            return parts
    return load.slots
