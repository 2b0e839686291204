"""Watches every open prompt: no deadline passes unnoticed, no dead worker keeps a prompt.

A light picture is never thrown away: when its escalated prompt can no longer be drawn heavy in time, it is
the answer. One keeper acts; others wait to take over.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from logging import Logger
from typing import Any, Final, TypeVar

from shared.beat import Beat
from shared.broker import Broker
from shared.cascade import last_call_s, light_draws, verdict
from shared.catalog import load_cascade
from shared.config import Settings, load, parser
from shared.connection import CommandRefused, Unreachable
from shared.exchange import OpenPrompt
from shared.log import configure
from shared.messages import End
from shared.observer import Observer
from shared.process import Stop, guarded, parting, patiently, until_done
from shared.schema import STAGES, Stage

SHORTEST_LOOK_S: Final = 0.02
LONGEST_LOOK_S: Final = 0.2  # a prompt may be published with very little time
# On a crowded machine the keeper itself comes late: it settles earlier by as much as it lately was, up to this.
LATEST_S: Final = 0.5
FORGIVEN: Final = 0.98  # of that, a look
AT_ONCE: Final = 500  # prompts looked after in one round trip; the deadlines of the first must not wait for the last
MANY: Final = 20  # prompts from which on their number says how long a look takes
SWEEP_S: Final = 30.0  # between two sweeps of the names of dead workers
EXPIRE_S: Final = 1.0  # between two looks whether pictures are too old or too many
TAKE_BACK_S: Final = 0.3  # at most, between two looks for workers whose lease has run out
LOOKS_IN_WAITING: Final = 8  # a lease, of a keeper that waits to take over
# Of a lease: a worker with prompts beats every quarter of it. One that missed a beat may be dead, and at the last
# moment a light picture too many costs less than none.
SILENT: Final = 0.375

Answer = TypeVar("Answer")


class Keeper:
    """Settles what nobody else will, and takes back what the dead held."""

    def __init__(self, settings: Settings, alone_s: Mapping[Stage, float], logger: Logger) -> None:
        """`alone_s`: seconds that a worker of each stage needs for a batch of one."""
        self._settings = settings
        self._broker = Broker(settings)
        self._observer = Observer(self._broker)
        self._logger = logger
        self._token = uuid.uuid4().hex
        self._leads = False
        self._alone_s = alone_s
        self._light_s = alone_s["light"]  # how long before its deadline one without a picture leaves heavy
        self._each_s = 0.0  # what looking after one prompt takes
        self._light_each_s = 0.0  # between two pictures of the light stage
        self._at_heavy = 0  # prompts that wait there, with a picture or without
        self._next_reclaim = 0.0
        self._next_sweep = 0.0
        self._next_expiry = 0.0
        self._spared_until = 0.0
        self._any_open = True
        self._planned = math.inf
        self._late_s = 0.0

    def check(self) -> None:
        """Raise ServerUnfit when this Redis cannot carry the keeper."""
        self._broker.check()

    def step(self) -> float:
        """One look; returns the seconds until the next."""
        self._late_s = min(LATEST_S, max(time.monotonic() - self._planned, self._late_s * FORGIVEN))
        try:
            pause_s = self._turn()
        except Unreachable:
            # No worker could renew its lease meanwhile: those that live do so in a moment.
            self._spare()
            self._planned = math.inf
            raise
        self._planned = time.monotonic() + pause_s
        return pause_s

    def _turn(self) -> float:
        if time.monotonic() >= self._next_reclaim:
            self._next_reclaim = time.monotonic() + min(self._settings.lease_s / 4, TAKE_BACK_S)
            self._leads = self._ask(self._broker.hold, self._broker.keys.leader("keeper"), self._token)
            if self._leads:
                self._recover()
        if not self._leads:
            self._next_reclaim = 0.0
            return self._settings.lease_s / LOOKS_IN_WAITING
        first = self._ask(self._observer.next_due)
        self._any_open = first is not None
        return LONGEST_LOOK_S if first is None else self._look(first)

    def _ask(self, command: Callable[..., Answer], *arguments: Any) -> Answer:
        """One short command; while it waits for a Redis that stalls, no worker can renew its lease either."""
        began = time.monotonic()
        answer = command(*arguments)
        if time.monotonic() - began > self._settings.lease_s / 4:
            self._spare()
        return answer

    def _spare(self) -> None:
        """Take nothing from anybody for a while: those that live renew their leases in a moment."""
        self._spared_until = time.monotonic() + self._settings.lease_s / 2

    def _margin_s(self) -> float:
        return self._settings.margin_s + self._late_s

    def _look(self, first: float) -> float:
        """Settle what is due; returns the seconds until a verdict can change."""
        now, early_s = self._ask(self._broker.now), self._margin_s() + self._leave_s(self._at_heavy)
        changes = first - early_s
        if changes <= now:
            began = time.monotonic()
            prompts = self._ask(self._observer.open_prompts, now + early_s + LONGEST_LOOK_S, AT_ONCE)
            settled = self._look_after(prompts, now)
            if len(prompts) >= MANY:
                self._each_s = (time.monotonic() - began) / len(prompts)
            if settled and len(prompts) >= AT_ONCE:  # there may be more
                return 0.0
            later = [at for prompt in prompts if (at := self._changes(prompt)) > now]
            changes = min(later, default=now)
        return min(LONGEST_LOOK_S, max(SHORTEST_LOOK_S, changes - now))

    def _leave_s(self, before: int) -> float:
        """How long before its deadline one leaves heavy for light, when so many leave before it."""
        return self._light_s + before * self._light_each_s

    def _changes(self, prompt: OpenPrompt) -> float:
        """When the verdict on a prompt that waits changes."""
        if prompt.has_light:
            return prompt.deadline - self._margin_s()
        return prompt.deadline - (self._margin_s() + self._leave_s(self._at_heavy) if prompt.stage == "heavy" else 0.0)

    def leave(self) -> None:
        """Let another keeper act at once."""
        self._broker.release(self._broker.keys.leader("keeper"), self._token)

    def _recover(self) -> None:
        """Take back and estimate; what Redis refuses of either must not cost open prompts their deadline."""
        parts = [self._take_back]
        if self._any_open:
            parts.append(self._estimate)
        if time.monotonic() >= self._next_expiry:
            self._next_expiry = time.monotonic() + EXPIRE_S
            parts.append(self._expire_pictures)
        for part in parts:
            try:
                part()
            except CommandRefused as wrong:
                self._logger.error("redis refused a command", extra={"reason": str(wrong)})

    def _take_back(self) -> None:
        if time.monotonic() < self._spared_until:
            return
        sweep = time.monotonic() >= self._next_sweep
        if sweep:
            self._next_sweep = time.monotonic() + SWEEP_S
        taken = self._broker.reclaim(sweep=sweep)
        if taken:
            self._logger.warning("took back prompts of dead workers", extra={"prompts": taken})

    def _expire_pictures(self) -> None:
        try:
            self._broker.expire_pictures()
        except Unreachable as wrong:  # where they live may be another server: prompts must not wait for it
            self._logger.warning("pictures are out of reach", extra={"reason": str(wrong)})

    def _estimate(self) -> None:
        """How long the light stage needs for one prompt more, as the plan and the queue have it."""
        backlog = self._observer.backlog()
        waiting: dict[Stage, int] = {stage: backlog[stage].waiting for stage in STAGES}
        plan = self._broker.plan()
        self._light_s = last_call_s(waiting, plan, self._alone_s)
        throughput = plan.throughput("light") if plan else 0.0
        self._light_each_s = 1 / throughput if throughput > 0 else 0.0
        self._at_heavy = waiting["heavy"]

    def _look_after(self, prompts: Sequence[OpenPrompt], now: float) -> int:
        """Do with each what the rule says; returns how many ended.

        Those that end do so in one round trip, for many may be due at once. Those that leave for light leave as much
        earlier as others leave before them.
        """
        margin_s = self._margin_s() + len(prompts) * self._each_s
        ended: list[tuple[OpenPrompt, End]] = []
        leaving: list[OpenPrompt] = []
        before = 0
        for prompt in prompts:
            left_s, leave_s = prompt.deadline - now, self._leave_s(before)
            before += prompt.stage == "heavy" and not prompt.has_light
            match verdict(prompt.stage, prompt.has_light, left_s, leave_s, margin_s, self._alone_s["light"]):
                case "keep_light":
                    ended.append((prompt, "light"))
                case "drop":
                    ended.append((prompt, "dropped"))
                case "to_light":
                    leaving.append(prompt)
                case "wait":
                    pass
        if leaving and self._light_draws():
            for prompt in leaving:
                self._move(prompt)
        for (prompt, _), reply in zip(ended, self._broker.overtake_all(ended, "deadline"), strict=True):
            if isinstance(reply, CommandRefused):  # one prompt's trouble must not cost the others their deadline
                self._complain(prompt, reply)
        return len(ended)

    def _light_draws(self) -> bool:
        """By the plan of this moment: the last estimate may have seen another."""
        try:
            return light_draws(self._broker.plan())
        except CommandRefused:
            return True

    def _move(self, prompt: OpenPrompt) -> None:
        silent_s = SILENT * self._settings.lease_s
        try:
            self._broker.move_to_light(prompt.id, prompt.priority, prompt.entry_id, silent_s=silent_s)
        except CommandRefused as wrong:
            self._complain(prompt, wrong)

    def _complain(self, prompt: OpenPrompt, wrong: Exception) -> None:
        self._logger.error("cannot settle", extra={"prompt": prompt.id, "reason": str(wrong)})


def main() -> int:
    """Run the keeper until SIGTERM."""
    names = ["redis_url", "deployment", "cascade", "lease_s", "margin_s", "picture_ttl_s", "done_keep_s"]
    settings = load(parser(__doc__ or "", [*names, "beats", "log_dir"]).parse_args())
    logger = configure("keeper", settings.log_dir)
    cascade = load_cascade(settings.cascade)
    stop, beat = Stop().listen(), Beat(settings.beats, "keeper")
    keeper = Keeper(settings, {stage: cascade.service_s(stage, 1) for stage in STAGES}, logger)
    if until_done(keeper.check, stop, logger, beat):
        logger.info("ready")
        patiently(keeper.step, stop, logger, longest_pause_s=settings.lease_s / 4, beat=beat)
        parting(keeper.leave, logger)
    return 0


if __name__ == "__main__":
    guarded(main)
