"""From outcomes and readings to what a dashboard shows: plain rules on plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from services.gateway.snapshot import Moment, SlotRow, StageMoment, WorkerRow
from shared.catalog import Cascade
from shared.figures import Figures, figures
from shared.ledger import Tally, percentile
from shared.lookout import Reading, place_named, place_of, whole
from shared.messages import ENDS, Outcome
from shared.passages import escalated, judged
from shared.plans import Plan
from shared.schema import STAGES, Stage

REFUSED: Final = "refused"


@dataclass
class Bucket:
    """What happened in the `seconds` before `time_s`. `offered`, `refused`: None where nobody saw the counters.

    `judged`: outcomes whose light picture might have gone on to heavy; `escalated`: those that did.
    """

    time_s: float
    seconds: float
    offered: int | None = None
    refusals: Counter[str] = field(default_factory=Counter)
    tally: Tally = field(default_factory=lambda: Tally(0.0))
    judged: int = 0
    escalated: int = 0

    @classmethod
    def of(cls, time_s: float, seconds: float, outcomes: Iterable[Outcome]) -> Bucket:
        """The outcomes of these seconds, counted."""
        made = cls(time_s, seconds)
        for outcome in outcomes:
            made.tally.add(outcome)
            made.judged += judged(outcome)
            made.escalated += judged(outcome) and escalated(outcome)
        return made

    @property
    def refused(self) -> int:
        """Prompts refused, whatever the reason."""
        return sum(self.refusals.values())


def joined(buckets: Iterable[Bucket]) -> Bucket:
    """Several buckets in a row as one."""
    made = Bucket(0.0, 0.0)
    for bucket in buckets:
        made.time_s = bucket.time_s
        made.seconds += bucket.seconds
        made.tally.include(bucket.tally)
        made.refusals.update(bucket.refusals)
        made.judged += bucket.judged
        made.escalated += bucket.escalated
        if bucket.offered is not None:
            made.offered = (made.offered or 0) + bucket.offered
    return made


def counted(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[int, Counter[str]]:
    """Prompts offered, and refused by reason, between two readings of the totals; none where Redis was emptied."""

    def grown(name: str) -> int:
        return max(0, int(after.get(name, 0) - before.get(name, 0)))

    reasons = {name: grown(name) for name in after if name.startswith(f"{REFUSED}:")}
    return grown("offered"), Counter({name: count for name, count in reasons.items() if count})


def moment(bucket: Bucket, recent: Bucket, plan: Plan | None, reading: Reading | None) -> Moment:
    """One bucket as a point on the time lines. `recent`: it and those of the last seconds, joined, for the figures
    that one second is too short for; `reading` is None for a time at which nobody looked."""
    tally, seconds = bucket.tally, bucket.seconds
    failed = tally.late + tally.ends["dropped"] + tally.ends["failed"] + bucket.refused
    latencies = sorted(recent.tally.latencies_s)
    return Moment(
        time_s=bucket.time_s,
        offered_per_s=None if bucket.offered is None else bucket.offered / seconds,
        refused_per_s=None if bucket.offered is None else bucket.refused / seconds,
        ends_per_s={end: tally.ends[end] / seconds for end in ENDS},
        late_per_s=tally.late / seconds,
        violations_per_s=failed / seconds,
        p50_s=percentile(latencies, 50) if latencies else None,
        p99_s=percentile(latencies, 99) if latencies else None,
        planned_for_per_s=plan.demand if plan else None,
        threshold=plan.threshold if plan else None,
        escalation=recent.escalated / recent.judged if recent.judged else None,
        escalation_planned=plan.heavy_share if plan else None,
        light=_stage("light", recent.tally, plan, reading),
        heavy=_stage("heavy", recent.tally, plan, reading),
    )


def _stage(stage: Stage, recent: Tally, plan: Plan | None, reading: Reading | None) -> StageMoment:
    return StageMoment(
        waiting=reading.backlog[stage].waiting if reading else None,
        running=reading.backlog[stage].running if reading else None,
        wanted=plan.workers(stage) if plan else None,
        ready=reading.ready(stage) if reading else None,
        loading=reading.loading(stage) if reading else None,
        batch_planned=plan.batch(stage) if plan else None,
        batch_achieved=recent.batch_mean(stage) or None,
    )


def tiles(recent: Bucket, plan: Plan | None, cascade: Cascade | None) -> Figures:
    """The figures of the last seconds."""
    offered, refusals = recent.offered or 0, recent.refusals
    return figures(recent.tally, recent.seconds, offered=offered, refusals=refusals, plan=plan, cascade=cascade)


def fleet(reading: Reading) -> tuple[SlotRow, ...]:
    """Every slot that the plan names, a worker draws on, or an agent has, by node and number."""
    gpus: dict[tuple[str, int], str] = {}
    for name, about in reading.nodes.items():
        gpus |= {(name, number): about.get("gpu", "") for number in range(whole(about.get("slots")))}
    workers: dict[tuple[str, int], list[WorkerRow]] = {}
    for worker in reading.workers:
        place = place_of(worker)
        gpus[place] = worker.get("gpu", "")
        workers.setdefault(place, []).append(_worker(worker, reading.draws(worker)))
    planned = {place_named(slot): stage for slot, stage in (reading.plan.assignment if reading.plan else {}).items()}
    return tuple(
        SlotRow(
            node=place[0],
            number=place[1],
            gpu=gpus.get(place, ""),
            planned=planned.get(place),
            workers=tuple(sorted(workers.get(place, ()), key=lambda row: (STAGES.index(row.stage), row.consumer))),
            programs=_programs(reading.nodes.get(place[0], {}), place[1]),
        )
        for place in sorted(gpus.keys() | planned.keys())
    )


def _worker(about: Mapping[str, str], draws: bool) -> WorkerRow:
    return WorkerRow(
        consumer=about.get("consumer", ""),
        stage=STAGES[about.get("stage") == "heavy"],
        model=about.get("model", ""),
        ready=about.get("ready") == "1",
        draws=draws,
        error=about.get("error", ""),
    )


def _programs(about: Mapping[str, str], number: int) -> dict[Stage, str]:
    states = {stage: about.get(f"worker-{number}-{stage}", "") for stage in STAGES}
    return {stage: state for stage, state in states.items() if state}
