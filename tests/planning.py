"""What the tests of the planner share: a fleet, a view, a policy by name, and the program by brute force."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Final

from planner.drafting import Policy
from planner.policies import make_policy
from shared.catalog import Cascade, load_cascade
from shared.plans import Plan, Slot, View
from shared.schema import Stage

SDTURBO: Final = load_cascade("sdturbo")
DEADLINE_S: Final = SDTURBO.deadline_s
PEAK: Final = 32.0
PINNED: Final = Path(__file__).with_name("pinned.toml")
BOTH: Final[tuple[Stage, ...]] = ("light", "heavy")


def fleet(count: int, stages: tuple[Stage, ...] = BOTH, node: str = "node") -> tuple[Slot, ...]:
    return tuple(Slot(node, number, SDTURBO.gpu, stages) for number in range(count))


def view(rate: int, slots: tuple[Slot, ...], now: float = 100.0, plan: Plan | None = None) -> View:
    return View(now, (rate,) * 20, slots, plan=plan)


def policy_of(name: str, deadline_s: float = DEADLINE_S, solver: str = "exhaustive", **given: Any) -> Policy:
    """Any policy by its name alone, with a peak and a pinned plan for those that need them."""
    needed: dict[str, Any] = {"peak": PEAK, "pinned": PINNED}
    return make_policy(name, SDTURBO, deadline_s, solver, **(needed | given))


def same(one: Plan, other: Plan) -> bool:
    """Whether two plans decide the same, whoever made them and when."""
    unsaid = {"policy": "", "why": "", "made": 0.0, "solver": "", "solve_ms": 0.0, "version": 0}
    return replace(one, **unsaid) == replace(other, **unsaid)  # type: ignore[arg-type]


def largest_shares(
    cascade: Cascade, demand: float, slots: int, headroom: float, wait_share: float, deadline_s: float = DEADLINE_S
) -> list[float]:
    """The heavy share that each split and batch pair carries: the program by brute force, from the profiles."""
    shares = []
    for light, heavy in product(cascade.batches("light"), cascade.batches("heavy")):
        light_s, heavy_s = cascade.service_s("light", light), cascade.service_s("heavy", heavy)
        if (1 + wait_share) * (light_s + heavy_s) > deadline_s:
            continue
        shares += [
            min(1.0, headroom * (slots - workers) * heavy / heavy_s / demand)
            for workers in range(1, slots)
            if headroom * workers * light / light_s >= demand
        ]
    return shares
