"""The rules of the cascade: pure functions on plain data, used live and simulated alike."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Literal, Protocol

from shared.messages import Route
from shared.plans import Plan
from shared.schema import CLASSES, LOWER_EVERY, Stage

Decision = Literal["escalate", "confident", "no_time", "light_only", "moved"]
Verdict = Literal["wait", "keep_light", "to_light", "drop"]

NO_TIME: Final = "no_time"
LONGEST_LIGHT_S: Final = 10.0  # a crowded light stage must not pull every prompt from heavy
# Far below the step of the recorded scores (1e-4), so that only equal ones change their order.
JITTER: Final = 1e-6

WORDS: Final = re.compile(r"\w+")
PARTS: Final = re.compile(r"[,;:&+]")
PART_WEIGHT: Final = 2.0  # words that one more part of the picture counts for
TRYING_WEIGHT: Final = 5.0  # ... and one more kind of thing that is hard to draw
HALF_HARD: Final = 30.0  # words of a plain prompt that looks half hard
TRYING: Final = frozenset((
    "hand", "hands", "finger", "fingers", "face", "faces", "crowd", "people", "group", "team", "army", "text",
    "letters", "words", "sign", "writing", "logo", "number", "two", "three", "four", "five", "six", "seven",
    "eight", "nine", "ten", "many", "several", "each", "reflection", "mirror", "behind", "between", "holding",
))  # fmt: skip


def draw_lot(prompt_id: str, purpose: str = "") -> float:
    """A number in [0, 1) that belongs to the prompt: breaks ties and serves the random control.

    Lots of different purposes (at most 16 bytes) have nothing to do with each other.
    """
    # A checksum is uneven over ids that count up; a cryptographic hash is not.
    return int.from_bytes(blake2b(prompt_id.encode(), digest_size=6, person=purpose.encode()).digest()) / 2**48


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


@lru_cache(maxsize=8192)
def hardness(prompt: str) -> float:
    """How hard the prompt looks, in [0, 1): long ones, of many parts, with things that small models draw badly.

    A rule after the router of HADIS (arXiv 2509.00642), which chose no better than by lot, and nor does this
    one: over the 5,000 published prompts its rank correlation with the recorded score of SD-Turbo is +0.03,
    where a good router's would be well below 0. What it sends counts on the lot's curve.
    """
    words = WORDS.findall(prompt.lower())
    load = len(words) + PART_WEIGHT * len(PARTS.findall(prompt)) + TRYING_WEIGHT * len(TRYING.intersection(words))
    return load / (load + HALF_HARD)


def routes_heavy(prompt: str, prompt_id: str, plan: Plan) -> bool:
    """Whether the plan sends the prompt straight to heavy: by lot, or the hardest ones; ties fall by lot."""
    if not 0 < plan.heavy_direct < 1:
        return plan.heavy_direct >= 1
    # A lot of its own: whoever escalates by lot must not be those who came past this door.
    lot = draw_lot(prompt_id, "route")
    if plan.lot:
        return lot < plan.heavy_direct
    looks = hardness(prompt)
    return lot < plan.direct_tie_share if looks == plan.direct_above else looks > plan.direct_above


def first_stage(route: Route, plan: Plan | None) -> Stage:
    """Where a prompt of a route starts; `lua/publish.lua` says the same in Lua.

    One that was to skip light does not, while heavy has no worker: it would wait until light can hardly draw it.
    """
    nobody = plan is not None and plan.throughput("heavy") <= 0 < plan.throughput("light")
    return "heavy" if route == "heavy" and not nobody else "light"


def looks_weak(score: float, prompt_id: str, plan: Plan) -> bool:
    """Whether the score lies below the threshold; ties fall by lot, so that any share can be met."""
    if plan.lot:
        return draw_lot(prompt_id) < plan.heavy_share
    if score == plan.threshold:
        return draw_lot(prompt_id) < plan.tie_share
    return score < plan.threshold


def could_gain(score: float, prompt_id: str, plan: Plan) -> bool:
    """Whether a prompt that does not look weak is still worth a heavy picture where one costs nobody else his."""
    if plan.lot:
        return draw_lot(prompt_id) < plan.eager_share
    return score < plan.eager_threshold


def heavy_time_s(waiting: int, plan: Plan) -> float:
    """Seconds until the heavy stage has drawn one more prompt while `waiting` prompts stand before it.

    A worker is free `service / workers` apart in the mean, and each takes a full batch. Its last member waits
    for no worker: the estimate errs on the side of trying, for a light picture is there to fall back on.
    """
    if plan.throughput("heavy") <= 0:
        return float("inf")
    batches_before = waiting // plan.heavy_batch
    return plan.heavy_service_s * (1 + batches_before / plan.heavy_workers)


def decide(score: float, prompt_id: str, route: Route, time_left_s: float, waiting: int, plan: Plan) -> Decision:
    """What becomes of a light picture: escalated, or the answer with the reason why.

    `waiting`: prompts that wait for heavy. While they are less than a batch, whoever could gain escalates: the
    threshold is set for the demand as planned, with headroom, and a heavy worker shall not idle for its sake.
    """
    if route != "cascade":  # one that was to be heavy came here because heavy could not draw it in time
        return "light_only" if route == "light" else "moved"
    in_time = heavy_time_s(waiting, plan) <= time_left_s
    if looks_weak(score, prompt_id, plan):
        return "escalate" if in_time else NO_TIME
    if in_time and waiting < plan.heavy_batch and could_gain(score, prompt_id, plan):
        return "escalate"
    return "confident"


def verdict(
    stage: Stage, has_light: bool, time_left_s: float, light_s: float, margin_s: float, alone_s: float = 0.0
) -> Verdict:
    """What the keeper does with an open prompt.

    `stage`: where it waits or runs; `light_s`: see `last_call_s`; `alone_s`: seconds light takes for it alone and
    at once: with less, no move helps. None helps either where `light_draws` says no.
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


