"""Draws prompts of one stage on one slot: claim, draw, score, settle.

    streams ──claim──> batch ──draw──> pictures ──decide──> hop to heavy, or to the end

It reads only while the plan gives its slot to its stage and it holds the slot's token, and gives the token
up after the batch in which it saw another plan. Pictures that are encoded in threads are settled while the next batch
is drawn. A model that waits in host memory for its turn leaves the device
before the token is given up, and comes back once it is held.
"""

from __future__ import annotations

import time
import traceback
import uuid
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from logging import Logger
from typing import Final

from models.backend import Backend, NobodyWaits, OutOfMemory, Undeveloped, open_backend, stays
from services.finishing import Finishing, Unsettled
from services.hops import Drawing
from services.lease import Lease
from services.settlement import Settlement
from services.studio import Studio
from services.watchdog import Watchdog
from shared.broker import Broker
from shared.cascade import hopeless, lets_go, light_draws
from shared.catalog import Cascade, load_cascade
from shared.config import Settings, load, parser
from shared.connection import BLOCK_S, CommandRefused, Unreachable
from shared.errors import ModelError, SettingsError
from shared.exchange import Claim, Hop
from shared.letters import RETRY_OF
from shared.log import configure
from shared.messages import REQUEST, TRACEPARENT, USER, Entry
from shared.plans import Plan
from shared.process import Stop, guarded, parting, patiently, until_done
from shared.schema import Stage

SLOT_RETRY_S: Final = 0.02  # the other process of the slot is finishing its batch
MEMORY_RETRY_S: Final = 0.2  # the other process of the slot was killed and its memory is not free yet
LONGEST_REASON: Final = 500  # characters: a command that mends it comes last
TRACEBACK_LIMIT: Final = 4_000  # characters of its end


