"""What a recorder would write down of a simulated run."""

from __future__ import annotations

from collections.abc import Mapping

from planner.crew import Crew
from planner.scenario import Scenario
from planner.virtual import Queue
from shared.ledger import Tally
from shared.messages import Outcome
from shared.plans import Plan
from shared.recording import Recording, Tick
from shared.schema import Stage


class Notes:
    """Counts, outcomes, plans and one look at the queues per planning period."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._tally = Tally()
        self._outcomes: list[Outcome] = []
        self._ticks: list[Tick] = []
        self.plans: list[Plan] = []
        self.offered = self.refused = self.upgraded = 0

    def arrival(self, now: float) -> None:
        """One more prompt is offered."""
        if not self.offered:
            self._tally.origin = now
        self.offered += 1

    def outcome(self, outcome: Outcome) -> None:
        """How a prompt ended."""
        self._tally.add(outcome)
        if self._scenario.keep_outcomes:
            self._outcomes.append(outcome)

    def tick(self, now: float, plan: Plan | None, queues: Mapping[Stage, Queue], crew: Crew) -> None:
        """One look at the deployment."""
        ends, light, heavy = self._tally.ends, queues["light"], queues["heavy"]
        self._ticks.append(
            Tick(
                time_s=now,
                offered=self.offered,
                light=ends["light"],
                heavy=ends["heavy"],
                dropped=ends["dropped"],
                refused=self.refused,
                waiting_light=light.waiting,
                running_light=light.running,
                waiting_heavy=heavy.waiting,
                running_heavy=heavy.running,
                light_workers=crew.ready("light"),
                heavy_workers=crew.ready("heavy"),
                threshold=plan.threshold if plan else 0.0,
                demand=plan.demand if plan else 0.0,
            )
        )

    def recording(self, wasted_s: float) -> Recording:
        """The run as it would have been recorded live."""
        scenario = self._scenario
        return Recording(
            cascade=scenario.cascade.name,
            deadline_s=scenario.deadline_s,
            offered=self.offered,
            refused=self.refused,
            published=self.offered - self.refused,
            wasted_s=wasted_s,
            outcomes=tuple(self._outcomes),
            plans=tuple(self.plans),
            ticks=tuple(self._ticks),
            settings={"simulated": True, "slots": len(scenario.slots), "seed": scenario.seed},
            upgraded=self.upgraded,
            counted=self._tally,
        )
