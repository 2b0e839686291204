"""Clients of the door over HTTP, who ask again with the same Idempotency-Key while the door is away."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPException
from typing import Final

AGAIN_S: Final = 0.2
PATIENCE_S: Final = 30.0
AT_ONCE: Final = 16
DRAWN_BY_SLEEPING: Final = 410  # the prompt ended well, and a worker that sleeps left no picture to send
ASKED: Final = "a cat for client"  # how their prompts begin


class Clients(threading.Thread):
    """One more every `every_s`, until told to stop. `refused`: what the door said to those it gave none.
    `unheard`: those that never got an answer.

    `again`: how often one of them had to ask again.
    """

    def __init__(self, address: str, key: str, every_s: float) -> None:
        super().__init__(name="clients", daemon=True)
        self.asked = self.answered = self.again = 0
        self.refused: list[str] = []
        self.unheard: list[str] = []
        self._url = f"http://{address}:8000/v1/images/generations"
        self._key = key
        self._every_s = every_s
        self._stop_asked = threading.Event()
        self._lock = threading.Lock()

    def run(self) -> None:
        """Send each on its way at its time."""
        waiting: list[Future[None]] = []
        with ThreadPoolExecutor(AT_ONCE) as pool:
            while not self._stop_asked.wait(self._every_s):
                waiting.append(pool.submit(self._client, self.asked))
                self.asked += 1
        for each in waiting:
            each.result()

    def stop(self) -> None:
        """Ask no more; returns when all have their answer."""
        self._stop_asked.set()
        self.join()

    def _client(self, number: int) -> None:
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._ask(number)
            except urllib.error.HTTPError as wrong:
                if wrong.code == DRAWN_BY_SLEEPING:
                    return self._count_answer()
                said = f"{number}: {wrong.code} {wrong.read()[:200].decode(errors='replace')}"
                if wrong.code != 503 or time.monotonic() > end:
                    return self._end(self.refused, said)
            except (OSError, HTTPException) as wrong:  # the door is away, or went away before it answered
                if time.monotonic() > end:
                    return self._end(self.unheard, f"{number}: {wrong}")
            else:
                return self._count_answer()
            with self._lock:
                self.again += 1
            time.sleep(AGAIN_S)

    def _ask(self, number: int) -> None:
        body = json.dumps({"prompt": f"{ASKED} {number}"}).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        headers["Idempotency-Key"] = f"client-{number}"
        with urllib.request.urlopen(urllib.request.Request(self._url, body, headers), timeout=PATIENCE_S) as answer:
            answer.read()

    def _count_answer(self) -> None:
        with self._lock:
            self.answered += 1

    def _end(self, those: list[str], said: str) -> None:
        with self._lock:
            those.append(said)
