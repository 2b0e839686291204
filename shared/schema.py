"""Every Redis key, on one screen, with its lifetime and the reason for it.

All keys of a deployment start with its name in braces: one hash slot on a cluster, and two runs on one
server never mix. Scalars stay readable in redis-cli; only nested values are packed with msgpack.
"""

from __future__ import annotations

from typing import Final, Literal

# Of messages. A newer minor adds fields, which older ones pass on unread; a newer major changes what is there, and its
# messages wait for a worker that knows it. OLDEST_MAJOR: what is read; before it, all nodes had to be upgraded.
VERSION: Final = "1.0"
MAJOR: Final = int(VERSION.partition(".")[0])
OLDEST_MAJOR: Final = 1

Stage = Literal["light", "heavy"]
STAGES: Final[tuple[Stage, ...]] = ("light", "heavy")

# Priority classes, served in this order, each in a stream of its own.
URGENT, NORMAL, BATCH = 0, 1, 2
CLASSES: Final = (URGENT, NORMAL, BATCH)

GROUP: Final = "workers"
# Reserved consumers. Entries handed back wait under RETURNED and keep their order and id; those whose
# batch died wait under SUSPECT and are drawn alone, so that one poisonous prompt can't take others along. What Redis
# itself refused waits there too, idle for RETRY_MS before it is tried again: it must not keep the others out.
RETURNED: Final = "returned"
SUSPECT: Final = "suspect"
RETRY_MS: Final = 1_000
# Entries of a newer major version wait under a consumer of their own, where only workers of that version look. No
# node's name has a colon.
KEPT_FOR: Final = "version:"


def kept_for(major: int) -> str:
    """The reserved consumer of the entries that wait for workers of a major version."""
    return f"{KEPT_FOR}{major}"


def reserved(consumer: str) -> bool:
    """Whether what a consumer holds waits, because it is no worker."""
    return consumer in (RETURNED, SUSPECT) or consumer.startswith(KEPT_FOR)


def node_of(consumer: str) -> str:
    """The node of a worker, whose name as a consumer is `<node>-<slot>-<stage>-<incarnation>`."""
    return consumer.rsplit("-", 3)[0]


NODE_TTL_S: Final = 15.0  # outlives a few missed beats of an agent, not a node that is gone
EVENTS_KEPT: Final = 10_000  # enough for a dashboard that reloads; followers are never further behind
PLANS_KEPT: Final = 1_000
LATEST_VERSION: Final = 2**53 - 1  # of a plan; Lua counts no further, and past it no plan could be newer
DEAD_KEPT: Final = 10_000
AUDIT_KEPT: Final = 1_000  # orders come from people: months of them
MESSAGE_LIMIT: Final = 64 * 1024  # bytes of an entry, names and values; workers see no more than a part of a larger one
LOOK_LIMIT: Final = 64 * MESSAGE_LIMIT  # bytes of entries after which a claim looks at no more of them
LETTER_LIMIT: Final = 32 * 1024  # bytes that a dead letter keeps of a malformed entry
VALUE_LIMIT: Final = 4096  # ... of each of its names and values
COUNT_DIGITS: Final = 15  # of the bytes that pictures take; Lua's numbers are exact to there
CEILING_TTL_S: Final = 3600.0  # a neighbour may have left the GPU since: larger batches are tried again
DEATHS: Final = 3  # workers that may die while they draw a prompt alone, before it fails as poison
WAKE_TOKENS: Final = 64  # more tokens than idle workers would only cause empty looks
# While several classes wait, every such batch starts from a lower one: the highest goes first, but no class starves.
LOWER_EVERY: Final = 8
# Of the server's memory: past it the door refuses, so that what is inside can still be finished.
MEMORY_PERCENT: Final = 80
MEMORY_LOOK_MS: Final = 50  # the door believes what it last heard of the memory for so long
MEMORY_RETRY_S: Final = 5.0  # pictures and outcomes leave by age, not by the second
QUEUE_SHOWN: Final = 1_000  # places of a queue that are told apart; whoever stands behind waits long enough to know

SHARED_WITH_SCRIPTS: Final[dict[str, str | int | float]] = {
    "GROUP": GROUP,
    "RETURNED": RETURNED,
    "SUSPECT": SUSPECT,
    "KEPT_FOR": KEPT_FOR,
    "OURS": kept_for(MAJOR),
    "RETRY_MS": RETRY_MS,
    "MESSAGE_LIMIT": MESSAGE_LIMIT,
    "LOOK_LIMIT": LOOK_LIMIT,
    "LETTER_LIMIT": LETTER_LIMIT,
    "VALUE_LIMIT": VALUE_LIMIT,
    "EVENTS_KEPT": EVENTS_KEPT,
    "PLANS_KEPT": PLANS_KEPT,
    "LATEST_VERSION": LATEST_VERSION,
    "DEAD_KEPT": DEAD_KEPT,
    "AUDIT_KEPT": AUDIT_KEPT,
    "COUNT_DIGITS": COUNT_DIGITS,
    "DEATHS": DEATHS,
    "WAKE_TOKENS": WAKE_TOKENS,
    "LOWER_EVERY": LOWER_EVERY,
    "MEMORY_PERCENT": MEMORY_PERCENT,
    "MEMORY_LOOK_MS": MEMORY_LOOK_MS,
    "MEMORY_RETRY_S": MEMORY_RETRY_S,
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
        # What pictures are kept, by when they were made or last fetched, and how many bytes they are in all.
        self.pictures = f"{root}:pictures"
        self.picture_bytes = f"{root}:picture_bytes"
        # Whether memory runs short, as the door last heard; lives MEMORY_LOOK_MS.
        self.memory = f"{root}:memory"
        # The plan in force, and every plan with the view it was made from.
        self.plan = f"{root}:plan"
        self.plans = f"{root}:plans"
        # What people ordered (`orders.py`), until they take it back, and who ordered what, bounded.
        self.orders = f"{root}:orders"
        self.audit = f"{root}:audit"

    def prompt(self, prompt_id: str) -> str:
        """The prompt's record; lives as long as its pictures. Its creation is the idempotence gate."""
        return f"{self.root}:prompt:{prompt_id}"

    def image(self, prompt_id: str, stage: Stage) -> str:
        """An encoded picture, written by its hop; lives `picture_ttl_s`, from the deadline on if its prompt is open."""
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

    def ceiling(self, model: str, gpu: str) -> str:
        """The largest batch that fits the GPU's memory, once a larger one did not; lives CEILING_TTL_S."""
        return f"{self.root}:ceiling:{model}:{gpu}"

    def leader(self, service: str) -> str:
        """Token of the one process that acts as the service; lives `lease_s`."""
        return f"{self.root}:leader:{service}"
