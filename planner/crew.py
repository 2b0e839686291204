"""The workers of a simulated fleet: they follow the plan, change models, die and come back."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from planner.scenario import Scenario
from planner.virtual import Clock, Prompt, Queue, Worker
from shared.plans import Plan, Slot
from shared.schema import Stage


class Crew:
    """One worker a slot. `dispatch` is called when one has become idle or prompts have come back."""

    def __init__(
        self, scenario: Scenario, clock: Clock, queues: dict[Stage, Queue], dispatch: Callable[[Stage], None]
    ) -> None:
        self._scenario = scenario
        self._clock = clock
        self._queues = queues
        self._dispatch = dispatch
        self._random = Random(f"faults {scenario.seed}")
        self._plan: Plan | None = None
        self._slots = {slot.name: slot for slot in scenario.slots}
        self._unseen: set[str] = set()
        self.workers = [Worker(slot.name, slot.node, slot.number, slot.gpu) for slot in scenario.slots]
        self.wasted_s = 0.0
        self.reclaimed = 0
        for worker in self.workers:
            self._expect_failure(worker)

    def slots(self) -> tuple[Slot, ...]:
        """The slots whose workers are alive, or not yet known to be dead."""
        return tuple(slot for name, slot in self._slots.items() if name not in self._unseen)

    def ready(self, stage: Stage) -> int:
        """Workers that draw for a stage."""
        return sum(worker.stage == stage for worker in self.workers)

    def follow(self, plan: Plan) -> None:
        """Bring the idle workers where the plan wants them; the busy ones follow after their batch."""
        self._plan = plan
        for worker in self.workers:
            if not worker.batch:
                self.turn_to(worker)

    def turn_to(self, worker: Worker) -> None:
        """Have a worker without a batch serve the stage that the plan gives its slot."""
        wanted = self._plan.assignment.get(worker.slot) if self._plan else None
        if not worker.alive or wanted == (worker.stage or worker.turning):
            return
        if worker.stage:
            self._queues[worker.stage].idle.pop(worker, None)
        worker.stage, worker.turning = None, wanted
        if wanted:
            worker.incarnation += 1
            # The first plan finds the models loaded.
            delay_s = self._scenario.turn_s(wanted, worker.gpu) if self._clock.now > 0 else 0.0
            self._clock.at(self._clock.now + delay_s, self._begin, worker, worker.incarnation, wanted)

    def _begin(self, worker: Worker, incarnation: int, stage: Stage) -> None:
        if worker.incarnation == incarnation and worker.turning == stage:
            worker.stage, worker.turning = stage, None
            self._queues[stage].idle[worker] = None
            self._dispatch(stage)

    def _expect_failure(self, worker: Worker) -> None:
        rate = 1 / self._scenario.mean_time_between_failures_s
        if rate > 0:
            self._clock.at(self._clock.now + self._random.expovariate(rate), self._die, worker)

    def _die(self, worker: Worker) -> None:
        lost, worker.batch = worker.batch, []
        if lost:
            self.wasted_s += self._clock.now - worker.started
        if worker.stage:
            self._queues[worker.stage].idle.pop(worker, None)
        worker.alive, worker.stage, worker.turning = False, None, None
        worker.incarnation += 1
        now, scenario = self._clock.now, self._scenario
        self._clock.at(now + scenario.lease_s, self._miss, worker, worker.incarnation, lost)
        self._clock.at(now + scenario.repair_s, self._return, worker)

    def _miss(self, worker: Worker, incarnation: int, lost: list[Prompt]) -> None:
        """The lease has run out: the planner sees it, and what the worker held is taken back."""
        if worker.incarnation == incarnation and not worker.alive:
            self._unseen.add(worker.slot)
        held = [prompt for prompt in lost if prompt.open and prompt.holder is worker]
        for stage, queue in self._queues.items():
            back = [prompt for prompt in held if prompt.stage == stage]
            queue.put_back(back)
            self.reclaimed += len(back)
            if back:
                self._dispatch(stage)

    def _return(self, worker: Worker) -> None:
        worker.alive = True
        self._unseen.discard(worker.slot)
        self.turn_to(worker)
        self._expect_failure(worker)
