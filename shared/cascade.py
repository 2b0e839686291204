"""The rules of the cascade: pure functions on plain data, used live and simulated alike."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Literal

from shared.messages import Route
from shared.plans import Plan
from shared.schema import Stage

Decision = Literal["escalate", "confident", "no_time", "light_only"]
Verdict = Literal["wait", "keep_light", "to_light", "drop"]

NO_TIME: Final = "no_time"
# Far below the step of the recorded scores (1e-4), so that only equal ones change their order.
JITTER: Final = 1e-6


def draw_lot(prompt_id: str) -> float:
    """A number in [0, 1) that belongs to the prompt: breaks ties and serves the random control."""
    # A checksum is uneven over ids that count up; a cryptographic hash is not.
    return int.from_bytes(blake2b(prompt_id.encode(), digest_size=6).digest()) / 2**48


def recorded_score(scores: Sequence[float], prompt_id: str, index: object) -> float:
    """The recorded P(real) of a prompt, in [0, 1], for who draws nothing: the sleeping backend and the simulator.

    Looked up by `index` modulo the number of scores, or by a hash of the id where there is no such number.
    Equal scores are told apart by the id. Without any record, scores spread evenly.
    """
    lot = draw_lot(prompt_id)
    if not scores:
        return lot
    place = index if isinstance(index, int) else zlib.crc32(prompt_id.encode())
    return scores[place % len(scores)] * (1 - JITTER) + lot * JITTER


def looks_weak(score: float, prompt_id: str, plan: Plan) -> bool:
    """Whether the score lies below the threshold; ties fall by lot, so that any share can be met."""
    if plan.lot:
        return draw_lot(prompt_id) < plan.heavy_share
    if score == plan.threshold:
        return draw_lot(prompt_id) < plan.tie_share
    return score < plan.threshold


def heavy_time_s(backlog: int, plan: Plan) -> float:
    """Seconds until the heavy stage has drawn one more prompt, with `backlog` prompts before it."""
    throughput = plan.throughput("heavy")
    if throughput <= 0:
        return float("inf")
    # The last batch is already leaving the queue while the ones before it are drawn.
    wait_s = max(0.0, backlog - plan.heavy_workers * plan.heavy_batch / 2) / throughput
    return wait_s + plan.heavy_service_s


def decide(score: float, prompt_id: str, route: Route, time_left_s: float, backlog: int, plan: Plan) -> Decision:
    """What becomes of a light picture: escalated, or the answer with the reason why."""
    if route == "light":
        return "light_only"
    if not looks_weak(score, prompt_id, plan):
        return "confident"
    if heavy_time_s(backlog, plan) > time_left_s:
        return NO_TIME
    return "escalate"


def verdict(
    stage: Stage, has_light: bool, time_left_s: float, light_s: float, margin_s: float, alone_s: float = 0.0
) -> Verdict:
    """What the keeper does with an open prompt.

    `stage`: where it waits or runs; `light_s`: seconds until a light worker has drawn it, queue included;
    `alone_s`: seconds it takes alone and at once: with less, no move helps.
    """
    if has_light:
        return "keep_light" if time_left_s <= margin_s else "wait"
    if stage == "heavy" and 0 < time_left_s <= margin_s + light_s:
        # Too late for light: it may be running on heavy and be done in time.
        return "to_light" if time_left_s >= alone_s else "wait"
    return "drop" if time_left_s <= 0 else "wait"


def hopeless(deadline: float, now: float, service_s: float) -> bool:
    """Whether a waiting prompt can no longer be drawn by its deadline, even alone and at once."""
    return now + service_s > deadline


def light_wait_s(backlog: int, plan: Plan) -> float:
    """Seconds until a prompt published now has its light picture; infinite without light workers."""
    throughput = plan.throughput("light")
    if throughput <= 0:
        return float("inf")
    return backlog / throughput + plan.light_service_s


@dataclass(frozen=True, slots=True)
class Waiting:
    """A prompt in a queue: when it came and when it is due."""

    since: float
    deadline: float


@dataclass(frozen=True, slots=True)
class Take:
    """How many to take from the head of the queue now (0: none), and when to ask again."""

    count: int
    ask_again_s: float


def batch_to_take(queue: Sequence[Waiting], now: float, batch: int, hold_s: float, service_s: Sequence[float]) -> Take:
    """How many prompts an idle worker takes from the head of its queue.

    `queue`: the head, in order; `service_s[n - 1]`: seconds for a batch of n, n <= batch.
    Taken prompts include hopeless ones on the way, which are settled and not drawn. The batch is never
    larger than its most urgent member can bear; a part-filled one is held until its oldest member has
    waited `hold_s`, or until one more member would cost the most urgent one its deadline.
    `lua/claim.lua` says the same in Lua; a test holds the two together.
    """
    places = [i for i, item in enumerate(queue) if not hopeless(item.deadline, now, service_s[0])]
    if not places:
        return Take(len(queue), 0.0)
    full = min(len(places), batch)
    count = full
    while count > 1 and now + service_s[count - 1] > min(queue[i].deadline for i in places[:count]):
        count -= 1
    if count == full and count < batch:
        urgent = min(queue[i].deadline for i in places)
        latest = min(min(queue[i].since for i in places) + hold_s, urgent - service_s[count])
        if now < latest:
            return Take(0, latest - now)
    return Take(places[count - 1] + 1, 0.0)
