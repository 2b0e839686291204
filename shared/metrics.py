"""What Prometheus is told of a deployment: names, in base units, and where each figure comes from.

Counters and gauges are read out of Redis, where the scripts count: any number of exporters says the same of them.
Histograms are filled from the outcomes since this process began to look; scrape one exporter of a deployment.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from shared.lookout import News, Reading
from shared.messages import ENDS, Outcome, Visit
from shared.passages import passages
from shared.schema import STAGES

SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0)
SOLVING: Final = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
BATCHES: Final = (1, 2, 4, 8, 16, 32, 64)
SCORES: Final = tuple(round(0.05 * step, 2) for step in range(1, 21))
BATCHES_REMEMBERED: Final = 4096  # a batch is counted once, though each of its prompts tells of it

# Counters of `{d}:totals` -> name and what it counts.
PLAIN: Final = {
    "offered": ("cascade_offered_prompts", "Prompts offered at the door, refused ones included."),
    "published": ("cascade_published_prompts", "Prompts taken in."),
    "escalated": ("cascade_escalated_prompts", "Prompts that went on from light to heavy."),
    "upgraded": ("cascade_upgraded_prompts", "Heavy pictures that came after the light one was the answer."),
    "reclaimed": ("cascade_reclaimed_prompts", "Prompts taken back from workers that lost their lease."),
    "wasted_s": ("cascade_wasted_seconds", "Seconds of a slot spent on pictures that were no answer."),
    "plans": ("cascade_plans", "Plans put in force."),
    "switched": ("cascade_slot_switches", "Slots that a plan gave to the other stage."),
}
# Fields of the plan -> name and what it says; the two with a stage are told for each.
PLANNED: Final = {
    "version": ("cascade_plan_version", "Version of the plan in force."),
    "threshold": ("cascade_plan_threshold", "Scores below it escalate."),
    "demand": ("cascade_plan_demand_prompts_per_second", "Demand that the plan was made for."),
    "heavy_share": ("cascade_plan_escalation_ratio", "Share of the prompts drawn light that the plan escalates."),
    "heavy_direct": ("cascade_plan_direct_ratio", "Share of all prompts that the plan sends straight to heavy."),
    "drift": ("cascade_plan_drift_ratio", "Measured less predicted escalation of the plan before."),
    "made": ("cascade_plan_made_timestamp_seconds", "When the plan was made."),
}


class Metrics:
    """One deployment's metrics: told of each look, it gives the text for a scrape from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._readings = Readings()
        self.registry.register(self._readings)
        self._batches: OrderedDict[tuple[str, float], None] = OrderedDict()
        # Children are kept: to look one up costs more than to count with it.
        answered = Counter(
            "cascade_answered_prompts", "Pictures given, by time.", ["end", "on_time"], registry=self.registry
        )
        self._answered = {
            (end, on_time): answered.labels(end, str(on_time).lower()) for end in STAGES for on_time in (True, False)
        }
        self._latency = self._each("end", "cascade_latency_seconds", "Publish to answer.", SECONDS)
        self._wait = self._each("stage", "cascade_wait_seconds", "In a stage's queue, until drawn.", SECONDS)
        self._service = self._each("stage", "cascade_service_seconds", "Seconds a batch took.", SECONDS)
        self._size = self._each("stage", "cascade_batch_prompts", "Prompts of a batch.", BATCHES)
        self._score = Histogram("cascade_score", "Scores of light pictures.", buckets=SCORES, registry=self.registry)
        self._solving = Histogram(
            "cascade_plan_solve_seconds", "Solving, per plan.", buckets=SOLVING, registry=self.registry
        )

    def note(self, news: News) -> None:
        """Take in one look."""
        self._readings.newest = news.reading
        for outcome in news.outcomes:
            self._note(outcome)
        for mark in news.marks:
            if mark.plan.solve_ms > 0:  # a pinned plan was never solved
                self._solving.observe(mark.plan.solve_ms / 1000)

    def away(self, _trouble: str) -> None:
        """Until the next look, of Redis only this is told."""
        self._readings.newest = None

    def render(self) -> bytes:
        """The text format of Prometheus, all that is known."""
        return generate_latest(self.registry)

    def names(self) -> set[str]:
        """The names of all metrics told so far, without the endings of their samples."""
        return {metric.name for metric in self.registry.collect()}

    def _note(self, outcome: Outcome) -> None:
        if outcome.end in STAGES:
            self._answered[outcome.end, outcome.on_time].inc()
            self._latency[outcome.end].observe(outcome.latency_s)
        for passage in passages(outcome):
            if passage.visit is not None:
                self._wait[passage.stage].observe(passage.wait_s)
                self._count_once(passage.visit)
        if outcome.score is not None:
            self._score.observe(outcome.score)

    def _count_once(self, visit: Visit) -> None:
        batch = visit.worker, visit.started
        if batch in self._batches:
            return
        self._batches[batch] = None
        if len(self._batches) > BATCHES_REMEMBERED:
            self._batches.popitem(last=False)
        self._service[visit.stage].observe(visit.finished - visit.started)
        self._size[visit.stage].observe(visit.batch)

    def _each(self, label: str, name: str, about: str, buckets: Sequence[float]) -> dict[str, Histogram]:
        """One histogram a stage, told from the start: what is not there yet is nothing, not unknown."""
        made = Histogram(name, about, [label], buckets=buckets, registry=self.registry)
        return {stage: made.labels(stage) for stage in STAGES}


