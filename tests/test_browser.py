"""The dashboard in a real browser, over a gateway process and painters; what it looks like goes to logs/screens."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from services.gateway.panels import Panels
from services.gateway.plain import STYLE
from shared.broker import Broker
from shared.config import Settings
from shared.embedded import EmbeddedRedis
from shared.keyring import Keyring, write_keyring
from shared.observer import Observer
from shared.schema import STAGES, Stage
from tests.browsing import PATIENCE_MS, Site, gateway, opened, picture_of
from tests.conftest import fresh_deployment
from tests.helpers import a_plan, publish, put_plan
from tests.painters import UGLY, UNSAFE, Painters, painting
from tests.processes import LONG_S, service, until
from tests.test_dashboard import a_snapshot, some_tiles
from traces.generate import generate
from traces.shapes import Span
from traces.write import as_csv, write

expect.set_options(timeout=20_000)  # a busy machine
PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WISH = "a hard red circle"  # the painters send what is hard on to heavy
LINES_OF = {stage: f".chart svg path[stroke='var(--{stage})']" for stage in STAGES}
DRAWN = "img => img.complete && img.naturalWidth > 0"

pytestmark = [pytest.mark.live, pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine: make system")]


@pytest.fixture(scope="module")
def painters(oldest_server: EmbeddedRedis) -> Iterator[Painters]:
    deployments = fresh_deployment(oldest_server)
    broker = next(deployments)
    put_plan(broker, a_plan(threshold=0.6, demand=3.0, assignment={"test:0": "light"}))
    with painting(broker) as found:
        yield found
        until(lambda: Observer(broker).next_due() is None, "all is drawn")
    assert next(deployments, None) is None


@pytest.fixture(scope="module")
def drawing(painters: Painters) -> Settings:
    return painters.broker.settings.model_copy(update={"cascade": "tiny", "deadline_s": 120.0})


@pytest.fixture(scope="module")
def site(drawing: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with gateway(drawing, tmp_path_factory.mktemp("gateway") / "log") as found:
        yield found


@pytest.fixture(scope="module")
def keyed(drawing: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("keyed")
    ring, reader = Keyring().added("reader")
    ring, admin = ring.added("admin", admin=True)
    write_keyring(folder / "keys.toml", ring)
    with gateway(drawing, folder / "log", http_keys=folder / "keys.toml") as found:
        found.secrets.update(reader=reader, admin=admin)
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        yield found
        found.close()


def hung(page: Page, stage: Stage) -> None:
    """Wait until the answer's picture of a stage is there, with pixels."""
    found = page.locator(f".answer .drawn.{stage} img")
    expect(found).to_have_count(1, timeout=PATIENCE_MS)
    page.wait_for_function(f"({DRAWN})(document.querySelector('.answer .drawn.{stage} img'))")


def test_the_page_follows_a_trace_and_leaves_this_machine_alone(browser: Browser, site: Site, tmp_path: Path) -> None:
    times, about = generate("poisson", Span(3.0, 3.0, 60.0, 0))
    write(as_csv(times, about), tmp_path / "trace.csv")
    (tmp_path / "prompts.txt").write_text(f"{WISH}\na ring\n{UGLY} as can be\n")
    trace = ["--trace", str(tmp_path / "trace.csv"), "--prompts", str(tmp_path / "prompts.txt")]
    with service(site.settings, "publisher", *trace), opened(browser, site.url) as page:
        tiles = page.locator("#tiles")
        expect(tiles).to_contain_text("On time")
        seen = {tiles.inner_text()}
        until(lambda: len(seen | {tiles.inner_text()}) > len(seen), "the tiles change")
        page.wait_for_function(f"[...document.querySelectorAll('#pictures figure.heavy img')].some({DRAWN})")
        expect(page.locator("#letters")).to_contain_text("too ugly")
        expect(page.locator("#reasons")).to_contain_text("failed: drawing went wrong")
        expect(page.locator("#fleet .slots li")).to_have_count(1)
        until(lambda: page.locator(LINES_OF["light"]).count() > 0, "the time lines are drawn")
        picture_of(page, "desktop-light")


