"""How many open the dashboard, and who: strangers cost next to nothing, and there are so many places and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import httpx
import pytest

from deploy.bench_pages import Counter, follow, open_page
from services.gateway.page import MOST_PAGES, MOST_UNOPENED
from shared.broker import Broker
from shared.keyring import Keyring, write_keyring
from tests.browsing import Site, gateway

pytestmark = pytest.mark.live

FLOOD = MOST_UNOPENED + 20


@pytest.fixture
def site(broker: Broker, tmp_path: Path) -> Iterator[Site]:
    with gateway(broker.settings.model_copy(update={"cascade": "tiny"}), tmp_path / "log") as found:
        yield found


@pytest.fixture
def keyed(broker: Broker, tmp_path: Path) -> Iterator[Site]:
    ring, reader = Keyring().added("reader")
    write_keyring(tmp_path / "keys.toml", ring)
    settings = broker.settings.model_copy(update={"cascade": "tiny"})
    with gateway(settings, tmp_path / "log", http_keys=tmp_path / "keys.toml") as found:
        found.secrets["reader"] = reader
        yield found


def test_strangers_take_no_place_and_fill_no_log(keyed: Site, tmp_path: Path) -> None:
    with httpx.Client(base_url=keyed.url) as stranger:
        for _ in range(FLOOD):
            answer = stranger.get("/")
            assert answer.status_code == 200
            assert "needs an API key" in answer.text
            assert "_nicegui" not in answer.text
        assert "nobody has this API key" in stranger.post("/login", data={"key": "sk-wrong"}).text
        assert stranger.post("/login", content=b"key=" + b"x" * 2_000).status_code == 413
        assert not stranger.cookies
    with httpx.Client(base_url=keyed.url, follow_redirects=True) as known:
        shown = known.post("/login", data={"key": keyed.secrets["reader"]})
        assert "On time" in shown.text
        assert keyed.secrets["reader"] not in str(known.cookies.jar), "a browser keeps a token and not the key"
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_there_are_so_many_places_and_one_that_is_left_is_free_again(site: Site, tmp_path: Path) -> None:
    async def crowd() -> None:
        async with aiohttp.ClientSession(site.url) as browser:
            pages = [await opened(browser) for _ in range(MOST_PAGES)]
            assert await status(browser) == 503
            await pages[0].close()
            while await status(browser) != 200:
                await asyncio.sleep(0.1)
            for page in pages:
                await page.close()
            await asyncio.gather(*following)

    following: list[asyncio.Task[None]] = []

    async def opened(browser: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse:
        page = await open_page(browser)
        following.append(asyncio.create_task(follow(page, Counter())))
        return page

    async def status(browser: aiohttp.ClientSession) -> int:
        async with browser.get("/") as answer:
            return answer.status

    asyncio.run(asyncio.wait_for(crowd(), 60))
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_pages_that_nobody_opens_keep_nobody_out(site: Site) -> None:
    async def crowd() -> str:
        async with aiohttp.ClientSession(site.url) as browser:
            for _ in range(FLOOD):
                async with browser.get("/") as answer:
                    assert answer.status == 200
            page = await open_page(browser)
            return await page.receive_str()

    assert asyncio.run(asyncio.wait_for(crowd(), 60)), "a page that is opened is told what changes"
