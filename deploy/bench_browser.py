"""What a person waits for, for `deploy.bench`: from the click on Draw to the light picture in a real browser."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

from deploy.bench_gateway import free_port
from deploy.runner import PATIENCE_S, Deployment, Run, deployment
from deploy.serve import address, slots_here, wait_ready
from shared.config import Settings

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")
PROMPT: Final = "big blue circle left of big orange triangle on black"
CALM_S: Final = 1.0  # between two tries, after all of the first is drawn
# Clicks, and waits until another picture hangs there that has pixels; in milliseconds by the page's own clock, for ever
# where none comes.
CLICKED: Final = """
async () => {
  const find = () => document.querySelector('.answer .drawn.light img');
  const before = find(), began = performance.now();
  document.querySelector('button.draw').click();
  for (;;) {
    const img = find();
    if (img && img !== before && img.complete && img.naturalWidth > 0) return performance.now() - began;
    if (performance.now() - began > 20000) return Infinity;
    await new Promise(resume => setTimeout(resume, 2));
  }
}
"""


def program() -> str | None:
    """Chromium's place; None where it or Playwright is not installed."""
    if importlib.util.find_spec("playwright") is None:
        return None
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def first_pictures(chromium: str, tries: int) -> list[float]:
    """Milliseconds from the click to the light picture, a try each, on an otherwise idle tiny deployment."""
    with tempfile.TemporaryDirectory(prefix="cascade-run-") as folder:
        settings = Settings(cascade="tiny", slots=slots_here(), node="bench", deployment="bench", http_port=free_port())
        with deployment(Run(Path(folder), settings, Path(folder), nice=5, gateway=True)) as running:
            running.wait_ready(lambda _: None)
            wait_ready(running, address(settings))
            return _tried(running, chromium, tries)


def _tried(running: Deployment, chromium: str, tries: int) -> list[float]:
    from playwright.sync_api import sync_playwright  # a package of the tests

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"] if not os.getuid() else [])
        page = browser.new_page()
        page.goto(address(running.settings))
        page.get_by_label("prompt", exact=True).fill(PROMPT)
        taken_ms: list[float] = []
        for _ in range(tries + 1):
            _calm(running)
            taken_ms.append(float(page.evaluate(CLICKED)))
        browser.close()
    return taken_ms[1:]  # the first one fills caches


def _calm(running: Deployment) -> None:
    """Wait until nothing is drawn any more."""
    end = time.monotonic() + PATIENCE_S
    while running.observer.next_due() is not None:
        if time.monotonic() > end:
            raise RuntimeError("a prompt does not end")
        time.sleep(0.1)
    time.sleep(CALM_S)
