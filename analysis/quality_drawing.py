"""Pictures for a quality curve, drawn by the pipeline itself: prompts published, answers kept as they come.

    prompts ──publish──> light or heavy workers, wherever they run ──done──> <folder>/<stage>/<seed>/<number>.webp

What lies in the folder is not drawn again, so a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import csv
import time
import uuid
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from models.bars import Say
from shared.broker import Broker
from shared.errors import CascadeError, SettingsError
from shared.exchange import Publication
from shared.files import write_bytes
from shared.messages import Job, Outcome
from shared.observer import Observer
from shared.schema import BATCH, Stage
from shared.tables import rows

SEED_STEP: Final = 1_000_000  # between the seeds of one prompt, so that no two prompts share one
ALLOWANCE_S: Final = 3600.0  # nobody waits for these: they come after everybody else's
WINDOW: Final = 256  # prompts offered and not yet answered: enough for full batches on many GPUs
PATIENCE_S: Final = 300.0  # without a single answer
READY_S: Final = 10.0  # for workers that are just being started anew
TRIES: Final = 3
LOOK_S: Final = 2.0
SCORES: Final = "scores.csv"


class Wanted(NamedTuple):
    """One picture: which seed of which prompt."""

    seed: int
    number: int


def path_of(folder: Path, stage: Stage, wanted: Wanted) -> Path:
    """Where its file lies."""
    return folder / stage / str(wanted.seed) / f"{wanted.number:06d}.webp"


def missing(folder: Path, stage: Stage, prompts: int, seeds: int) -> list[Wanted]:
    """The pictures of a stage that are yet to be drawn."""
    every = (Wanted(seed, number) for seed in range(seeds) for number in range(prompts))
    return [each for each in every if not path_of(folder, stage, each).exists()]


class Commission:
    """All prompts at all seeds, by one stage's model."""

    def __init__(self, broker: Broker, stage: Stage, prompts: Sequence[str], seeds: int, folder: Path) -> None:
        self._broker = broker
        self._observer = Observer(broker)
        self._stage: Stage = stage
        self._prompts = prompts
        self._folder = folder
        self._count = seeds * len(prompts)
        self._waiting = deque(missing(folder, stage, len(prompts), seeds))
        self._offered: dict[str, Wanted] = {}
        self._tries: Counter[Wanted] = Counter()
        self._run = uuid.uuid4().hex[:8]  # a new one each time: an id that Redis knows would not be drawn again

    @property
    def missing(self) -> int:
        """How many pictures are yet to come."""
        return len(self._waiting) + len(self._offered)

    def draw(self, say: Say) -> None:
        """Publish and collect until all are there; raises CascadeError where a prompt fails again and again."""
        after = self._observer.newest(self._broker.keys.done)
        if self.missing:
            self._await_workers()
        heard = time.monotonic()
        while self.missing:
            self._offer()
            outcomes, after = self._observer.outcomes(after)
            if self._take([outcome for outcome in outcomes if outcome.id in self._offered]):
                heard = time.monotonic()
                say(f"{self._stage} pictures", self._count - self.missing, self._count)
            elif time.monotonic() - heard > PATIENCE_S:
                raise CascadeError(f"no {self._stage} picture for {PATIENCE_S:.0f} s: see services.ctl status")
            elif not outcomes:
                self._observer.follow(self._broker.keys.done, after, 1, LOOK_S)

    def _await_workers(self) -> None:
        end = time.monotonic() + READY_S
        while not any(worker.get("ready") == "1" for worker in self._observer.workers()):
            if time.monotonic() > end:
                raise CascadeError(
                    "no worker is ready on this Redis: start a deployment (make serve), or let one be started: "
                    "python -m deploy.quality"
                )
            time.sleep(0.05)

    def _offer(self) -> None:
        some = [self._waiting.popleft() for _ in range(min(len(self._waiting), WINDOW - len(self._offered)))]
        if not some:
            return
        receipts = self._broker.publish([Publication(self._job(each), ALLOWANCE_S) for each in some])
        refused = [receipt for receipt in receipts if receipt.status == "refused"]
        for each, receipt in zip(some, receipts, strict=True):
            if receipt.status == "refused":
                self._waiting.append(each)
            else:
                self._offered[receipt.id] = each
        if refused and len(refused) == len(receipts):
            time.sleep(min(LOOK_S, max(0.1, refused[0].retry_after_s)))

    def _job(self, wanted: Wanted) -> Job:
        prompt_id = f"quality-{self._run}-{self._stage}-{wanted.seed}-{wanted.number}-{self._tries[wanted]}"
        seed = wanted.seed * SEED_STEP + wanted.number
        return Job(prompt_id, self._prompts[wanted.number], 0.0, 0.0, seed=seed, route=self._stage, priority=BATCH)

    def _take(self, outcomes: Sequence[Outcome]) -> int:
        """Keep the pictures that came; returns how many."""
        found = self._observer.images([(outcome.id, self._stage) for outcome in outcomes])
        kept = 0
        for outcome, picture in zip(outcomes, found, strict=True):
            wanted = self._offered.pop(outcome.id)
            if outcome.end == self._stage and picture:
                self._keep(wanted, outcome, picture)
                kept += 1
            else:
                self._again(wanted, outcome)
        return kept

    def _keep(self, wanted: Wanted, outcome: Outcome, picture: bytes) -> None:
        path = path_of(self._folder, self._stage, wanted)
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._stage == "light":
            # Before the picture: where that lies, its score is known.
            scores = self._folder / SCORES
            begins = not scores.exists()
            with scores.open("a", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerows([("seed", "number", "score")] if begins else [])
                writer.writerow((wanted.seed, wanted.number, outcome.score))
        write_bytes(path, picture)

    def _again(self, wanted: Wanted, outcome: Outcome) -> None:
        self._tries[wanted] += 1
        if self._tries[wanted] >= TRIES:
            why = "without a picture" if outcome.end == self._stage else f"as {outcome.end} ({outcome.why})"
            raise CascadeError(
                f"prompt {wanted.number + 1}, {self._prompts[wanted.number][:60]!r}: ended {why} {TRIES} times"
            )
        self._waiting.append(wanted)


def scores_in(folder: Path) -> dict[Wanted, float]:
    """The scores that the light workers gave; raises SettingsError that names the line."""
    found: dict[Wanted, float] = {}
    path = folder / SCORES
    if not path.exists():
        raise SettingsError(f"{path}: not there: the light pictures are drawn first")
    for row in rows(path):
        found[Wanted(int(row.number("seed")), int(row.number("number")))] = row.number("score")
    return found
