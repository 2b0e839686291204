"""Follows a run from outside: outcomes, plans, one look a second, and every picture while it still lives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from analysis.recording import picture_name
from shared.broker import Broker
from shared.letters import Letter, letters
from shared.lookout import AT_ONCE, Lookout
from shared.messages import Outcome
from shared.plans import Plan
from shared.recording import Failure, Recording, Tick
from shared.schema import STAGES
from shared.wire import PROMPT_LIMIT

SIGNATURES: Final = {b"\x89PNG": ".png", b"RIFF": ".webp"}


class Recorder:
    """Gathers a run's recording; `look` is called about once a second.

    `pictures`: the folder to keep them in, None to keep none.
    """

    def __init__(self, broker: Broker, pictures: Path | None) -> None:
        self._lookout = Lookout(broker)
        self._observer = self._lookout.observer
        self._pictures = pictures
        self._outcomes: list[Outcome] = []
        self._plans: list[Plan] = []
        self._ticks: list[Tick] = []
        self._disk_full = ""
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)

    @property
    def trouble(self) -> str:
        """Why pictures could not be written, if so."""
        return self._disk_full

    def look(self) -> Tick:
        """Fetch what is new; returns the newest tick."""
        news = self._lookout.look()
        self._note(news.outcomes)
        self._plans += (mark.plan for mark in news.marks)
        self._ticks.append(news.reading.tick())
        return self._ticks[-1]

    def late_share(self) -> float:
        """Share of the outcomes so far that missed their deadline."""
        missed = sum(not outcome.on_time for outcome in self._outcomes)
        return missed / len(self._outcomes) if self._outcomes else 0.0

    def recording(self, cascade: str, deadline_s: float, settings: dict[str, Any]) -> Recording:
        """Everything gathered, with the totals as they stand now."""
        self._note(self._lookout.outcomes())
        # A heavy picture that came after the light one was the answer.
        self._fetch([outcome for outcome in self._outcomes if (outcome.end, outcome.why) == ("light", "deadline")])
        totals = self._observer.totals()
        return Recording(
            cascade=cascade,
            deadline_s=deadline_s,
            offered=int(totals.get("offered", 0)),
            refused=int(totals.get("refused", 0)),
            published=int(totals.get("published", 0)),
            wasted_s=totals.get("wasted_s", 0.0),
            outcomes=tuple(self._outcomes),
            plans=tuple(self._plans),
            ticks=tuple(self._ticks),
            pictures=self._pictures,
            settings=settings,
            upgraded=int(totals.get("upgraded", 0)),
            failures=tuple(map(_failure, letters(self._observer))),
        )

    def _note(self, outcomes: Sequence[Outcome]) -> None:
        self._outcomes += outcomes
        for first in range(0, len(outcomes), AT_ONCE):
            self._fetch(outcomes[first : first + AT_ONCE])

    def _fetch(self, outcomes: Sequence[Outcome]) -> None:
        if self._pictures is None:
            return
        wanted = [(outcome.id, stage) for outcome in outcomes for stage in STAGES]
        for (prompt_id, stage), picture in zip(wanted, self._observer.images(wanted), strict=True):
            if picture and not self._disk_full:
                try:
                    path = self._pictures / f"{picture_name(prompt_id, stage)}{SIGNATURES.get(picture[:4], '.bin')}"
                    path.write_bytes(picture)
                except OSError as wrong:
                    self._disk_full = f"{self._pictures}: no more pictures are kept: {wrong.strerror}"


def _failure(letter: Letter) -> Failure:
    prompt = letter.prompt[:PROMPT_LIMIT]  # of an entry that was no prompt it may be longer
    return Failure(letter.id, prompt, letter.why, letter.reason, letter.worker, letter.attempts, letter.finished)
