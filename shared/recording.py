"""A run, live or simulated, as data: its totals, outcomes, plans and looks at the queues.

All times are seconds of the one clock that stamped the outcomes: the server's, or the simulator's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from shared.ledger import Tally
from shared.messages import Outcome
from shared.plans import Plan

_PASSWORD: Final = re.compile(r"(://[^:/@\s]*:)[^@/\s]+@")


@dataclass(frozen=True, slots=True)
class Tick:
    """One look at the deployment. Counts of prompts are cumulative; workers are those ready.

    `threshold` and `demand` (prompts per second) are the plan's.
    """

    time_s: float
    offered: int = 0
    light: int = 0
    heavy: int = 0
    dropped: int = 0
    failed: int = 0
    refused: int = 0
    waiting_light: int = 0
    running_light: int = 0
    waiting_heavy: int = 0
    running_heavy: int = 0
    light_workers: int = 0
    heavy_workers: int = 0
    threshold: float = 0.0
    demand: float = 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """A dead letter, as much of it as people read first: why, in a word and in words, and who had it in hand."""

    id: str
    prompt: str
    why: str
    reason: str
    worker: str
    attempts: int
    finished: float


@dataclass(frozen=True)
class Recording:
    """A run: its totals, its outcomes in order of settlement, its plans and its ticks.

    A run too long to hold all its outcomes gives its `counted` tally instead. `wasted_s`: seconds of a slot
    spent on prompts that no outcome holds. `upgraded`: heavy pictures that came after the light one was the
    answer; None where nobody counted. `pictures`: their folder. `failures`: the dead letters.
    """

    cascade: str
    deadline_s: float
    offered: int
    refused: int
    published: int
    wasted_s: float
    outcomes: tuple[Outcome, ...]
    plans: tuple[Plan, ...]
    ticks: tuple[Tick, ...]
    pictures: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    upgraded: int | None = None
    counted: Tally | None = None
    failures: tuple[Failure, ...] = ()

    @cached_property
    def tally(self) -> Tally:
        """The outcomes, counted."""
        return self.counted or Tally.of(self.outcomes)

    @cached_property
    def start(self) -> float:
        """When the first prompt was published, or the first tick taken, whichever came first."""
        first = min([self.tally.first_published, *(tick.time_s for tick in self.ticks[:1])])
        return first if math.isfinite(first) else 0.0

    @cached_property
    def end(self) -> float:
        """When the last prompt was settled; the start where there is none."""
        return max(self.tally.last_finished, self.start)

    @property
    def public_settings(self) -> dict[str, Any]:
        """The settings as they may be shown: without the passwords in addresses."""
        hidden = {
            name: _PASSWORD.sub(r"\1***@", value) for name, value in self.settings.items() if isinstance(value, str)
        }
        return {**self.settings, **hidden}
