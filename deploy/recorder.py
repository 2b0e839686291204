"""Follows a run from outside: outcomes, plans, one look a second, and every picture while it still lives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from analysis.recording import picture_name
from shared.broker import Broker
from shared.messages import Outcome
from shared.observer import Observer
from shared.plans import Plan
from shared.recording import Recording, Tick
from shared.schema import STAGES

AT_ONCE: Final = 500
SIGNATURES: Final = {b"\x89PNG": ".png", b"RIFF": ".webp"}


class Recorder:
    """Gathers a run's recording; `look` is called about once a second.

    `pictures`: the folder to keep them in, None to keep none.
    """

    def __init__(self, broker: Broker, pictures: Path | None) -> None:
        self._observer = Observer(broker)
        self._broker = broker
        self._pictures = pictures
        self._outcomes: list[Outcome] = []
        self._plans: list[Plan] = []
        self._ticks: list[Tick] = []
        self._seen = {"done": "0", "plans": "0"}
        self._disk_full = ""
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)

    @property
    def trouble(self) -> str:
        """Why pictures could not be written, if so."""
        return self._disk_full

    def look(self) -> Tick:
        """Fetch what is new; returns the newest tick."""
        self._follow()
        plans, self._seen["plans"] = self._observer.plans(self._seen["plans"])
        self._plans += plans
        tick = self._tick()
        self._ticks.append(tick)
        return tick

    def late_share(self) -> float:
        """Share of the outcomes so far that missed their deadline."""
        missed = sum(not outcome.on_time for outcome in self._outcomes)
        return missed / len(self._outcomes) if self._outcomes else 0.0

    def recording(self, cascade: str, deadline_s: float, settings: dict[str, Any]) -> Recording:
        """Everything gathered, with the totals as they stand now."""
        self._follow()
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
        )

    def _follow(self) -> None:
        while True:
            outcomes, self._seen["done"] = self._observer.outcomes(self._seen["done"], AT_ONCE)
            self._outcomes += outcomes
            self._fetch(outcomes)
            if len(outcomes) < AT_ONCE:
                return

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

    def _tick(self) -> Tick:
        totals, backlog, plan = self._observer.totals(), self._observer.backlog(), self._broker.plan()
        working = [worker["stage"] for worker in self._observer.workers() if self._works(worker, plan)]
        counts = {
            name: int(totals.get(name, 0)) for name in ("offered", "light", "heavy", "dropped", "failed", "refused")
        }
        return Tick(
            time_s=self._broker.now(),
            **counts,
            waiting_light=backlog["light"].waiting,
            running_light=backlog["light"].running,
            waiting_heavy=backlog["heavy"].waiting,
            running_heavy=backlog["heavy"].running,
            light_workers=working.count("light"),
            heavy_workers=working.count("heavy"),
            threshold=plan.threshold if plan else 0.0,
            demand=plan.demand if plan else 0.0,
        )

    @staticmethod
    def _works(worker: dict[str, str], plan: Plan | None) -> bool:
        if worker.get("ready") != "1" or plan is None:
            return False
        return plan.assignment.get(f"{worker['node']}:{worker['slot']}") == worker["stage"]
