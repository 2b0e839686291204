"""`hybrid`: a share of the prompts that look hard skips light, after HADIS (arXiv 2509.00642); the rest cascades.

The heavy share is that of `quality`; half of it is chosen by the router, from the prompt alone, and half by the
discriminator, from the picture. What the router chose counts on the lot's curve: nobody measured a better one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from planner.deferral import UNIFORM, deferral
from planner.drafting import Policy, Setup
from planner.policies.same_share import same_share
from shared.plans import Plan, View

NAME: Final = "hybrid"
# Of the heavy share. In the middle: the best settings of HADIS's own table (hybrid.csv) leave the router most of
# it (71 to 98 %), where by the same table it chooses no better than chance.
ROUTED: Final = 0.5
_LOOKS: Final = tuple(-hardness for hardness in UNIFORM)


def hybrid(setup: Setup) -> Policy:
    """The threshold is set so that of those who pass light just so many escalate that the shares add up."""
    recorded = setup.cascade.scores

    def skip_light(plan: Plan, view: View) -> Plan:
        if not plan.heavy_share:
            return plan
        direct = ROUTED * plan.heavy_share
        scores = deferral(view.scores, recorded)
        share, eager = ((each - direct) / (1 - direct) for each in (plan.heavy_share, plan.eager_share))
        threshold, tie_share = scores.threshold_for(share)
        above, direct_tie_share = hardest(view.hardness, direct)
        return replace(
            plan,
            threshold=threshold,
            tie_share=tie_share,
            heavy_share=share,
            eager_threshold=scores.threshold_for(eager)[0],
            eager_share=max(0.0, eager),
            heavy_direct=direct,
            direct_above=above,
            direct_tie_share=direct_tie_share,
            why=f"{plan.why}; {direct:.2f} look hard and skip light",
        )

    return same_share(setup, NAME, skip_light)


def hardest(hardness: Sequence[float], share: float) -> tuple[float, float]:
    """`(direct_above, direct_tie_share)` that single out this share, from the newest prompts; uniform before any."""
    # The hardest are the lowest of the negated, so that one rule finds both percentiles.
    lowest, tie_share = deferral([-each for each in hardness], _LOOKS).threshold_for(share)
    return -lowest, tie_share