def test_a_typed_prompt_shows_its_light_picture_and_then_its_heavy_one(
    browser: Browser, site: Site, painters: Painters
) -> None:
    with opened(browser, site.url) as page:
        with painters.resting("heavy"):
            page.get_by_label("prompt", exact=True).fill(WISH)
            page.get_by_role("button", name="Draw").click()
            hung(page, "light")
            expect(page.locator(".answer")).to_contain_text("Goes on to heavy")
            assert page.locator(".answer .drawn.heavy img").count() == 0
        hung(page, "heavy")
        expect(page.locator(".answer")).not_to_contain_text("Goes on to heavy")
        expect(page.locator(".answer .drawn.light")).to_contain_text("score 0.25")
        picture_of(page, "desktop-prompt")


def test_a_prompt_that_cannot_be_drawn_says_why(browser: Browser, site: Site) -> None:
    with opened(browser, site.url) as page:
        for prompt, said in ((UGLY, "too ugly"), (UNSAFE, "blocked phrase")):
            page.get_by_label("prompt", exact=True).fill(prompt)
            page.get_by_label("prompt", exact=True).press("Enter")
            expect(page.locator(".answer")).to_contain_text(said)


def test_light_alone_can_be_asked_for(browser: Browser, site: Site) -> None:
    with opened(browser, site.url) as page:
        page.get_by_role("button", name="Light only").click()
        page.get_by_label("prompt", exact=True).press("Enter")
        hung(page, "light")
        expect(page.locator(".answer")).to_contain_text("Light")
        assert page.locator(".answer .drawn.heavy").count() == 0


def test_on_a_phone_in_the_dark_nothing_sticks_out(browser: Browser, site: Site) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "has_touch": True}
    with opened(browser, site.url, **phone) as page:
        expect(page.locator("#tiles")).to_contain_text("On time")
        until(lambda: "body--dark" in (page.locator("body").get_attribute("class") or ""), "it is dark")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert brightness(page) < 60
        page.wait_for_function("[...document.images].every(img => img.complete)")
        picture_of(page, "phone-dark")
        page.get_by_role("button", name="Light", exact=True).click()
        until(lambda: brightness(page) > 200, "the page is light")
        picture_of(page, "phone-light")


def test_room_is_kept_for_a_list_of_reasons_and_none_where_there_is_none(browser: Browser) -> None:
    panels, page = Panels(5.0, lambda prompt_id, stage: f"{prompt_id}/{stage}"), browser.new_page()
    heights = []
    for why in ((), ("too_late",), ("too_late", "deadline", "expired")):
        tiles = some_tiles(why={f"dropped:{each}": 3 for each in why})
        part = panels.render(a_snapshot(tiles=tiles))["reasons"]
        assert part.count("<li") == len(why)
        page.set_content(f"<style>{STYLE.read_text()}</style><div id='reasons'>{part}</div>")
        heights.append(page.evaluate("document.getElementById('reasons').offsetHeight"))
    line = page.evaluate("parseFloat(getComputedStyle(document.body).lineHeight)")
    page.close()
    assert heights[0] <= 1.5 * line, "one sentence, and no empty band below it"
    assert heights[1] == heights[2] > 2 * line, "what follows must not jump when a reason joins"


