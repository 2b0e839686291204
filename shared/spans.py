"""Outcomes as spans: how a prompt is told to an OpenTelemetry collector, without OpenTelemetry itself.

A message carries its own history, so nothing is sent while it travels: its spans are made when it has ended. A prompt
that came with a `traceparent` (W3C) is a child of it, any other begins a trace.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from logging import Logger
from typing import Final

from shared.lookout import Listener
from shared.messages import TRACEPARENT, Outcome
from shared.passages import passages

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_SOUND: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
Value = str | int | float | bool


def parent_fields(header: str | None) -> dict[bytes, bytes]:
    """The field that makes a prompt's spans children of the caller's; nothing for a header that is none."""
    return {TRACEPARENT: header.encode()} if header and _SOUND.fullmatch(header) else {}


@dataclass(frozen=True, slots=True)
class Part:
    """A span below a prompt's own: seconds of the server's clock."""

    name: str
    started: float
    ended: float
    attributes: Mapping[str, Value]


def parts(outcome: Outcome) -> Iterator[Part]:
    """Waiting and drawing, stage by stage."""
    for passage in passages(outcome):
        stage = passage.stage
        yield Part(f"wait {stage}", passage.since, passage.since + passage.wait_s, {"cascade.stage": stage})
        if (visit := passage.visit) is not None:
            about: dict[str, Value] = {"cascade.stage": stage, "cascade.worker": visit.worker}
            about["cascade.batch"] = visit.batch
            if visit.score is not None:
                about["cascade.score"] = visit.score
            yield Part(f"draw {stage}", visit.started, visit.finished, about)


def attributes(outcome: Outcome) -> dict[str, Value]:
    """What the prompt's own span says; not its text, which may be private."""
    return {
        "cascade.prompt_id": outcome.id,
        "cascade.end": outcome.end,
        "cascade.why": outcome.why,
        "cascade.route": outcome.route,
        "cascade.priority": outcome.priority,
        "cascade.allowance_s": outcome.deadline - outcome.published,
        "cascade.on_time": outcome.on_time,
    }


def tracing(deployment: str, logger: Logger, environment: Mapping[str, str] = os.environ) -> list[Listener]:
    """Who makes spans of each look: one where the environment names a collector, none otherwise."""
    if not any(environment.get(name) for name in ENDPOINTS):
        return []
    try:
        from shared.tracing import to_collector
    except ImportError as missing:
        logger.warning("no traces", extra={"reason": f"{missing}: install deploy/requirements-tracing.txt"})
        return []
    return [to_collector(deployment)]
