"""Spans: one trace a prompt across both streams, at the times at which it happened, below whoever asked."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from shared.broker import Broker
from shared.config import Settings
from shared.embedded import EmbeddedRedis
from shared.lookout import Lookout, Rounds
from shared.messages import Outcome, Visit
from shared.spans import parent_fields, parts, tracing
from shared.tracing import Tracing
from tests.helpers import an_outcome, hire, outcomes, publish
from tests.processes import service, until

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADER = f"00-{TRACE}-{CALLER}-01"
BOTH = (Visit("light", "n-0-light-x", 8.25, 8.5, 2, 0.25), Visit("heavy", "n-1-heavy-x", 9.0, 10.0, 4))
HEAVY = replace(an_outcome(0, "heavy", "drawn", visits=BOTH), published=8.0)


def spans(*told: Outcome, deployment: str = "d") -> list[ReadableSpan]:
    """What a collector would get."""
    exporter = InMemorySpanExporter()
    tracing = Tracing(deployment, SimpleSpanProcessor(exporter))
    for outcome in told:
        tracing.tell(outcome)
    return list(exporter.get_finished_spans())


def times(found: Sequence[ReadableSpan]) -> dict[str, tuple[float, float]]:
    return {each.name: ((each.start_time or 0) / 1e9, (each.end_time or 0) / 1e9) for each in found}


def ids(found: Sequence[ReadableSpan]) -> list[tuple[int, int]]:
    return [(each.context.trace_id, each.context.span_id) for each in found if each.context]


def test_the_spans_have_the_times_of_the_visits_and_of_the_waits_between() -> None:
    assert times(spans(HEAVY)) == {
        "prompt": (8.0, 10.0),
        "wait light": (8.0, 8.25),
        "draw light": (8.25, 8.5),
        "wait heavy": (8.5, 9.0),
        "draw heavy": (9.0, 10.0),
    }


def test_all_parts_hang_on_the_prompt_and_say_who_drew() -> None:
    *below, root = spans(HEAVY)
    assert root.name == "prompt" and root.parent is None and root.context
    assert {each.parent.span_id for each in below if each.parent} == {root.context.span_id}
    assert len(set(ids([*below, root]))) == 5
    drawn = next(each for each in below if each.name == "draw light")
    assert drawn.attributes == {
        "cascade.stage": "light",
        "cascade.worker": "n-0-light-x",
        "cascade.batch": 2,
        "cascade.score": 0.25,
    }
    assert root.attributes and root.attributes["cascade.on_time"] is True
    assert "a cat" not in str(root.to_json()), "what somebody asked for is not told"


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (an_outcome(0, visits=BOTH[:1]), ["wait light", "draw light"]),
        (an_outcome(0, why="deadline", visits=BOTH[:1]), ["wait light", "draw light", "wait heavy"]),
        (an_outcome(0, "cancelled", "asked", visits=BOTH[:1]), ["wait light", "draw light", "wait heavy"]),
        (an_outcome(0, "dropped", "deadline", visits=()), ["wait light"]),
        (an_outcome(0, "dropped", "deadline", visits=(), route="heavy"), ["wait heavy"]),
        (an_outcome(0, "heavy", "drawn", visits=BOTH[1:], route="heavy"), ["wait heavy", "draw heavy"]),
    ],
)
def test_a_prompt_that_was_never_drawn_by_a_stage_waited_for_it(outcome: Outcome, expected: list[str]) -> None:
    assert [part.name for part in parts(outcome)] == expected
    assert all(part.started <= part.ended for part in parts(outcome))


def test_only_ends_without_a_picture_are_errors() -> None:
    found = spans(an_outcome(1, "dropped", "deadline"), an_outcome(2, "cancelled", "asked"), an_outcome(3))
    said = [each.status.status_code for each in found if each.name == "prompt"]
    assert said == [StatusCode.ERROR, StatusCode.UNSET, StatusCode.UNSET]


def test_two_that_tell_of_one_prompt_tell_the_same_and_other_deployments_another() -> None:
    once, again, elsewhere = spans(HEAVY), spans(an_outcome(9), HEAVY)[-5:], spans(HEAVY, deployment="other")
    assert ids(once) == ids(again)
    assert not set(ids(once)) & set(ids(elsewhere))


def test_the_callers_trace_goes_through_both_streams(broker: Broker) -> None:
    exporter = InMemorySpanExporter()
    lookout = Lookout(broker)
    rounds = Rounds(lookout, [Tracing("d", SimpleSpanProcessor(exporter))], lookout.skip)
    rounds.step()
    publish(broker, "a", extra={b"user": b"somebody", **parent_fields(HEADER)})
    light, heavy = hire(broker), hire(broker, "heavy")
    light.escalate(light.one())
    heavy.end(heavy.one(), why="drawn")
    rounds.step()
    found = exporter.get_finished_spans()
    assert {f"{each.context.trace_id:032x}" for each in found if each.context} == {TRACE}
    assert [f"{each.parent.span_id:016x}" for each in found if each.name == "prompt" and each.parent] == [CALLER]
    assert times(found)["prompt"][0] == pytest.approx(outcomes(broker)[0].published, abs=1e-5)


def test_an_exporter_sends_what_ended_to_the_collector(
    oldest_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        broker = Broker(Settings(redis_url=oldest_server.url, deployment="spans"))
        broker.check()
        with service(broker.settings, "exporter", "--port", "0"):
            numbers = count()

            def arrives() -> bool:
                publish(broker, f"p{next(numbers)}")
                hand = hire(broker)
                hand.end(hand.one())
                return any(b"draw light" in body and b"spans" in body for body in taken)

            until(arrives, "a span reaches the collector")
        collector.shutdown()
    broker.client.flushdb()
    broker.close()


def test_a_caller_that_samples_nothing_gets_nothing() -> None:
    assert not spans(replace(HEAVY, traceparent=HEADER[:-1] + "0"))


@pytest.mark.parametrize(
    "header", [None, "", "x" * 10_000, HEADER.upper(), f"00-{'0' * 32}-{CALLER}-01", HEADER + "\n"]
)
def test_a_header_that_is_none_travels_nowhere(header: str | None) -> None:
    assert parent_fields(header) == {}


def test_without_a_collector_or_its_packages_nothing_is_made(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("test")
    assert tracing("d", logger, {}) == []
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    assert [type(each) for each in tracing("d", logger, given)] == [Tracing]
    monkeypatch.setitem(sys.modules, "shared.tracing", None)
    assert tracing("d", logger, given) == []
    assert "no traces" in caplog.text
