"""What the tests of the dashboard share: a gateway process with its page, and a browser's page that must stay clean."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page

from deploy.supervision import ROOT
from shared.broker import Broker
from shared.config import Settings
from tests.processes import Process, service, until
from tests.servers import free_port

SCREENS: Final = ROOT / "logs" / "screens"
PATIENCE_MS: Final = 60_000


@dataclass
class Site:
    """A deployment that draws, the address of its gateway, and the secrets of its keys."""

    broker: Broker
    settings: Settings
    url: str
    gateway: Process
    secrets: dict[str, str] = field(default_factory=dict)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def gateway(settings: Settings, log: Path, **given: object) -> Iterator[Site]:
    port = free_port()
    own = settings.model_copy(update={"http_port": port, **given})
    with service(own, "gateway", log=log) as process:
        url = f"http://127.0.0.1:{port}"
        until(lambda: process.poll() is not None or listens(port), "the gateway answers")
        assert process.poll() is None, log.read_text()
        yield Site(Broker(own), own, url, process)


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """A page of its own; afterwards its console is clean and it has asked nobody but the gateway."""
    context = browser.new_context(**{"viewport": {"width": 1360, "height": 900}, **options})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    wrong: list[str] = []
    hosts: set[str] = set()
    page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.on("websocket", lambda socket: hosts.add(urlsplit(socket.url).netloc))
    page.goto(url)
    yield page
    context.close()
    assert not wrong
    assert hosts <= {urlsplit(url).netloc, ""}  # "": data of the page's own


def picture_of(page: Page, name: str) -> None:
    SCREENS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENS / f"{name}.png", full_page=True)
