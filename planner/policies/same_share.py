"""Policies that send the same share heavy as `quality`, but let somebody else choose which prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from planner.drafting import Policy, Setup
from planner.policies.quality import NAME as QUALITY
from planner.policies.quality import quality
from shared.plans import Plan, View


def same_share(setup: Setup, name: str, choose: Callable[[Plan, View], Plan]) -> Policy:
    """`quality` with its plans passed through `choose`; counts, batches and the share sent heavy stay its own."""
    decide = quality(setup)

    def policy(view: View) -> Plan:
        before = view.plan
        if before is not None and before.policy == name:  # what `quality` would have put in force
            own = replace(before, policy=QUALITY, lot=False, heavy_direct=0.0, heavy_share=before.heavy_load)
            view = replace(view, plan=own)
        return replace(choose(decide(view), view), policy=name)

    return policy