class Worker:
    """One stage on one slot, until told to stop."""

    def __init__(
        self,
        settings: Settings,
        stage: Stage,
        cascade: Cascade,
        backend: Backend,
        lease: Lease,
        logger: Logger,
        watchdog: Watchdog | None = None,
    ) -> None:
        self._stage = stage
        self._lease = lease
        self._logger = logger
        self._broker = Broker(settings)
        self._plan: Plan | None = None
        self._shaken = False  # the last turn broke off: prompts may be ours that we do not know of
        self._unknown: set[bytes] = {RETRY_OF, TRACEPARENT, REQUEST, USER}
        self._studio = Studio(settings, stage, cascade, backend, self._broker, logger, watchdog)
        self._allowance_s = settings.deadline_s or cascade.deadline_s
        self._settlement = Settlement(stage, lease, self._broker, self._allowance_s, logger)
        self._finishing = Finishing(lease, watchdog)
        self._margin_s = settings.margin_s

    def step(self) -> float:
        """One turn: returns the seconds to sleep before the next."""
        if self._shaken:
            self._settle_up()
            self._settlement.hand_back_all()
        self._shaken = True  # until this turn has gone through
        pause_s = self._turn()
        self._shaken = False
        return pause_s

    def _turn(self) -> float:
        plan = self._current_plan()
        if plan is None or plan.assignment.get(self._lease.slot_name) != self._stage:
            self._settle_up()
            self._studio.park()
            self._lease.give_up_slot(self._broker)
            self._lease.changed.wait(BLOCK_S)
            self._lease.changed.clear()
            return 0.0
        if not self._lease.take_slot(self._broker):
            self._studio.park()  # for whoever took it while this worker was cut off
            return SLOT_RETRY_S
        if not self._studio.unpark():
            return MEMORY_RETRY_S
        # After a turn in which Redis refused a prompt the others come first: such prompts may be many.
        others_first, self._settlement.refused = self._settlement.refused, False
        claim = self._claim(plan, suspects=not others_first)
        self._lease.note_plan(claim.plan_version)
        if not claim.holder:
            self._lease.lose_slot()
        if claim.regrouped:
            self._logger.warning("a stream had lost its group; it was created again", extra={"stage": self._stage})
        for broken in claim.broken:
            self._settlement.fail(broken)
        if claim.entries:
            self._serve(claim, plan)
        elif claim.holder and not (claim.broken or others_first):
            self._settle_up()
            self._broker.wait(self._stage, claim.ask_again_s or BLOCK_S)
        return 0.0

    def leave(self) -> None:
        """Give everything back."""
        try:
            self._settle_up()
        except (*Unreachable, CommandRefused) as wrong:
            self._logger.warning("the last batch was not settled", extra={"reason": str(wrong)})
            self._shaken = True
        if self._shaken:
            self._settlement.hand_back_all()
        try:
            self._studio.park()
        finally:
            self._lease.end(self._broker)

    def die(self) -> None:
        """End the lease with the prompt that broke this worker in hand: it is charged with a death."""
        with suppress(Unsettled, *Unreachable, CommandRefused):
            self._finishing.wait()
        self._lease.end(self._broker)

    def _current_plan(self) -> Plan | None:
        if self._plan is None or self._plan.version != self._lease.plan_version:
            self._plan = self._broker.plan()
            self._lease.note_plan(self._plan.version if self._plan else 0)
            self._studio.learn_ceiling()
        return self._plan

    def _claim(self, plan: Plan, *, suspects: bool) -> Claim:
        batch = self._studio.capped(plan.batch(self._stage))
        return self._broker.claim(
            self._stage,
            self._lease.consumer,
            self._lease.slot_key,
            batch=batch,
            hold_s=plan.hold_s(self._stage),
            allowance_s=self._allowance_s,
            service_s=self._studio.service_s(batch),
            suspects=suspects,
        )

    def _serve(self, claim: Claim, plan: Plan) -> None:
        entries = [known for entry in claim.entries if (known := self._known(entry)) is not None]
        self._lease.carry(entries)
        offset_s = claim.now - time.time()
        try:
            together, unlike = self._studio.alike(self._unobjectionable(entries), claim.now)
            if unlike:  # one batch draws pictures of one kind: others may draw these meanwhile
                self._settlement.hand_back(unlike)
                self._lease.carry(together)
            late, live = self._parted(together, claim.now, plan)
            if not live:
                self._studio.forget()
            self._settlement.let_go(late, light_draws(plan))  # first: light may still draw them
            if live:
                self._draw(live, plan, claim.next_waiting, offset_s)
        finally:
            self._lease.carry(())

    def _parted(self, entries: Sequence[Entry], now: float, plan: Plan) -> tuple[list[Entry], list[Entry]]:
        """Those that are let go, and those that are drawn."""
        alone_s = self._studio.alone_s()
        batch = sum(not hopeless(entry.job.deadline, now, alone_s) for entry in entries)
        service_s = self._studio.service_s(max(1, batch))
        late: list[Entry] = []
        live: list[Entry] = []
        for entry in entries:
            has_light = entry.job.light_visit is not None
            gone = lets_go(self._stage, has_light, entry.job.deadline, now, service_s, self._margin_s, plan)
            (late if gone else live).append(entry)
        return late, live

    def _known(self, entry: Entry) -> Entry | None:
        """The entry with what a hand-written one lacks; None where Redis refuses it for now."""
        if entry.job.extra and (new := entry.job.extra.keys() - self._unknown):
            self._unknown |= new
            names = sorted(name.decode(errors="replace") for name in new)
            self._logger.warning("unknown fields are passed on", extra={"fields": names, "entry": entry.entry_id})
        return self._settlement.adopted(entry)

    def _unobjectionable(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those that may be drawn; the others fail before anything is drawn, and are not tried again."""
        objections = [(entry, self._studio.objection(entry.job)) for entry in entries]
        hops = [Hop(entry, "failed", found[0], reason=found[1]) for entry, found in objections if found]
        if hops:
            self._settlement.commit(hops)
        return [entry for entry, found in objections if not found]

    def _draw(self, entries: Sequence[Entry], plan: Plan, waiting: int, offset_s: float) -> None:
        started = time.time()
        drawn = self._studio.attempt(entries, lambda: self._lease.abandoned(entries))
        if isinstance(drawn, NobodyWaits):
            self._logger.info("a batch was given up", extra={"prompts": [entry.job.id for entry in entries]})
            self._settlement.hand_back(entries)  # none is ours; should one be, it waits
            return
        if isinstance(drawn, OutOfMemory) and len(entries) > 1:
            self._draw_smaller(entries, plan, waiting, offset_s)
            return
        if isinstance(drawn, Exception):
            self._spoilt(entries, drawn)
            return
        times = started + offset_s, time.time() + offset_s
        drawing = Drawing(self._stage, self._lease.consumer, plan, waiting, *times)
        if any(isinstance(picture, Undeveloped) for picture in drawn):
            try:
                self._settle_up()
            finally:  # whatever became of the last batch, this one is drawn
                self._finishing.begin(entries, partial(drawing.hops, entries, drawn), self._settlement.commit)
        else:
            self._settlement.commit(drawing.hops(entries, drawn))

    def _settle_up(self) -> None:
        """Wait until the last batch is settled; pictures that could not be encoded count as not drawn."""
        try:
            self._finishing.wait()
        except Unsettled as failed:
            self._spoilt(failed.entries, failed.wrong)

    def _draw_smaller(self, entries: Sequence[Entry], plan: Plan, waiting: int, offset_s: float) -> None:
        """A batch that does not fit the memory, in halves; no batch of this model will be larger on such a GPU."""
        half = len(entries) // 2
        self._studio.lower_ceiling(half)
        for place in range(0, len(entries), half):
            late, live = self._parted(entries[place : place + half], time.time() + offset_s, plan)
            self._settlement.let_go(late, light_draws(plan))
            if live:
                self._draw(live, plan, waiting, offset_s)

    def _spoilt(self, entries: Sequence[Entry], wrong: Exception) -> None:
        """A batch that raised: alone, the prompt fails with the reason; in company, each is tried alone."""
        reason = f"{type(wrong).__name__}: {wrong}"
        self._logger.error("drawing failed", exc_info=wrong, extra={"prompts": [entry.job.id for entry in entries]})
        self._lease.describe(error=reason[:LONGEST_REASON])
        if len(entries) > 1:
            self._settlement.hand_back(entries, suspect=True)
            return
        self._studio.check()
        where = "".join(traceback.format_exception(wrong))[-TRACEBACK_LIMIT:]
        self._settlement.commit([Hop.spoilt(entries[0], "error", reason[:LONGEST_REASON], where)])


def main() -> int:
    """Run a worker until SIGTERM; while the model loads, SIGTERM ends it at once."""
    names = ["redis_url", "deployment", "cascade", "backend", "stage", "node", "slot", "gpu", "resident"]
    names += ["random_weights", "deadline_s", "lease_s", "hang_s", "grace_s", "picture_ttl_s", "done_keep_s", "log_dir"]
    options = parser(__doc__ or "", names)
    settings = load(options.parse_args())
    if settings.stage is None:
        raise SettingsError("stage: say --stage light or --stage heavy")
    stage = settings.stage
    cascade = load_cascade(settings.cascade)
    cascade = cascade.at_random() if settings.random_weights else cascade
    settings = settings.model_copy(update={"gpu": settings.gpu or cascade.gpu})
    logger = configure(f"worker-{stage}-{settings.slot}", settings.log_dir)
    consumer = f"{settings.node}-{settings.slot}-{stage}-{uuid.uuid4().hex[:8]}"
    lease = Lease(settings, stage, consumer, cascade.models[stage].name, logger)
    until_done(lease.start, Stop(), logger)  # before the model takes the GPU; SIGTERM, not yet caught, ends the waiting
    try:
        backend = open_backend(settings.backend, cascade, stage, settings.gpu, settings.resident, settings.shares)
        backend.warm_up([1])
    except ModelError as wrong:
        said = str(wrong)[:LONGEST_REASON]
        parting(lambda: lease.describe(error=said), logger)  # who waits for this slot learns why in vain
        raise
    stop = Stop().listen()
    watchdog = Watchdog(settings, stage, lease, stop, logger)
    watchdog.start()
    until_done(lambda: lease.describe(ready="1", resident=stays(settings.resident, backend)), stop, logger)
    logger.info("ready", extra={"consumer": consumer, "model": cascade.models[stage].name})
    worker = Worker(settings, stage, cascade, backend, lease, logger, watchdog)
    try:
        patiently(worker.step, stop, logger)
    except ModelError:
        parting(worker.die, logger)
        raise
    parting(worker.leave, logger)
    return 0


if __name__ == "__main__":
    guarded(main)
