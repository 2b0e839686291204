"""Messages: what is written is what is read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import MalformedEntry
from shared.exchange import flatten
from shared.messages import Job, Outcome, Visit, Wire
from shared.plans import Plan
from tests.helpers import a_plan

TIMES = st.floats(0.001, 2e9).map(lambda seconds: round(seconds, 6))
# Anything but control characters and lone surrogates; the letter in front keeps it from being blank.
TEXT = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=40).map(lambda text: "a" + text)
VISITS = st.builds(
    Visit, st.sampled_from(["light", "heavy"]), TEXT, TIMES, TIMES, st.integers(1, 64), st.none() | st.floats(0, 1)
)
PARAMETERS = st.dictionaries(TEXT, st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXT, max_size=3)
JOBS = st.builds(
    Job,
    id=TEXT,
    prompt=TEXT,
    published=TIMES,
    deadline=TIMES,
    seed=st.integers(-(2**63), 2**64),
    route=st.sampled_from(["cascade", "light", "heavy"]),
    priority=st.integers(0, 2),
    parameters=PARAMETERS,
    visits=st.lists(VISITS, max_size=3).map(tuple),
    extra=st.dictionaries(st.just(b"mood"), st.binary(max_size=8)),
)
KEPT = ["id", "prompt", "deadline", "visits", "seed", "route", "priority"]


def as_read(wire: Wire) -> dict[bytes, bytes]:
    flat = [part if isinstance(part, bytes) else str(part).encode() for part in flatten(wire)]
    return dict(zip(flat[::2], flat[1::2], strict=True))


@settings(max_examples=40)
@given(JOBS)
def test_a_job_survives_the_wire(job: Job) -> None:
    raw = as_read(job.wire())
    assert Job.from_wire(raw) == job
    assert not {b"published", b"deadline"} & as_read(job.wire(stamped=False)).keys(), "the door stamps these"
    outcome = Outcome.from_wire(raw | {b"end": b"light", b"why": b"confident", b"finished": b"3.5"})
    assert [getattr(outcome, name) for name in KEPT] == [getattr(job, name) for name in KEPT]


@given(
    st.dictionaries(st.sampled_from([b"id", b"prompt", b"visits", b"parameters", b"seed", b"deadline"]), st.binary())
)
def test_whatever_the_bytes_an_entry_is_a_job_or_malformed(raw: dict[bytes, bytes]) -> None:
    try:
        job = Job.from_wire(raw)
    except MalformedEntry as wrong:
        assert wrong.fields == raw
        assert wrong.reason
    else:
        assert job.prompt.strip()


PLANS = st.builds(
    a_plan,
    st.integers(1, 10**6),
    threshold=st.floats(-1, 2),
    lot=st.booleans(),
    tie_share=st.floats(0, 1),
    why=TEXT,
    assignment=st.dictionaries(st.sampled_from(["a:0", "b-1:12"]), st.sampled_from(["light", "heavy"])),
)


@given(PLANS)
def test_a_plan_survives_the_wire_and_tolerates_newer_fields(plan: Plan) -> None:
    assert Plan.from_wire(as_read(plan.wire()) | {b"of tomorrow": b"1"}) == plan


def outcome(**changes: Any) -> Outcome:
    told: dict[str, Any] = {"end": "light", "why": "confident", "published": 10.0, "deadline": 12.0, "finished": 11.0}
    return Outcome("p", "a cat", **(told | changes))


def test_on_time_means_a_picture_by_the_deadline() -> None:
    assert outcome(finished=12.0).on_time
    assert not outcome(finished=12.001).on_time
    assert not outcome(end="dropped").on_time
    assert outcome().latency_s == 1.0


def test_a_prompts_share_of_its_batches_is_its_gpu_time() -> None:
    visits = (Visit("light", "w", 1.0, 3.0, 4, 0.3), Visit("heavy", "v", 5.0, 8.0, 2))
    assert outcome(visits=visits).gpu_s == pytest.approx(0.5 + 1.5)
    assert outcome(visits=visits).score == 0.3
    assert outcome().score is None


def test_throughput_is_workers_times_batch_over_service() -> None:
    plan = a_plan(light_workers=3, light_batch=4, light_service_s=2.0, heavy_service_s=0.0)
    assert (plan.throughput("light"), plan.throughput("heavy")) == (6.0, 0.0)
