"""What is simulated: a cascade on a fleet under a policy, and what goes wrong meanwhile."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from planner.drafting import Policy
from shared.catalog import Cascade
from shared.config import Resident
from shared.errors import SettingsError
from shared.plans import Slot
from shared.schema import Stage

POSITIVE: Final = ("deadline_s", "plan_period_s", "lease_s", "repair_s", "mean_time_between_failures_s")
NOT_NEGATIVE: Final = ("margin_s", "overhead_s", "turnaround_s", "switch_s", "load_s", "swap_s", "jitter_s")
LEAST_LIFE_S: Final = 0.01  # workers that die faster do nothing else, and time would stand still


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated, all times in seconds.

    `overhead_s`: what drawing a batch takes beyond the profile; `turnaround_s`: from the last picture of a batch to
    its commit and the next claim. Both as measured on live runs with sleeping workers. `switch_s`: a slot
    passes from one loaded model to the other. Where they are not both loaded (`resident`), what the profile says of
    loading or swapping the new one is added; `load_s` and `swap_s` are for those of which it says nothing.
    `mean_time_between_failures_s`: of one worker, which is gone for `repair_s`; its prompts come back after
    `lease_s`. `jitter_s`: each batch takes up to this much longer, by lot.
    """

    cascade: Cascade
    slots: tuple[Slot, ...]
    policy: Policy
    deadline_s: float
    seed: int = 0
    plan_period_s: float = 1.0
    margin_s: float = 0.15
    overhead_s: float = 0.0005
    turnaround_s: float = 0.003
    switch_s: float = 0.05
    resident: Resident = True
    load_s: float = 5.0
    swap_s: float = 1.0
    lease_s: float = 2.0
    mean_time_between_failures_s: float = math.inf
    repair_s: float = 20.0
    jitter_s: float = 0.0
    keep_outcomes: bool = True

    def __post_init__(self) -> None:
        """Raises SettingsError for times that are none."""
        if not self.slots:
            raise SettingsError("slots: there are none")
        for name in POSITIVE:
            _check(name, getattr(self, name), getattr(self, name) > 0)
        for name in NOT_NEGATIVE:
            _check(name, getattr(self, name), getattr(self, name) >= 0)
        if self.mean_time_between_failures_s < LEAST_LIFE_S:
            raise SettingsError(f"mean_time_between_failures_s: must be at least {LEAST_LIFE_S}")

    def turn_s(self, stage: Stage, gpu: str) -> float:
        """Seconds until a slot with such a GPU draws for the stage, from the last picture of the other."""
        known = self.cascade.profiles[stage].get(gpu) or self.cascade.profile(stage)
        measured_s = known.turn_s(self.resident)
        assumed_s = self.swap_s if self.resident else self.load_s
        return self.switch_s + (assumed_s if measured_s is None else measured_s)


def _check(name: str, value: float, good: bool) -> None:
    if not good or (value == math.inf and name != "mean_time_between_failures_s"):
        kind = "positive" if name in POSITIVE else "not negative"
        raise SettingsError(f"{name}: must be finite and {kind}, got {value}")


def fleet(gpus: int, gpu: str, node: str = "sim") -> tuple[Slot, ...]:
    """So many slots of one GPU type on one node."""
    return tuple(Slot(node, number, gpu) for number in range(gpus))
