"""A prompt's way through the stages, read off its outcome: how long it waited before each, and when it was drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shared.messages import Outcome, Visit
from shared.schema import Stage

# Why a light picture is the answer though its prompt had gone on to heavy.
CAME_BACK = frozenset(("deadline", "heavy_failed"))


@dataclass(frozen=True, slots=True)
class Passage:
    """One stage: waited for since `since`, until `until`; `visit` is None where it was never drawn there."""

    stage: Stage
    since: float
    until: float
    visit: Visit | None

    @property
    def wait_s(self) -> float:
        """Seconds in the queue; a worker's clock may be a little behind the server's."""
        return max(0.0, self.until - self.since)


def passages(outcome: Outcome) -> Iterator[Passage]:
    """The stages in the order of the prompt's way; the last one may have ended while the prompt waited."""
    since = outcome.published
    for visit in outcome.visits:
        yield Passage(visit.stage, since, visit.started, visit)
        since = visit.finished
    stage = last_stage(outcome)
    if stage is not None:
        yield Passage(stage, since, outcome.finished, None)


def judged(outcome: Outcome) -> bool:
    """Whether its light picture could have sent it on to heavy."""
    return outcome.route == "cascade" and any(visit.stage == "light" for visit in outcome.visits)


def escalated(outcome: Outcome) -> bool:
    """Whether its light picture was not good enough and it went on to heavy, drawn there or not."""
    has_light = any(visit.stage == "light" for visit in outcome.visits)
    # A light picture is written down when its prompt goes on or ends with it: a cancelled one had gone on.
    went_on = outcome.end == "cancelled" or outcome.why in CAME_BACK
    return has_light and (outcome.visits[-1].stage == "heavy" or went_on)


def last_stage(outcome: Outcome) -> Stage | None:
    """The stage that it ended at without having been drawn there; None where its last visit was its end."""
    if outcome.visits:
        return "heavy" if escalated(outcome) and outcome.visits[-1].stage == "light" else None
    return "heavy" if outcome.route == "heavy" else "light"
