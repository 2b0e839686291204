"""What the report of `analysis.scale` says between its tables."""

from __future__ import annotations

from typing import Final

LIMITS: Final = """
Prompts/s: all that so many A100s draw by the profiles at 90 % load. Shares of one core, of {memory:g} GiB and
{network:g} Gbit/s each way; *plan*: of the {plan_slots:,} slots that one plan can name. *Pictures*: of their
budget, 1/{budget} of the memory, if each stays for its {ttl_s:.0f} s; above it they leave earlier, and nothing
else suffers. (The compose file gives Redis 2 GiB: `REDIS_MEMORY` says more.) A picture has {bits} bits a pixel,
as one photograph had at the encoder's settings: assumed. Records and outcomes are counted for {keep_s:,.0f} s, which
is more than records stay.
"""
ENDS: Final = """
The fewest GPUs that want more than there is. In bold what comes first; pictures that leave early end nothing.
"""
AFTER: Final = """
Pictures are what fills a Redis first: `CASCADE_PICTURES_AT` sends them to a second Redis or a folder. What ends
next is its one core, by prompts on fast cascades and by idle workers and their agents on slow ones; where all is
drawn light, the memory of outcomes, which `CASCADE_DONE_KEEP_S` shortens. A plan that names more than
{plan_slots:,} slots is refused by Redis (`too many results to unpack`), and the last plan stays in force.
"""
CLUSTER: Final = """
All keys of a deployment begin with its name in braces: they lie in one hash slot, on one node, and no command or
script spans nodes. A cluster therefore carries more deployments, not a larger one. `REDIS_URL` may name any node:
a connection asks for a key of the deployment first and goes on to the node that it is sent to, and does so again
when the slot has moved (while it is being moved, the deployment waits). `python -m services.ctl where` tells slot
and node. A fleet that is too large is cut into deployments, each with its own gateway, control and keeper; a
balancer before the gateways spreads prompts.
"""
SPREADING: Final = """
Hashing spreads few names unevenly: {spread}. Few large deployments are placed by hand: by their names, or with
`redis-cli --cluster reshard`, which moves a slot with all that is in it.
"""
SIMULATED: Final = """
Made-up types: {types}; nodes of {node}. The traces ({traces}) with as many more prompts as the fleet
draws more than the published one, squeezed into {time_factor:g} of their length; solver {solver}. *by lot* is the
random control: the same heavy share drawn by lot, on a curve that is assumed. Solve times are of the wall on this
machine, which others used too; processor: the whole simulation.
"""


def said(text: str, **fields: object) -> str:
    """A paragraph on one line."""
    return " ".join(text.format(**fields).split())