class Readings(Collector):
    """The newest reading as metrics."""

    def __init__(self) -> None:
        self.newest: Reading | None = None

    def collect(self) -> Iterator[Metric]:
        """Everything that Redis holds; only that it is away, where it is."""
        reading = self.newest
        yield _gauge("cascade_redis_up", "Whether Redis answered the last look.", float(reading is not None))
        if reading is not None:
            for part in PARTS:
                yield from part(reading)


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, value=value)


def _counters(reading: Reading) -> Iterator[Metric]:
    for field, (name, about) in PLAIN.items():
        yield CounterMetricFamily(name, about, value=reading.totals.get(field, 0.0))
    refused = CounterMetricFamily("cascade_refused_prompts", "Prompts refused at the door.", labels=["why"])
    settled = CounterMetricFamily("cascade_settled_prompts", "Prompts by how they ended.", labels=["end", "why"])
    for field, count in sorted(reading.totals.items()):
        what, found, why = field.partition(":")
        if found and what == "refused":
            refused.add_metric([why], count)
        elif found and what in ENDS:
            settled.add_metric([what, why], count)
    yield refused
    yield settled


def _queues(reading: Reading) -> Iterator[Metric]:
    waiting = GaugeMetricFamily("cascade_waiting_prompts", "Prompts in a stage's queue.", labels=["stage"])
    running = GaugeMetricFamily("cascade_running_prompts", "Prompts in workers' hands.", labels=["stage"])
    workers = GaugeMetricFamily(
        "cascade_workers", "Workers wanted by the plan, ready, loading.", labels=["stage", "state"]
    )
    for stage in STAGES:
        waiting.add_metric([stage], reading.backlog[stage].waiting)
        running.add_metric([stage], reading.backlog[stage].running)
        workers.add_metric([stage, "wanted"], reading.plan.workers(stage) if reading.plan else 0)
        workers.add_metric([stage, "ready"], reading.ready(stage))
        workers.add_metric([stage, "loading"], reading.loading(stage))
    yield from (waiting, running, workers)
    yield _gauge("cascade_open_prompts", "Prompts on their way.", reading.open)
    yield _gauge("cascade_dead_letters", "Failed prompts kept for people to look at.", reading.dead)
    if reading.picture_bytes is not None:
        yield _gauge("cascade_picture_bytes", "Pictures kept.", reading.picture_bytes)


def _plan(reading: Reading) -> Iterator[Metric]:
    plan = reading.plan
    if plan is None:
        return
    for field, (name, about) in PLANNED.items():
        yield _gauge(name, about, float(getattr(plan, field)))
    batches = GaugeMetricFamily("cascade_plan_batch_prompts", "Planned size of a batch.", labels=["stage"])
    for stage in STAGES:
        batches.add_metric([stage], plan.batch(stage))
    yield batches
    yield InfoMetricFamily("cascade_plan", "Who made the plan.", {"policy": plan.policy, "solver": plan.solver})


PARTS: Final[tuple[Callable[[Reading], Iterator[Metric]], ...]] = (_counters, _queues, _plan)
