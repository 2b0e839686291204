"""What becomes of the prompts in a worker's hands: hopped, ended, moved, handed back.

What Redis refuses of one prompt costs its mates nothing: that prompt alone is set aside, to be tried again later.
"""

from __future__ import annotations

from collections.abc import Sequence
from logging import Logger

from services.lease import Lease
from shared.broker import Broker, HopsRefused
from shared.connection import CommandRefused
from shared.errors import NewerEntry
from shared.exchange import Broken, Hop
from shared.messages import Entry
from shared.schema import Stage


class Settlement:
    """`refused`: whether Redis refused a prompt of this turn."""

    def __init__(self, stage: Stage, lease: Lease, broker: Broker, allowance_s: float, logger: Logger) -> None:
        """`allowance_s`: seconds that a prompt written by hand is given."""
        self.refused = False
        self._stage = stage
        self._consumer = lease.consumer
        self._broker = broker
        self._allowance_s = allowance_s
        self._logger = logger

    def commit(self, hops: Sequence[Hop]) -> None:
        """Hop or end these; raises CommandRefused where Redis refuses all alike."""
        try:
            self._broker.commit(self._stage, self._consumer, hops)
        except HopsRefused as wrong:
            self._set_aside(wrong.entries, wrong)

    def fail(self, broken: Broken) -> None:
        """End a malformed entry; one of a newer version is kept for whoever can read it."""
        if isinstance(broken.error, NewerEntry) and self._kept(broken, broken.error.major):
            return
        self._logger.warning("malformed entry", extra={"entry": broken.entry_id, "reason": str(broken.error)})
        try:
            self._broker.fail(self._stage, self._consumer, broken, self._allowance_s)
        except CommandRefused as wrong:
            self._set_aside([broken], wrong)

    def _kept(self, broken: Broken, major: int) -> bool:
        try:
            kept = self._broker.keep_for(self._stage, self._consumer, broken, major, self._allowance_s)
        except CommandRefused as wrong:
            self._set_aside([broken], wrong)
            return True
        if kept:
            self._logger.info("kept for a newer worker", extra={"entry": broken.entry_id, "major": major})
        return kept

    def adopted(self, entry: Entry) -> Entry | None:
        """The entry with what a hand-written one lacks; None where Redis refuses it for now."""
        if entry.job.id and entry.job.deadline and entry.job.published:
            return entry
        try:
            return self._broker.adopt(self._stage, entry, self._allowance_s)
        except CommandRefused as wrong:
            self._set_aside([entry], wrong)
            return None

    def let_go(self, late: Sequence[Entry], light_draws: bool) -> None:
        """End what can no longer be drawn in time: a light picture is kept, a prompt without one makes room.

        `light_draws`: whether there is a light stage to leave for.
        """
        staying = [entry for entry in late if not (light_draws and self._left_for_light(entry))]
        hops = [Hop(entry, "light" if entry.job.light_visit else "dropped", "deadline") for entry in staying]
        if hops:
            self.commit(hops)

    def hand_back(self, entries: Sequence[Entry], *, suspect: bool = False) -> None:
        """Return these to the queue; suspect ones are drawn alone from then on."""
        self._broker.hand_back(self._stage, self._consumer, entries, suspect=suspect)

    def hand_back_all(self) -> None:
        """Return whatever this worker holds, known to it or not."""
        self._broker.hand_back_all(self._stage, self._consumer)

    def _left_for_light(self, entry: Entry) -> bool:
        """Whether one without a picture left heavy, for light may still draw it; or waits until it can."""
        if self._stage == "light" or entry.job.light_visit:
            return False
        place = entry.job.id, entry.priority, entry.entry_id
        try:
            return self._broker.move_to_light(*place, holder=self._consumer)
        except CommandRefused as wrong:
            self._set_aside([entry], wrong)
            return True

    def _set_aside(self, entries: Sequence[Entry | Broken], wrong: CommandRefused) -> None:
        self.refused = True
        about = {"entries": [entry.entry_id for entry in entries], "reason": str(wrong)}
        self._logger.warning("redis refused a prompt", extra=about)
        self._broker.set_aside(self._stage, self._consumer, entries)
