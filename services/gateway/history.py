"""The deployment's last hour, kept by one thread that looks once a second; the dashboard and /metrics read it."""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Final

from services.gateway.counting import Bucket, counted, fleet, joined, moment, tiles
from services.gateway.snapshot import Moment, SlotRow, Snapshot, StageMoment, WorkerRow
from shared.broker import Broker
from shared.catalog import Cascade, load_cascade
from shared.errors import SettingsError
from shared.letters import Letter
from shared.lookout import LETTERS, LOOK_S, Listener, Lookout, Mark, News, Reading, Rounds
from shared.messages import Outcome
from shared.plans import Plan
from shared.process import Stop, patiently
from shared.schema import PLANS_KEPT

__all__ = ["History", "Mark", "Moment", "SlotRow", "Snapshot", "StageMoment", "WorkerRow"]

KEPT_S: Final = 3600.0  # of moments: what `done` keeps by default, so that a restart loses little
SEED: Final = 20_000  # newest outcomes that a start reads: an hour's may be a million, and the door must open
OUTCOMES: Final = 2_000  # newest ones kept whole, with their scores
SHOWN: Final = 100  # of them in a snapshot
SMOOTH_S: Final = 10.0  # percentiles, shares and mean batches of one second say little
TILES_S: Final = 60.0  # what the tiles look back on


class History:
    """Looks at a deployment once a second, from `start` to `stop`; `snapshot` may be called from any thread.

    `listeners` are told of each look too, in the thread.
    """

    def __init__(self, broker: Broker, listeners: Sequence[Listener] = ()) -> None:
        self._lookout = Lookout(broker)
        self._rounds = Rounds(self._lookout, [self, *listeners], self._seed)
        self._cascade = _known_cascade(broker.settings.cascade)
        self._lock = threading.Lock()
        self._stop = Stop()
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._logger = logging.getLogger("cascade")
        self._looked_s: float | None = None
        self._trouble = "nobody has looked yet"
        self._looks = 0
        self._reading: Reading | None = None
        self._moments: deque[Moment] = deque(maxlen=round(KEPT_S / LOOK_S))
        self._buckets: deque[Bucket] = deque(maxlen=round(TILES_S / LOOK_S))
        self._marks: deque[Mark] = deque(maxlen=PLANS_KEPT)
        self._outcomes: deque[Outcome] = deque(maxlen=OUTCOMES)
        self._letters: tuple[Letter, ...] = ()
        self._made: dict[float, Snapshot] = {}

    def start(self) -> None:
        """Begin to look, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def step(self) -> float:
        """One look; returns the seconds until the next. Raises what Redis raises, and remembers it as the trouble."""
        return self._rounds.step()

    @property
    def looks(self) -> int:
        """How often it was seen how things stand, or that nobody can see it; a snapshot stays until it grows."""
        return self._looks

    def snapshot(self, window_s: float = 600.0) -> Snapshot:
        """What is known now; computed once for each look, however many ask."""
        with self._lock:
            if window_s not in self._made:
                self._made[window_s] = self._snapshot(window_s)
            return self._made[window_s]

    def _run(self) -> None:
        try:
            patiently(self.step, self._stop, self._logger)
        finally:
            if not self._stop:
                self.away("nobody looks any more; the gateway's log says why")

    # -- remembering -----------------------------------------------------------------------------------------

    def _seed(self) -> None:
        """Begin with what `done` and `plans` still hold, as if somebody had looked each second."""
        now = self._lookout.now()
        outcomes, marks = self._lookout.past(SEED, now - KEPT_S)
        with self._lock:
            self._marks.extend(marks)
            self._outcomes.extend(outcomes)
            for bucket in _by_second(outcomes, now):
                self._add(bucket, _in_force(marks, bucket.time_s), None)

    def note(self, news: News) -> None:
        """Take in one look; see Listener."""
        looked_s = time.monotonic()
        seconds = LOOK_S if self._looked_s is None else max(looked_s - self._looked_s, 1e-3)
        bucket = Bucket.of(news.reading.time_s, seconds, news.outcomes)
        if self._reading is not None:
            bucket.offered, bucket.refusals = counted(self._reading.totals, news.reading.totals)
        with self._lock:
            self._looked_s, self._reading, self._trouble = looked_s, news.reading, ""
            self._outcomes.extend(news.outcomes)
            self._marks.extend(news.marks)
            self._letters = (*reversed(news.letters), *self._letters)[: min(news.reading.dead, LETTERS)]
            self._add(bucket, news.reading.plan, news.reading)
            self._forget()

    def away(self, trouble: str) -> None:
        """Remember why nobody could look; see Listener."""
        with self._lock:
            self._trouble = trouble
            self._forget()

    def _forget(self) -> None:
        self._made.clear()
        self._looks += 1

    def _add(self, bucket: Bucket, plan: Plan | None, reading: Reading | None) -> None:
        self._buckets.append(bucket)
        self._moments.append(moment(bucket, joined(self._recent(SMOOTH_S)), plan, reading))

    def _recent(self, seconds: float) -> list[Bucket]:
        """The newest buckets, oldest first, of so many seconds."""
        since = self._buckets[-1].time_s - seconds
        return list(takewhile(lambda bucket: bucket.time_s > since, reversed(self._buckets)))[::-1]

    # -- showing ---------------------------------------------------------------------------------------------

    def _snapshot(self, window_s: float) -> Snapshot:
        reading, time_s = self._reading, self._moments[-1].time_s if self._moments else 0.0
        since = time_s - window_s
        plan = reading.plan if reading else None
        recent = self._recent(TILES_S) if self._buckets else []
        return Snapshot(
            window_s=window_s,
            time_s=time_s,
            trouble=self._trouble,
            tiles=tiles(joined(recent), plan, self._cascade),
            moments=tuple(each for each in self._moments if each.time_s > since),
            marks=tuple(mark for mark in self._marks if mark.time_s > since),
            plan=plan,
            fleet=fleet(reading) if reading else (),
            scores=tuple(_scores(outcome for outcome in self._outcomes if outcome.finished > since)),
            latest=tuple(list(self._outcomes)[: -SHOWN - 1 : -1]),
            open=reading.open if reading else 0,
            dead=reading.dead if reading else 0,
            letters=self._letters,
        )


def _known_cascade(name: str) -> Cascade | None:
    """The cascade, for the estimate of quality; None where the catalogue has none of this name."""
    try:
        return load_cascade(name)
    except SettingsError:
        return None


def _by_second(outcomes: Sequence[Outcome], now: float) -> Iterable[Bucket]:
    """One bucket for each second from the first outcome until now, also for those in which nothing ended."""
    known: dict[int, list[Outcome]] = {}
    for outcome in outcomes:
        if now - KEPT_S < outcome.finished <= now:  # one written by hand may say anything
            known.setdefault(int(outcome.finished), []).append(outcome)
    for second in range(min(known), int(now) + 1) if known else ():
        yield Bucket.of(min(second + 1.0, now), 1.0, known.get(second, ()))


def _in_force(marks: Sequence[Mark], time_s: float) -> Plan | None:
    found = bisect_right(marks, time_s, key=lambda mark: mark.time_s)
    return marks[found - 1].plan if found else None


def _scores(outcomes: Iterable[Outcome]) -> Iterable[float]:
    return (outcome.score for outcome in outcomes if outcome.score is not None)
