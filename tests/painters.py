"""Workers played in threads: they draw real pictures at once, and what the prompt says decides what becomes of it."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from models.encoding import encode
from shared.broker import Broker
from shared.exchange import Hop
from shared.messages import Entry, Job
from shared.schema import STAGES, Stage
from tests.helpers import Hand, hire

SIDE = 64
COLOURS: dict[Stage, tuple[int, int, int]] = {"light": (250, 200, 50), "heavy": (20, 40, 160)}
HARD, UNSAFE, UGLY = "hard", "unsafe", "ugly"  # words of a prompt: goes on to heavy, is blocked, cannot be drawn
# And: its light picture is lost; its last picture is one that no program can read.
LOST, SPOILT = "lost", "spoilt"
PAUSE_S = 0.003


@dataclass
class Painters:
    """One of each stage; a stage whose `allowed` is cleared draws nothing until it is set again."""

    broker: Broker
    allowed: dict[Stage, threading.Event] = field(
        default_factory=lambda: {stage: threading.Event() for stage in STAGES}
    )

    @contextmanager
    def resting(self, stage: Stage) -> Iterator[None]:
        """For a while this stage draws nothing."""
        self.allowed[stage].clear()
        try:
            yield
        finally:
            self.allowed[stage].set()

    def paint(self, stage: Stage, end: threading.Event) -> None:
        hand = hire(self.broker, stage)
        while not end.wait(PAUSE_S):
            hand.beat()
            if self.allowed[stage].is_set():
                for entry in hand.take(8):
                    self.broker.commit(stage, hand.name, [painted(hand, entry)])


def painted(hand: Hand, entry: Entry) -> Hop:
    drawn, job = hand.drawn(entry, 0.25 if hand.stage == "light" else None), entry.job
    if UNSAFE in job.prompt:
        return Hop(entry, "failed", "unsafe", reason="the prompt holds a blocked phrase", blamed=True)
    if UGLY in job.prompt:
        return Hop(entry, "failed", "error", reason="ValueError: too ugly", blamed=True)
    goes_on = hand.stage == "light" and job.route == "cascade" and HARD in job.prompt
    made = picture(hand.stage, job)
    if LOST in job.prompt and hand.stage == "light":
        made = b""
    if SPOILT in job.prompt and not goes_on:
        made = made[:100]
    return Hop(drawn, None if goes_on else hand.stage, "escalate" if goes_on else "asked", made)


def picture(stage: Stage, job: Job) -> bytes:
    """One colour a stage, and the seed in the first pixel."""
    pixels = np.full((SIDE, SIDE, 3), COLOURS[stage], np.uint8)
    pixels[0, 0] = (job.seed % 256, 0, 0)
    return encode(pixels, job, stage)


def colour(encoded: bytes) -> Stage:
    """Whose colour a picture has."""
    found = Image.open(io.BytesIO(encoded)).convert("RGB").getpixel((SIDE // 2, SIDE // 2))
    assert isinstance(found, tuple)
    return min(COLOURS, key=lambda stage: sum(abs(a - b) for a, b in zip(COLOURS[stage], found, strict=True)))


@contextmanager
def painting(broker: Broker) -> Iterator[Painters]:
    """Painters of both stages at work."""
    painters, end = Painters(broker), threading.Event()
    threads = [threading.Thread(target=painters.paint, args=(stage, end), daemon=True) for stage in STAGES]
    for allowed in painters.allowed.values():
        allowed.set()
    for thread in threads:
        thread.start()
    try:
        yield painters
    finally:
        end.set()
        for thread in threads:
            thread.join(10.0)
