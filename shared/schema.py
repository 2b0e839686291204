"""Every Redis key, on one screen, with its lifetime and the reason for it.

All keys of a deployment start with its name in braces: one hash slot on a cluster, and two runs on one
server never mix. Scalars stay readable in redis-cli; only nested values are packed with msgpack.
"""

from __future__ import annotations

from typing import Final, Literal

Stage = Literal["light", "heavy"]
STAGES: Final[tuple[Stage, ...]] = ("light", "heavy")

# Priority classes, served in this order, each in a stream of its own.
URGENT, NORMAL, BATCH = 0, 1, 2
CLASSES: Final = (URGENT, NORMAL, BATCH)

GROUP: Final = "workers"
# Reserved consumers. Entries handed back wait under RETURNED and keep their order and id; those whose
# batch died wait under SUSPECT and are drawn alone, so that one poisonous prompt can't take others along.
RETURNED: Final = "returned"
SUSPECT: Final = "suspect"

NODE_TTL_S: Final = 15.0  # outlives a few missed beats of an agent, not a node that is gone
EVENTS_KEPT: Final = 10_000  # enough for a dashboard that reloads; followers are never further behind
PLANS_KEPT: Final = 1_000
DEAD_KEPT: Final = 10_000
WAKE_TOKENS: Final = 64  # more tokens than idle workers would only cause empty looks

SHARED_WITH_SCRIPTS: Final[dict[str, str | int]] = {
    "GROUP": GROUP,
    "RETURNED": RETURNED,
    "SUSPECT": SUSPECT,
    "EVENTS_KEPT": EVENTS_KEPT,
    "PLANS_KEPT": PLANS_KEPT,
    "DEAD_KEPT": DEAD_KEPT,
    "WAKE_TOKENS": WAKE_TOKENS,
}


class Keys:
    """The keys of one deployment."""

    def __init__(self, deployment: str) -> None:
        root = "{" + deployment + "}"
        self.root = root
        # Prompts waiting or running, one stream per stage and class; an entry is deleted when settled.
        self.streams: dict[Stage, tuple[str, ...]] = {
            stage: tuple(f"{root}:stage:{stage}:{priority}" for priority in CLASSES) for stage in STAGES
        }
        # Every open prompt by its deadline, from publish to settlement: what the keeper watches.
        self.due = f"{root}:due"
        # One outcome per prompt; trimmed by age.
        self.done = f"{root}:done"
        # The full record of the failed ones; kept, bounded.
        self.dead = f"{root}:dead"
        # Light ready, settled, upgraded, plan changed: what windows and recorders follow.
        self.events = f"{root}:events"
        # One token wakes one idle worker of the stage.
        self.wake: dict[Stage, str] = {stage: f"{root}:wake:{stage}" for stage in STAGES}
        # Counters of everything that ever happened, written inside the scripts.
        self.totals = f"{root}:totals"
        # The plan in force, and every plan with the view it was made from.
        self.plan = f"{root}:plan"
        self.plans = f"{root}:plans"

    def prompt(self, prompt_id: str) -> str:
        """The prompt's record; lives as long as its pictures. Its creation is the idempotence gate."""
        return f"{self.root}:prompt:{prompt_id}"

    def image(self, prompt_id: str, stage: Stage) -> str:
        """An encoded picture, written by the hop that made it; lives `picture_ttl_s`."""
        return f"{self.root}:image:{prompt_id}:{stage}"

    def node(self, name: str) -> str:
        """What an agent says of its node; lives NODE_TTL_S."""
        return f"{self.root}:node:{name}"

    def worker(self, worker_id: str) -> str:
        """A worker's lease and what it says of itself; lives `lease_s`, renewed every quarter of it."""
        return f"{self.root}:worker:{worker_id}"

    def slot(self, node: str, slot: int) -> str:
        """Token of the one process that may draw on the slot; lives `lease_s`."""
        return f"{self.root}:slot:{node}:{slot}"

    def leader(self, service: str) -> str:
        """Token of the one process that acts as the service; lives `lease_s`."""
        return f"{self.root}:leader:{service}"
