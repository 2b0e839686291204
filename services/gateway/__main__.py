"""The gateway: the OpenAI images API, jobs, the dashboard and metrics over HTTP.

Without keys (--http-keys FILE) it listens on this machine only. Keys guard /v1/ and the dashboard; /healthz, /readyz,
/metrics and /openapi.json answer whoever reaches the port. SIGTERM takes no new requests, answers the open ones, and
ends what is still open after `grace_s`.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, Final

import uvicorn
from fastapi import FastAPI

from services.gateway.app import make_app
from services.gateway.desk import Desk
from shared.config import Settings, load, parser
from shared.errors import SettingsError
from shared.log import configure
from shared.process import Stop, guarded, until_done

BACKLOG: Final = 1_024
# Of `grace_s`: then streams end in order, and their clients can come again, before connections are cut.
STREAMS_SHARE: Final = 0.7


class Server(uvicorn.Server):
    """Uvicorn's server, which at SIGTERM lets open streams go on for a while and then ends them in order."""

    def __init__(self, config: uvicorn.Config, desk: Desk, grace_s: float) -> None:
        super().__init__(config)
        self._desk = desk
        self._grace_s = grace_s

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Catch SIGTERM and SIGINT; a second Ctrl-C ends at once (SIGTERM comes twice where two supervise)."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _told(self, number: int) -> None:
        self.force_exit = self.should_exit and number == signal.SIGINT
        if not self.should_exit:
            self.should_exit = True
            asyncio.get_running_loop().call_later(STREAMS_SHARE * self._grace_s, self._desk.end_streams)


def check_open(settings: Settings) -> None:
    """Raise SettingsError where anybody on the network could draw without a key."""
    if settings.http_keys is None and not _is_loopback(settings.http_host):
        raise SettingsError(
            f"http_host: {settings.http_host} is open to others, and there are no keys: anybody could draw here. "
            "Make keys (python -m services.ctl --http-keys FILE key add NAME), name that file here, or use 127.0.0.1"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def config_of(settings: Settings, app: FastAPI) -> uvicorn.Config:
    """How uvicorn serves the application."""
    options: dict[str, Any] = {"host": settings.http_host, "port": settings.http_port, "backlog": BACKLOG}
    options |= {"loop": "uvloop", "http": "httptools", "access_log": False, "log_level": "warning"}
    options |= {"timeout_graceful_shutdown": max(1, round(settings.grace_s))}
    return uvicorn.Config(app, server_header=False, **options)


def main() -> int:
    """Serve until SIGTERM."""
    names = ["redis_url", "deployment", "cascade", "deadline_s", "http_host", "http_port", "http_keys", "grace_s"]
    settings = load(parser(__doc__ or "", [*names, "picture_ttl_s", "done_keep_s", "log_dir"]).parse_args())
    check_open(settings)
    logger = configure("gateway", settings.log_dir)
    app = make_app(settings)
    desk: Desk = app.state.desk
    if not until_done(desk.broker.check, Stop().listen(), logger):  # uvicorn takes the signals over when it serves
        return 0
    server = Server(config_of(settings, app), desk, settings.grace_s)
    logger.info("ready", extra={"address": f"http://{settings.http_host}:{settings.http_port}"})
    # What was loaded so far stays: without it a full collection looks at a hundred MiB while every client waits.
    gc.collect()
    gc.freeze()
    server.run()
    return 0 if server.started else 1


if __name__ == "__main__":
    guarded(main)
