"""What the gateway remembers of its deployment: the history behind the page, and GET /metrics."""

from __future__ import annotations

import logging

from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from services.gateway.history import History
from shared.broker import Broker
from shared.config import Settings
from shared.metrics import Metrics
from shared.spans import tracing

router = APIRouter(tags=["health"])


def install(app: FastAPI, settings: Settings) -> History:
    """Add GET /metrics and `app.state.history`, which the caller starts and stops with the application."""
    app.state.metrics = Metrics()
    listeners = [app.state.metrics, *tracing(settings.deployment, logging.getLogger("cascade"))]
    app.state.history = History(Broker(settings), listeners)
    app.include_router(router)
    return app.state.history  # type: ignore[no-any-return]


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Counters, gauges and histograms for Prometheus and KEDA; reads nothing, so a scrape never waits for Redis."""
    known: Metrics = request.app.state.metrics
    return Response(known.render(), media_type=CONTENT_TYPE_LATEST)