def brightness(page: Page) -> float:
    """Of the page's ground, 0 to 255."""
    colour = str(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    parts = [float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    return sum(parts) / 3


def test_a_page_opened_later_shows_what_was_before_it(browser: Browser, drawing: Settings, tmp_path: Path) -> None:
    broker = Broker(drawing)
    publish(broker, "before", prompt=WISH, allowance_s=LONG_S)
    until(lambda: Observer(broker).next_due() is None, "it is drawn")
    with gateway(drawing, tmp_path / "log") as later:
        until(lambda: WISH in httpx.get(later.url).text, "the history is read")
        with opened(browser, later.url) as page:
            expect(page.locator("#pictures")).to_contain_text(WISH)
            page.reload()
            expect(page.locator("#pictures")).to_contain_text(WISH)
            until(lambda: page.locator(LINES_OF["heavy"]).count() > 0, "the time lines are drawn")


def test_a_gateway_that_is_told_to_stop_lets_go_of_open_pages(
    browser: Browser, drawing: Settings, tmp_path: Path
) -> None:
    with gateway(drawing, tmp_path / "log", grace_s=2.0) as stopping:
        context = browser.new_context()
        page = context.new_page()
        page.goto(stopping.url)
        expect(page.locator("#tiles")).to_contain_text("On time", timeout=PATIENCE_MS)
        stopping.gateway.send_signal(signal.SIGTERM)
        assert stopping.gateway.wait(30) == 0
        context.close()
        assert "Traceback" not in (tmp_path / "log").read_text()


# -- keys --------------------------------------------------------------------------------------------------------


def enter(page: Page, secret: str) -> None:
    page.get_by_label("API key").fill(secret)
    page.get_by_role("button", name="Enter").click()


def test_without_a_key_the_page_says_nothing(browser: Browser, keyed: Site) -> None:
    assert WISH not in httpx.get(keyed.url).text
    with opened(browser, keyed.url) as page:
        enter(page, "sk-wrong")
        expect(page.get_by_text("nobody has this API key")).to_be_visible()
        assert page.locator("#tiles").count() == 0
        picture_of(page, "desktop-login")


def test_a_key_opens_the_figures_and_a_reload_remembers_it(browser: Browser, keyed: Site, site: Site) -> None:
    publish(site.broker, "others", prompt=WISH, allowance_s=LONG_S)
    until(lambda: WISH in httpx.get(site.url).text, "it was drawn, and is in the history")
    with opened(browser, keyed.url) as page:
        enter(page, keyed.secrets["reader"])
        expect(page.locator("#tiles")).to_contain_text("On time")
        expect(page.get_by_text("Read-only")).to_be_visible()
        assert page.get_by_role("button", name="Pin", exact=True).count() == 0
        page.reload()
        expect(page.locator("#tiles")).to_contain_text("On time")
        page.get_by_label("prompt", exact=True).fill("a ring of my own")
        page.get_by_role("button", name="Draw").click()
        hung(page, "light")
        assert WISH not in page.content(), "what others asked for is for the keys of admins"
        picture_of(page, "desktop-reader")


def test_an_admin_pins_and_pauses_and_the_audit_says_who(browser: Browser, keyed: Site) -> None:
    with opened(browser, keyed.url) as page:
        enter(page, keyed.secrets["admin"])
        expect(page.locator("#pictures")).to_contain_text(WISH)
        page.get_by_label("threshold").fill("0.3")
        page.get_by_label("threshold").press("Tab")
        expect(page.get_by_label("threshold")).to_have_value("0.300")
        page.get_by_role("button", name="Pin", exact=True).click()
        expect(page.locator(".q-notification")).to_contain_text("pin threshold=0.3")
        expect(page.locator("#orders")).to_contain_text("hreshold pinned at 0.3")
        page.get_by_role("button", name="Pause the planner").click()
        expect(page.locator("#orders")).to_contain_text("paused")
        picture_of(page, "desktop-admin")
        standing, deeds = keyed.broker.orders(), Observer(keyed.broker).deeds(10)
        assert (standing.threshold, standing.paused) == (0.3, True)
        assert [(deed.who, deed.what) for deed in deeds] == [
            ("admin (dashboard)", "pin threshold=0.3"),
            ("admin (dashboard)", "pause"),
        ]
        page.get_by_role("button", name="Unpin all").click()
        page.get_by_role("button", name="Resume").click()
        expect(page.locator("#orders")).to_contain_text("Nothing is pinned, paused or drained")


def test_a_picture_opens_by_the_address_that_a_page_was_given_and_no_other(browser: Browser, site: Site) -> None:
    with opened(browser, site.url) as page:
        address = page.locator("#pictures img").first.get_attribute("src") or ""
        found = httpx.get(site.url + address)
        assert (found.status_code, found.headers["content-type"]) == (200, "image/webp")
        other = address.replace("stage=light", "stage=heavy") if "light" in address else address[:-1]
        assert httpx.get(site.url + other).status_code == 403
