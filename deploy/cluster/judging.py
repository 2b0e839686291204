"""The accounts of a scenario: nothing lost or answered twice, deadlines kept, and the plan follows the GPUs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from deploy.cluster.client import ASKED, Clients
from deploy.cluster.drill import Drill, Step
from deploy.cluster.scenarios import Scenario
from shared.ledger import Ledger, account, overlaps
from shared.messages import Outcome, Visit
from shared.plans import Plan

PERIODS: Final = 2  # of the planner, from a node's first worker that is ready to its first picture
FOLLOWS_S: Final = 5.0
NEAR: Final = 0.1  # a share so far from the planned one, and farther than chance would have it, is not the planned one
FEW: Final = 20  # fewer answers say nothing of a share


@dataclass(frozen=True, slots=True)
class Phase:
    """What came of a step. `follows_s`: until the plan used as many of the node's slots as it should; None: never.

    `heavy_workers`: of the last plan before the next step. `share`: heavy, of the answers to what was published
    FOLLOWS_S after the step and later, None where they are few; `planned`: what the plans of that time asked for.
    `noise`: how far a share of so many answers strays by chance, one standard deviation.
    """

    step: Step
    seconds: float
    follows_s: float | None
    heavy_workers: int
    share: float | None
    planned: float
    noise: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a scenario showed. `begun_s`, `drawn_s`: of the node that joined, from ready to its first picture."""

    seconds: float
    restarts: int
    ledger: Ledger
    lost: tuple[str, ...]
    clients: int
    clients_again: int
    begun_s: float | None
    drawn_s: float | None
    phases: tuple[Phase, ...]
    broken: tuple[str, ...]
    missed: tuple[str, ...]


def judged(drill: Drill, scenario: Scenario) -> Verdict:
    """The accounts of a drill that has been settled, and what should hold and does not."""
    outcomes, offering, clients = drill.witness.outcomes, drill.offering, drill.clients
    entered = {outcome.id for outcome in outcomes if outcome.prompt.startswith(ASKED)}
    refused = offering.refused + max(0, clients.asked - len(entered))  # the door let none of the others in
    ledger = account(outcomes, len(offering.said) + clients.asked, refused)
    plans = drill.cluster.observer.plans("0", 10_000)[0]
    begun_s, drawn_s = first_picture(drill.steps, outcomes)
    verdict = Verdict(
        seconds=drill.steps[-1].at - drill.steps[0].at,
        restarts=drill.restarts,
        ledger=ledger,
        lost=tuple(sorted(offering.accepted - {outcome.id for outcome in outcomes})),
        clients=clients.asked,
        clients_again=clients.again,
        begun_s=begun_s,
        drawn_s=drawn_s,
        phases=tuple(phases_of(drill.steps, plans, outcomes)),
        broken=tuple(drill.broken),
        missed=_missed(drill.steps, outcomes),
    )
    return replace(verdict, broken=(*drill.broken, *_broken(drill, scenario, verdict, plans)))


def _broken(drill: Drill, scenario: Scenario, verdict: Verdict, plans: Sequence[Plan]) -> Iterator[str]:
    """What must hold and does not, in words."""
    outcomes, ledger = drill.witness.outcomes, verdict.ledger
    if verdict.lost:
        yield f"{len(verdict.lost)} lost: {list(verdict.lost[:5])}"
    if ledger.twice:
        yield f"{len(ledger.twice)} answered twice"
    if ledger.violation > scenario.violation:
        yield f"violation {ledger.violation:.2%} is more than {scenario.violation:.1%}"
    if verdict.begun_s is not None and verdict.begun_s > PERIODS * drill.cluster.settings.plan_period_s:
        yield f"the new node began to draw after {verdict.begun_s:.1f} s, more than {PERIODS} planning periods"
    if found := overlaps(outcomes):
        yield f"{len(found)} batches overlap on their slot: {found[0]}"
    if any(before.version >= after.version for before, after in pairwise(plans)):
        yield "an older plan took the place of a newer one"
    yield from unfollowed(verdict.phases)
    yield from _unanswered(drill.clients, outcomes)


