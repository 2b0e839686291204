"""`random`, the control: the heavy share of `quality`, but lots say who escalates. Scored on the lot's curve."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from planner.drafting import Policy, Setup
from planner.policies.same_share import same_share

NAME: Final = "random"


def by_lot(setup: Setup) -> Policy:
    """What `quality` is worth beyond its heavy share shows against this one."""
    return same_share(setup, NAME, lambda plan, _: replace(plan, lot=True))
