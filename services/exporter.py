"""Metrics for Prometheus, of a deployment without a gateway; traces too where OTEL_EXPORTER_OTLP_ENDPOINT is set.

It looks once a second and answers GET /metrics from what it saw: a scrape never waits for Redis.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import start_http_server

from shared.broker import Broker
from shared.config import load, parser
from shared.errors import SettingsError
from shared.log import configure
from shared.lookout import Lookout, Rounds
from shared.metrics import Metrics
from shared.process import Stop, guarded, patiently
from shared.spans import tracing

PORT: Final = 9464  # what OpenTelemetry's exporters for Prometheus take by default


def main() -> int:
    """Serve metrics until SIGTERM."""
    options = parser(__doc__ or "", ["redis_url", "deployment", "pictures_at", "log_dir"])
    options.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    options.add_argument("--port", type=int, default=PORT, help=f"port to listen on (default: {PORT})")
    given = options.parse_args()
    settings = load(given)
    logger = configure("exporter", settings.log_dir)
    stop, metrics = Stop().listen(), Metrics()
    lookout = Lookout(Broker(settings))
    rounds = Rounds(lookout, [metrics, *tracing(settings.deployment, logger)], lookout.skip)
    try:
        server, _ = start_http_server(given.port, given.host, metrics.registry)
    except (OSError, OverflowError) as wrong:
        raise SettingsError(f"cannot listen on {given.host}:{given.port}: {wrong}") from None
    logger.info("ready", extra={"address": f"http://{given.host}:{server.server_port}/metrics"})
    patiently(rounds.step, stop, logger)
    server.shutdown()
    return 0


if __name__ == "__main__":
    guarded(main)
