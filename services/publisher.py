"""Publishes a trace, open loop: each prompt at its time, however the servers fare.

It reports how late it was against its own schedule; that lateness is taken from the prompts' deadlines, so
that a slow publisher cannot flatter the system.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from logging import Logger
from pathlib import Path
from typing import Any, Final

from shared.broker import Broker
from shared.catalog import load_cascade
from shared.config import Settings, load, parser
from shared.connection import CommandRefused, Unreachable
from shared.door import Door
from shared.errors import SettingsError
from shared.exchange import Publication
from shared.ledger import percentile
from shared.log import configure
from shared.messages import Job
from shared.process import Stop, guarded
from shared.wire import check_prompt
from traces.read import Arrival, TraceError, read_prompts, read_trace, scale

AT_ONCE: Final = 64  # prompts in one call to the door
RETRY_S: Final = 0.2
UNTITLED: Final = "untitled"


@dataclass
class Report:
    """What the publisher did."""

    receipts: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)  # by their reason
    lags_s: list[float] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Counts and lateness, for people and for the run's folder."""
        lags_s = sorted(self.lags_s)
        late = {f"lag_p{percent}_s": round(percentile(lags_s, percent), 6) for percent in (50, 99, 100)}
        reasons = {f"refused_{why}": count for why, count in sorted(self.refusals.items())}
        return {"offered": sum(self.receipts.values()), **self.receipts, **reasons, **late}


class Publisher:
    """Offers each arrival at its time."""

    def __init__(self, broker: Broker, prompts: Sequence[str], allowance_s: float, logger: Logger) -> None:
        self._broker = broker
        self._door = Door(broker.plan)
        self._prompts = prompts
        self._allowance_s = allowance_s
        self._logger = logger
        self._run = uuid.uuid4().hex[:6]
        self.report = Report()

    def publish(self, arrivals: Sequence[Arrival], stop: Stop) -> None:
        """Publish them all, or until asked to stop."""
        began = time.monotonic()
        for group in due_together(arrivals):
            stop.sleep(group[0][1].at_s - (time.monotonic() - began))
            if stop:
                return
            self._offer(group, began, stop)

    def _offer(self, group: Sequence[tuple[int, Arrival]], began: float, stop: Stop) -> None:
        again = False
        while not stop:
            try:
                offers = self._offers(group, began)
                receipts = self._broker.publish(offers)
            except (*Unreachable, CommandRefused) as wrong:
                # Offering the same ids again is safe: the door knows those that came through.
                self._logger.warning("redis took no prompts", extra={"reason": str(wrong)})
                again = True
                stop.sleep(RETRY_S)
                continue
            known = "published" if again else "known"
            self.report.receipts.update(known if each.status == "known" else each.status for each in receipts)
            self.report.refusals.update(each.why for each in receipts if each.status == "refused")
            self.report.lags_s += [offer.lag_s for offer in offers]
            return

    def _offers(self, group: Sequence[tuple[int, Arrival]], began: float) -> list[Publication]:
        jobs = [(self._job(number, arrival), arrival.at_s) for number, arrival in group]
        # Read last: a look at the plan takes time, and it counts as lateness too.
        now_s = time.monotonic() - began
        return [Publication(job, self._allowance_s, max(0.0, now_s - at_s)) for job, at_s in jobs]

    def _job(self, number: int, arrival: Arrival) -> Job:
        prompt = arrival.prompt or self._prompts[arrival.index % len(self._prompts)]
        prompt_id, parameters = f"{self._run}-{number}", {"index": arrival.index}
        route = self._door.route(prompt, prompt_id)
        return Job(prompt_id, prompt, 0.0, 0.0, seed=number, route=route, parameters=parameters)


def due_together(arrivals: Sequence[Arrival], apart_s: float = 0.002) -> Iterator[list[tuple[int, Arrival]]]:
    """Numbered arrivals in groups so close that one call serves them."""
    group: list[tuple[int, Arrival]] = []
    for numbered in enumerate(arrivals):
        if group and (numbered[1].at_s - group[0][1].at_s > apart_s or len(group) == AT_ONCE):
            yield group
            group = []
        group.append(numbered)
    if group:
        yield group


def prompts_for(cascade: str, path: Path | None) -> list[str]:
    """The prompts of a file, or captions of the scenes that the tiny cascade knows."""
    if path is not None:
        # The published file has an empty line; its place must stay, for scores are looked up by it.
        return checked([prompt or UNTITLED for prompt in read_prompts(path)], path)
    if cascade != "tiny":
        raise SettingsError("prompts: name a file with one prompt a line (--prompts FILE)")
    from models.scenes import caption, held_out_scenes

    return [caption(scene) for scene in held_out_scenes(1000, seed=0)]


def checked(prompts: list[str], source: Path) -> list[str]:
    """The prompts, where every door would take them; raises SettingsError with file and line."""
    for number, prompt in enumerate(prompts, 1):
        try:
            check_prompt(prompt)
        except ValueError as wrong:
            raise SettingsError(f"{source}:{number}: {wrong}") from None
    return prompts


def main() -> int:
    """Publish one trace and print the report as JSON."""
    options = parser(__doc__ or "", ["redis_url", "deployment", "cascade", "deadline_s", "log_dir"])
    options.add_argument("--trace", type=Path, required=True, help="arrival_ms,prompt_index or arrival_s[,prompt]")
    options.add_argument("--prompts", type=Path, help="file with one prompt a line; default for tiny: its scenes")
    options.add_argument("--rate", type=float, default=1.0, help="factor on the rate of the trace")
    options.add_argument("--time", type=float, default=1.0, help="factor on the length of the trace")
    arguments = options.parse_args()
    settings = load(arguments)
    logger = configure("publisher", settings.log_dir)
    try:
        arrivals = scale(read_trace(arguments.trace), rate=arguments.rate, time=arguments.time)
        checked([arrival.prompt or UNTITLED for arrival in arrivals], arguments.trace)
        prompts = prompts_for(settings.cascade, arguments.prompts)
    except TraceError as wrong:
        raise SettingsError(str(wrong)) from None
    _publish(settings, arrivals, prompts, logger)
    return 0


def _publish(settings: Settings, arrivals: Sequence[Arrival], prompts: Sequence[str], logger: Logger) -> None:
    broker = Broker(settings)
    broker.check()
    allowance_s = settings.deadline_s or load_cascade(settings.cascade).deadline_s
    publisher = Publisher(broker, prompts, allowance_s, logger)
    publisher.publish(arrivals, Stop().listen())
    sys.stdout.write(json.dumps(publisher.report.as_dict()) + "\n")


if __name__ == "__main__":
    guarded(main)
