"""The way to an OpenTelemetry collector; imported only where its packages are (deploy/requirements-tracing.txt).

OTEL_EXPORTER_OTLP_ENDPOINT says where to; the SDK's other variables (sampler, service name, headers) hold too.
"""

from __future__ import annotations

import os
from hashlib import sha256
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.lookout import News
from shared.messages import TRACEPARENT, Outcome
from shared.spans import attributes, parts

NANO: Final = 1_000_000_000
WRONG: Final = frozenset(("dropped", "failed"))


def to_collector(deployment: str) -> Tracing:
    """Spans for the collector that the environment names, sent in the background; a full queue drops them."""
    return Tracing(deployment, BatchSpanProcessor(OTLPSpanExporter()))


class Ids(IdGenerator):
    """Ids that follow from a name: two processes that tell of the same outcome tell the same spans."""

    def __init__(self) -> None:
        self._name, self._spans = "", 0

    def begin(self, name: str) -> None:
        """What the next ids are of."""
        self._name, self._spans = name, 0

    def generate_trace_id(self) -> int:
        """See IdGenerator; never 0."""
        return self._number("trace", 16)

    def generate_span_id(self) -> int:
        """See IdGenerator; never 0."""
        self._spans += 1
        return self._number(f"span {self._spans}", 8)

    def _number(self, what: str, size: int) -> int:
        return int.from_bytes(sha256(f"{what} {self._name}".encode(errors="replace")).digest()[:size]) or 1


class Tracing:
    """Turns outcomes into spans and hands them to `processor`; a Listener."""

    def __init__(self, deployment: str, processor: SpanProcessor) -> None:
        self._deployment = deployment
        self._ids = Ids()
        own = {"cascade.deployment": deployment}
        if not os.environ.get("OTEL_SERVICE_NAME"):
            own[SERVICE_NAME] = "cascade"
        provider = TracerProvider(resource=Resource.create(own), id_generator=self._ids)
        provider.add_span_processor(processor)
        self._tracer = provider.get_tracer("cascade")
        self._propagator = TraceContextTextMapPropagator()

    def note(self, news: News) -> None:
        """See Listener."""
        for outcome in news.outcomes:
            self.tell(outcome)

    def away(self, _trouble: str) -> None:
        """See Listener."""

    def tell(self, outcome: Outcome) -> None:
        """One outcome as a span, with waiting and drawing below it, at the times at which they were."""
        self._ids.begin(f"{self._deployment} {outcome.id}")
        parent = self._propagator.extract({TRACEPARENT.decode(): outcome.traceparent})
        start, end = int(outcome.published * NANO), int(outcome.finished * NANO)
        span = self._tracer.start_span(
            "prompt", parent, SpanKind.CONSUMER, attributes=attributes(outcome), start_time=start
        )
        if outcome.end in WRONG:
            span.set_status(StatusCode.ERROR, f"{outcome.end}: {outcome.why}")
        inside = set_span_in_context(span)
        for part in parts(outcome):
            child = self._tracer.start_span(
                part.name, inside, attributes=part.attributes, start_time=int(part.started * NANO)
            )
            child.end(int(part.ended * NANO))
        span.end(end)
