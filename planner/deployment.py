"""A simulated deployment: the door, the claims, the hops, the keeper and the planner of the live services.

arrivals ── door ── light queue ── workers ── heavy queue ── workers ── outcomes
                       └──────────── keeper, planner, faults ────────────┘
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from random import Random
from typing import Final

from planner.crew import Crew
from planner.notes import Notes
from planner.scenario import Scenario
from planner.viewing import Watch, next_plan
from planner.virtual import Clock, Prompt, Queue, Worker
from shared.cascade import (
    batch_to_take,
    decide,
    door_wait_s,
    first_stage,
    hopeless,
    last_call_s,
    lets_go,
    light_draws,
    recorded_score,
    routes_heavy,
    verdict,
)
from shared.messages import End, Outcome, Route, Visit
from shared.plans import Plan
from shared.recording import Recording
from shared.schema import STAGES, Stage
from traces.read import Arrival

LOOKED_AT: Final = 16  # prompts beyond a batch that a claim looks at, as in lua/claim.lua
LOOK_S: Final = 0.2  # between two looks of the keeper at most
LATER_S: Final = 1e-6  # past a moment, not on it, where rounding would decide


class Deployment:
    """Queues, workers, a planner and a keeper, and what became of the prompts."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._cascade = scenario.cascade
        self._clock = Clock()
        self._random = Random(scenario.seed)
        self._watch = Watch(scenario.cascade)
        self._queues: dict[Stage, Queue] = {stage: Queue(stage) for stage in STAGES}
        self._crew = Crew(scenario, self._clock, self._queues, self._dispatch)
        self._services_s = lru_cache(maxsize=None)(self._profile)
        self._alone_s = {stage: scenario.cascade.service_s(stage, 1) for stage in STAGES}
        self._plan: Plan | None = None
        self._more = True
        self._open = 0
        self._wasted_s = 0.0
        self._notes = Notes(scenario)

    def run(self, arrivals: Iterable[Arrival]) -> None:
        """Let it all happen."""
        self._clock.at(0.0, self._think)
        self._arrivals = iter(arrivals)
        self._next_arrival()
        self._clock.run(self._goes_on)

    def _goes_on(self) -> bool:
        # Whoever still draws for nobody has yet to be counted as waste.
        return self._more or self._open > 0 or any(worker.batch for worker in self._crew.workers)

    def recording(self) -> Recording:
        """What a recorder would have written down."""
        return self._notes.recording(self._wasted_s + self._crew.wasted_s)

    # --- the door

    def _next_arrival(self) -> None:
        arrival = next(self._arrivals, None)
        self._more = arrival is not None
        if arrival is not None:
            self._clock.at(arrival.at_s, self._arrive, arrival)

    def _arrive(self, arrival: Arrival) -> None:
        self._next_arrival()
        now, allowance_s, plan = self._clock.now, self._scenario.deadline_s, self._plan
        self._notes.arrival(now)
        prompt_id, text = f"sim-{self._notes.offered - 1}", arrival.prompt or ""
        route: Route = "heavy" if plan is not None and routes_heavy(text, prompt_id, plan) else "cascade"
        stage = first_stage(route, plan)
        waits_s = door_wait_s(route, {name: self._queues[name].backlog for name in STAGES}, plan) if plan else math.inf
        if allowance_s < waits_s < math.inf:
            self._notes.refused += 1
            return
        prompt = Prompt(
            prompt_id, self._notes.offered - 1, arrival.index, text, now, now + allowance_s, route, now, stage
        )
        self._open += 1
        self._queues[stage].put(prompt)
        if stage == "heavy":
            self._watch_on(prompt)
        else:
            self._keep_at(prompt, prompt.deadline - self._scenario.margin_s)
        self._dispatch(stage)

    # --- workers

    def _dispatch(self, stage: Stage) -> None:
        """Hand batches to the idle workers of a stage, as the claim script does, until none is due."""
        queue, plan = self._queues[stage], self._plan
        while plan and queue.idle and queue.waiting:
            worker = next(iter(queue.idle))
            suspect = queue.suspect()
            if suspect is not None:
                self._claim(queue, worker, [suspect], plan)
                continue
            batch = plan.batch(stage)
            services_s = self._services_s(stage, worker.gpu, batch)
            head = queue.head(batch + LOOKED_AT)
            take = batch_to_take(head, self._clock.now, batch, plan.hold_s(stage), services_s)
            if not take.count:
                self._look_again(queue, self._clock.now + take.ask_again_s)
                return
            self._claim(queue, worker, head[: take.count], plan)

    def _look_again(self, queue: Queue, time_s: float) -> None:
        if time_s < queue.next_look:
            queue.next_look = time_s
            self._clock.at(time_s, self._look, queue)

    def _look(self, queue: Queue) -> None:
        if self._clock.now >= queue.next_look:
            queue.next_look = math.inf
            self._dispatch(queue.stage)

    def _claim(self, queue: Queue, worker: Worker, taken: list[Prompt], plan: Plan) -> None:
        queue.take(taken, worker)
        now = self._clock.now
        alone_s = self._services_s(queue.stage, worker.gpu, 1)[0]
        batch = sum(not hopeless(prompt.deadline, now, alone_s) for prompt in taken)
        service_s, margin_s = self._services_s(queue.stage, worker.gpu, max(1, batch)), self._scenario.margin_s
        live = [
            prompt
            for prompt in taken
            if not lets_go(queue.stage, prompt.has_light, prompt.deadline, now, service_s, margin_s, plan)
        ]
        for prompt in taken:
            if prompt not in live:
                self._let_go(prompt, plan)
        if not live:
            return
        del queue.idle[worker]
        worker.batch, worker.started = live, now
        finished = now + self._services_s(queue.stage, worker.gpu, len(live))[-1] + self._overhead_s()
        span, waiting = (now, finished), self._queues["heavy"].waiting
        self._clock.at(
            finished + self._scenario.turnaround_s, self._drawn, worker, worker.incarnation, span, plan, waiting
        )

    def _let_go(self, prompt: Prompt, plan: Plan) -> None:
        """It can no longer be drawn in time: keep its light picture, let light try, or drop it."""
        if prompt.has_light:
            self._end(prompt, "light", "deadline")
        elif prompt.stage == "heavy" and light_draws(plan):
            self._move_to_light(prompt)
        else:
            self._end(prompt, "dropped", "deadline")

    def _drawn(self, worker: Worker, incarnation: int, span: tuple[float, float], plan: Plan, waiting: int) -> None:
        if worker.incarnation != incarnation or worker.stage is None:
            return
        stage = worker.stage
        batch, worker.batch = worker.batch, []
        for prompt in batch:
            self._commit(prompt, Visit(stage, worker.name(stage), *span, len(batch)), plan, waiting)
        self._queues[stage].idle[worker] = None
        self._crew.turn_to(worker)
        self._dispatch("heavy")
        self._dispatch("light")

    def _commit(self, prompt: Prompt, visit: Visit, plan: Plan, waiting: int) -> None:
        if not prompt.open:  # the keeper answered first
            self._wasted_s += visit.gpu_s
            self._notes.upgraded += visit.stage == "heavy"
            return
        if visit.stage == "heavy":
            prompt.visits += (visit,)
            self._end(prompt, "heavy", prompt.route)
            return
        score = recorded_score(self._cascade.scores, prompt.id, prompt.index)
        prompt.visits += (Visit("light", visit.worker, visit.started, visit.finished, visit.batch, score),)
        why = decide(score, prompt.id, prompt.route, prompt.deadline - visit.finished, waiting, plan)
        if why == "escalate":
            self._pass(prompt, "heavy")
        else:
            self._end(prompt, "light", why)

    def _pass(self, prompt: Prompt, stage: Stage) -> None:
        """Into the other stage's queue."""
        self._queues[prompt.stage].leave(prompt)
        prompt.stage, prompt.since, prompt.holder, prompt.suspect = stage, self._clock.now, None, False
        self._queues[stage].put(prompt)

    def _profile(self, stage: Stage, gpu: str, batch: int) -> list[float]:
        """Profiled seconds for batches of 1 to `batch`."""
        known = gpu if gpu in self._cascade.profiles[stage] else None
        return [self._cascade.service_s(stage, size, known) for size in range(1, batch + 1)]

    def _overhead_s(self) -> float:
        scenario = self._scenario
        return scenario.overhead_s + (self._random.random() * scenario.jitter_s if scenario.jitter_s else 0.0)

    # --- the keeper

    def _light_s(self) -> float:
        """How long before its deadline one without a picture leaves heavy."""
        waiting = {stage: queue.waiting for stage, queue in self._queues.items()}
        return last_call_s(waiting, self._plan, self._alone_s)

    def _keep_at(self, prompt: Prompt, time_s: float) -> None:
        self._clock.at(time_s + LATER_S, self._keep, prompt)

    def _keep(self, prompt: Prompt) -> None:
        """Look after an open prompt whose time runs out."""
        if not prompt.open:
            return
        left_s, margin_s = prompt.deadline - self._clock.now, self._scenario.margin_s
        match verdict(prompt.stage, prompt.has_light, left_s, self._light_s(), margin_s, self._alone_s["light"]):
            case "keep_light":
                self._end(prompt, "light", "deadline")
            case "drop":
                self._end(prompt, "dropped", "deadline")
            case "to_light" if light_draws(self._plan):
                if prompt.holder is None:  # what is being drawn may still be done in time
                    self._move_to_light(prompt)
                self._keep_at(prompt, prompt.deadline)
            case _:
                self._watch_on(prompt)

    def _watch_on(self, prompt: Prompt) -> None:
        """Look again: soon at who waits for heavy without a picture, for the queues change; else at the deadline."""
        again = prompt.deadline
        if prompt.stage == "heavy" and not prompt.has_light and prompt.holder is None:
            last_moment = prompt.deadline - self._scenario.margin_s - self._light_s()
            again = self._clock.now + LOOK_S
            if self._clock.now < last_moment:
                again = min(again, last_moment)
        self._keep_at(prompt, min(again, prompt.deadline))

    def _move_to_light(self, prompt: Prompt) -> None:
        self._pass(prompt, "light")
        self._dispatch("light")

    def _end(self, prompt: Prompt, end: End, why: str) -> None:
        prompt.open = False
        self._open -= 1
        self._queues[prompt.stage].leave(prompt)
        outcome = Outcome(
            prompt.id,
            prompt.text,
            end,
            why,
            prompt.published,
            prompt.deadline,
            self._clock.now,
            prompt.visits,
            prompt.route,
            seed=prompt.number,
        )
        self._notes.outcome(outcome)
        self._watch.note(outcome)

    # --- the planner

    def _think(self) -> None:
        """One planning period."""
        now, queues = self._clock.now, self._queues
        self._watch.count(self._notes.offered, now)
        waiting = {stage: queue.waiting for stage, queue in queues.items()}
        running = {stage: queue.running for stage, queue in queues.items()}
        view = self._watch.view(now, self._crew.slots(), waiting, running, self._plan)
        plan = next_plan(self._scenario.policy, view) if view.slots else None
        if plan is not None:
            self._plan = plan
            self._notes.plans.append(plan)
            self._crew.follow(plan)
            for stage in STAGES:
                self._dispatch(stage)
        self._notes.tick(now, self._plan, self._queues, self._crew)
        self._clock.at(now + self._scenario.plan_period_s, self._think)
