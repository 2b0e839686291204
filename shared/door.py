"""Where an offered prompt starts: whoever publishes asks the plan in force, read now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from shared.cascade import routes_heavy
from shared.messages import Route
from shared.plans import Plan

LOOK_S: Final = 1.0  # between two looks at the plan: a planner makes no more than one a second


class Door:
    """Knows the plan in force, at most LOOK_S old; `read` fetches it, `clock` counts seconds."""

    def __init__(self, read: Callable[[], Plan | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._looked = -math.inf
        self._plan: Plan | None = None

    def route(self, prompt: str, prompt_id: str) -> Route:
        """`heavy` for a prompt that the plan sends past light, else `cascade`; raises what `read` raises."""
        if self._clock() - self._looked >= LOOK_S:
            self._plan, self._looked = self._read(), self._clock()
        return "heavy" if self._plan is not None and routes_heavy(prompt, prompt_id, self._plan) else "cascade"
