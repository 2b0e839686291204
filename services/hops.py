"""What becomes of a prompt whose picture is drawn: on to the heavy stage, or to its end. Pure, but for the bytes.

The bytes of a picture that is still being encoded are waited for here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models.backend import Drawn
from services.studio import scored
from shared.cascade import decide
from shared.exchange import Hop
from shared.messages import UNSAFE, End, Entry, Visit
from shared.plans import Plan
from shared.schema import Stage


@dataclass(frozen=True, slots=True)
class Drawing:
    """A batch as it was drawn: by whom, under which plan, when (server's time), while so many waited for heavy."""

    stage: Stage
    consumer: str
    plan: Plan
    waiting: int
    started: float
    finished: float

    def hops(self, entries: Sequence[Entry], pictures: Sequence[Drawn]) -> list[Hop]:
        """One for each; waits for the encoding, and raises what it raised."""
        visits = [
            Visit(self.stage, self.consumer, self.started, self.finished, len(entries), self._score(picture))
            for picture in pictures
        ]
        return [self._hop(*each) for each in zip(entries, pictures, visits, strict=True)]

    def _sound(self, picture: Drawn) -> bool:
        return self.stage == "heavy" or scored(picture)

    def _score(self, picture: Drawn) -> float | None:
        return picture.score if self._sound(picture) else None

    def _hop(self, entry: Entry, picture: Drawn, visit: Visit) -> Hop:
        done = Entry(entry.priority, entry.entry_id, entry.job.visited(visit))
        if picture.flagged:  # the same seed would give the same picture: there is nothing to try again
            told = f"the safety checker flagged the {self.stage} picture"
            # A light picture that it let pass is never thrown away.
            end: End = "light" if entry.job.light_visit else "failed"
            return Hop(done, end, UNSAFE, b"", visit.gpu_s, reason=told)
        if not self._sound(picture):
            wrong = f"score is {picture.score}"
            return Hop(done, "failed", "error", b"", visit.gpu_s, reason=wrong, blamed=True)
        if self.stage == "heavy":
            return Hop(done, "heavy", entry.job.route, picture.data, visit.gpu_s)
        job = entry.job
        left_s = job.deadline - self.finished
        why = decide(picture.score or 0.0, job.id, job.route, left_s, self.waiting, self.plan)
        return Hop(done, None if why == "escalate" else "light", why, picture.data, visit.gpu_s)