def _unanswered(clients: Clients, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A client who asks for as long as its patience lasts must have an answer, whatever restarts meanwhile."""
    drawn = {outcome.id for outcome in outcomes if outcome.prompt.startswith(ASKED) and outcome.answered}
    if clients.answered + len(clients.unheard) < len(drawn):
        yield f"{len(drawn)} prompts of clients were drawn, {clients.answered} clients told: {clients.refused[:2]}"
    yield from (f"no answer for client {words}" for words in clients.unheard)


def _missed(steps: Sequence[Step], outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """What became of each prompt that got no picture in time, and after which step it was published."""
    found = []
    for each in (outcome for outcome in outcomes if not outcome.on_time):
        step = max((step for step in steps if step.at <= each.published), key=lambda step: step.at, default=steps[0])
        path = ", ".join(
            f"{v.stage} at {v.worker} {v.started - each.published:.1f}-{v.finished - each.published:.1f} s"
            for v in each.visits
        )
        when = f"published {each.published - step.at:.1f} s after: {step.what}"
        promised = f"ended after {each.latency_s:.2f} s of {each.deadline - each.published:.2f}"
        found.append(f"{each.id} {each.end} ({each.why}) {promised}, {when}; {path or 'not drawn'}")
    return tuple(found)


def phases_of(steps: Sequence[Step], plans: Sequence[Plan], outcomes: Sequence[Outcome]) -> Iterator[Phase]:
    for step, following in pairwise(steps):
        if not step.node:
            continue
        standing = [plan for plan in plans if plan.made < following.at]
        since = [plan for plan in standing if plan.made >= step.at]
        met = next((plan.made - step.at for plan in since if _used(plan, step.node) == step.wanted), None)
        if met is None and standing and not since and _used(standing[-1], step.node) == step.wanted:
            met = 0.0
        settled = [each for each in outcomes if step.at + FOLLOWS_S <= each.published < following.at and each.answered]
        heavy = sum(each.end == "heavy" for each in settled)
        asked = [plan.heavy_load for plan in standing if plan.made >= step.at + FOLLOWS_S] or [
            plan.heavy_load for plan in standing[-1:]
        ]
        yield Phase(
            step,
            following.at - step.at,
            met,
            standing[-1].heavy_workers if standing else 0,
            heavy / len(settled) if len(settled) >= FEW else None,
            planned := sum(asked) / len(asked) if asked else 0.0,
            math.sqrt(planned * (1 - planned) / max(1, len(settled))),
        )


def _used(plan: Plan, node: str) -> int:
    return sum(slot.startswith(f"{node}:") for slot in plan.assignment)


def first_picture(steps: Sequence[Step], outcomes: Sequence[Outcome]) -> tuple[float | None, float | None]:
    """Seconds from the first ready worker of the node that joined until its first picture was begun, and drawn."""
    joined = next((step for step in steps if step.what.endswith("joins")), None)
    if joined is None:
        return None, None
    visits: list[Visit] = [visit for outcome in outcomes for visit in outcome.visits]
    own = [visit for visit in visits if visit.worker.startswith(f"{joined.node}-")]
    if not own:
        return float("inf"), float("inf")
    return min(each.started for each in own) - joined.at, min(each.finished for each in own) - joined.at


def unfollowed(phases: Sequence[Phase]) -> Iterator[str]:
    """Steps that the plan did not follow in time, plans that went the wrong way, and shares that are not as planned."""
    for phase in phases[1:]:
        took = "never" if phase.follows_s is None else f"after {phase.follows_s:.1f} s"
        if phase.follows_s is None or phase.follows_s > FOLLOWS_S:
            yield f"{phase.step.what}: the plan followed {took}"
    for before, after in pairwise(phases):
        if (after.planned > before.planned) != (after.step.wanted > 0):
            yield f"{after.step.what}: the planned heavy share went from {before.planned:.0%} to {after.planned:.0%}"
    for phase in phases:
        if phase.share is not None and phase.share < phase.planned - NEAR - 2 * phase.noise:
            yield f"{phase.step.what}: {phase.share:.0%} of the answers were heavy, {phase.planned:.0%} were planned"