def lets_go(
    stage: Stage, has_light: bool, deadline: float, now: float, service_s: Sequence[float], margin_s: float, plan: Plan
) -> bool:
    """Whether a worker lets a prompt go that it has claimed, instead of drawing it.

    `service_s[n - 1]`: seconds for a batch of n, up to the batch as claimed. One that can't be drawn in time even
    alone; and one without a picture that heavy would draw with less than `margin_s` to spare, while light still can.
    """
    if hopeless(deadline, now, service_s[0]):
        return True
    if stage == "light" or has_light or not light_draws(plan):
        return False
    return hopeless(deadline, now, service_s[-1] + margin_s)


def light_draws(plan: Plan | None) -> bool:
    """Whether light may draw what leaves heavy without a picture; not where the plan has no light worker."""
    return plan is None or plan.light_workers > 0


def wait_s(stage: Stage, ahead: float, plan: Plan) -> float:
    """Seconds until a stage has drawn one more prompt while so many stand before it; infinite without workers."""
    throughput = plan.throughput(stage)
    if throughput <= 0:
        return float("inf")
    return ahead / throughput + plan.service_s(stage)


def light_wait_s(backlog: int, plan: Plan) -> float:
    """Seconds until a prompt published now has its light picture; infinite without light workers."""
    return wait_s("light", backlog, plan)


def door_wait_s(route: Route, ahead: Mapping[Stage, float], plan: Plan) -> float:
    """Seconds until a prompt published now is drawn; infinite where the plan does not say.

    `ahead`: prompts that stand before it in each stage. One that skips light still has light as its way out.
    `lua/publish.lua` says the same in Lua; a test holds the two together.
    """
    stages: tuple[Stage, ...] = ("light", "heavy") if route == "heavy" else ("light",)
    return min(wait_s(stage, ahead[stage], plan) for stage in stages)


def stands_before(waiting: Sequence[int], running: Sequence[int], priority: int) -> float:
    """Prompts that a stage draws before a new one of a class; `waiting` and `running` count them by class.

    Those of its own class or a higher one, whatever a worker has in its hands, and of the lower ones as many as
    the batches that start from below let pass.
    """
    ahead = sum(running) + sum(waiting[: priority + 1])
    return ahead + min(sum(waiting[priority + 1 :]), ahead / (LOWER_EVERY - 1))


def class_order(turn: int) -> tuple[int, ...]:
    """The order in which a batch takes the classes; `turn` counts the batches taken while several classes wait.

    The highest goes first; every LOWER_EVERY-th batch starts from a lower class, the lowest and the middle one in
    turn, so that each class gets its share however crowded those above it are. `lua/claim.lua` says the same in
    Lua; a test holds the two together.
    """
    times, place = divmod(turn, LOWER_EVERY)
    if place < LOWER_EVERY - 1:
        return CLASSES
    first = CLASSES[-1 - times % (len(CLASSES) - 1)]
    return (first, *(each for each in CLASSES if each != first))


def light_time_s(waiting: int, plan: Plan | None, alone_s: float) -> float:
    """Seconds to leave to the light stage for a prompt that comes to its queue late, one more batch included.

    `alone_s`: the seconds of a light batch of one; all that can be said where the plan has no light worker.
    """
    if plan is None or not plan.light_workers:
        return alone_s
    return min(light_wait_s(waiting, plan) + plan.light_service_s, LONGEST_LIGHT_S)


def last_call_s(waiting: Mapping[Stage, int], plan: Plan | None, alone_s: Mapping[Stage, float]) -> float:
    """Seconds before its deadline at which one that waits for heavy without a picture leaves for light.

    `alone_s`: the seconds of a batch of one, by stage. What light needs for it; but where light is so crowded that
    heavy would draw it sooner, it stays until heavy can't draw it any more.
    """
    light_s = light_time_s(waiting["light"], plan, alone_s["light"])
    if plan is None or heavy_time_s(waiting["heavy"], plan) >= light_s:
        return light_s
    return min(light_s, alone_s["heavy"])


class Queued(Protocol):
    """A prompt in a queue: when it came and when it is due."""

    since: float
    deadline: float


@dataclass(slots=True)
class Waiting:
    """A prompt in a queue, and no more of it than the rules ask for."""

    since: float
    deadline: float


@dataclass(frozen=True, slots=True)
class Take:
    """How many to take from the head of the queue now (0: none), and when to ask again."""

    count: int
    ask_again_s: float


def batch_to_take(queue: Sequence[Queued], now: float, batch: int, hold_s: float, service_s: Sequence[float]) -> Take:
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
