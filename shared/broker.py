"""Every Redis command that changes something.

What changes a prompt's state is a script in `lua/`, so that each hop happens wholly or not at all; the
methods here only pack and unpack. The door is in `admission.py`, leases, tokens and plans are in `standing.py`,
reading for planners and people is in `observer.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

from shared.admission import Admission, packed
from shared.config import Settings
from shared.connection import BLOCK_S, Argument, CommandRefused
from shared.errors import MalformedEntry
from shared.exchange import PLACE, Broken, Claim, Hop, flatten, is_of
from shared.letters import beside, id_or_none, left_of
from shared.messages import Entry, Job, Wire
from shared.pictures import open_pictures
from shared.schema import (
    GROUP,
    MESSAGE_LIMIT,
    RETRY_MS,
    RETURNED,
    SUSPECT,
    Stage,
    kept_for,
)
from shared.standing import UNREADABLE
from shared.wire import integer_or


class HopsRefused(CommandRefused):
    """Redis refused the hops of these entries, which stay pending; the others of the batch are done."""

    def __init__(self, reason: str, entries: Sequence[Entry]) -> None:
        super().__init__(reason)
        self.entries = entries


class Broker(Admission):
    """The commands of one deployment."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.pictures = open_pictures(self)

    # -- a worker --------------------------------------------------------------------------------------------

    def wait(self, stage: Stage, timeout_s: float) -> None:
        """Sleep until a token wakes this worker, or for so long."""
        self.blocking.blpop([self.keys.wake[stage]], timeout=max(0.001, min(timeout_s, BLOCK_S)))

    def claim(
        self,
        stage: Stage,
        consumer: str,
        slot_key: str,
        *,
        batch: int,
        hold_s: float,
        allowance_s: float,
        service_s: Sequence[float],
        suspects: bool = True,
    ) -> Claim:
        """Take a batch for this consumer, which must hold the slot; that proves that it lives.

        `service_s[n-1]`: seconds for n; `suspects`: also those that are drawn alone, and before all others.
        """
        following = self.keys.streams["heavy"] if stage == "light" else ()
        keys = [*self.keys.streams[stage], self.keys.plan, slot_key, self.keys.wake[stage], self.keys.totals]
        keys += [self.keys.worker(consumer), *following]
        arguments: list[Argument] = [consumer, consumer, batch, hold_s, allowance_s, self._lease_ms, int(suspects)]
        arguments += service_s[:batch]
        status, version, now, ask_again, next_waiting, *rows = self.run("claim", keys, arguments)
        entries: list[Entry] = []
        broken: list[Broken] = []
        for priority, (entry_id, flat, *too_large) in zip(rows[::2], rows[1::2], strict=True):
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            try:
                if too_large:
                    raise MalformedEntry(f"the message has {too_large[0]} bytes, {MESSAGE_LIMIT} are allowed", fields)
                entries.append(Entry(priority, entry_id.decode(), Job.from_wire(fields)))
            except MalformedEntry as error:
                broken.append(Broken(priority, entry_id.decode(), error))
        return Claim(
            holder=status != b"not_holder",
            regrouped=status == b"regrouped",
            plan_version=integer_or(version, UNREADABLE),
            now=float(now),
            ask_again_s=float(ask_again),
            next_waiting=next_waiting,
            entries=tuple(entries),
            broken=tuple(broken),
        )

    def adopt(self, stage: Stage, entry: Entry, allowance_s: float) -> Entry:
        """Fill in what an entry written by hand lacks; the same entry always gets the same id and times.

        A light picture that it claims and that nobody made is none.
        """
        job = entry.job
        prompt_id = job.id or f"{stage}-{entry.priority}-{entry.entry_id}"
        written = int(entry.entry_id.split("-")[0]) / 1000
        published = job.published or written
        deadline = job.deadline or published + allowance_s
        keys = [self.keys.prompt(prompt_id), self.keys.due, self.keys.totals]
        arguments: list[Argument] = [
            prompt_id,
            stage,
            entry.priority,
            entry.entry_id,
            f"{published:.6f}",
            f"{deadline:.6f}",
        ]
        published_at, due_at, has_light = self.run("adopt", keys, arguments)
        visits = job.visits if has_light else tuple(visit for visit in job.visits if visit.stage != "light")
        known = replace(job, id=prompt_id, published=float(published_at), deadline=float(due_at), visits=visits)
        return replace(entry, job=known)

    def commit(self, stage: Stage, consumer: str, hops: Sequence[Hop]) -> list[int]:
        """Hop or end each prompt of a batch; each happens wholly or not at all.

        Per hop: 1 done, 0 no longer ours, 2 overtaken by the keeper (a heavy picture is kept as an upgrade).
        A record that is missing belongs to an entry written by hand with an id: it is adopted first.
        Raises HopsRefused when Redis refused some, CommandRefused when it refused all alike.
        """
        if self.settings.pictures_at:
            hops = self._put_pictures(stage, consumer, hops)
        replies = self._commit(stage, consumer, hops)
        orphans = [i for i, reply in enumerate(replies) if reply == -1]
        for i in orphans:
            try:
                self.adopt(stage, hops[i].entry, self.settings.deadline_s or 0.0)
            except CommandRefused as wrong:
                replies[i] = str(wrong).encode()
        orphans = [i for i in orphans if replies[i] == -1]
        for i, reply in zip(orphans, self._commit(stage, consumer, [hops[i] for i in orphans]), strict=True):
            replies[i] = reply
        if self.settings.pictures_at and 0 in replies:
            self._drop_cancelled(stage, hops)
        refused = {i: reply for i, reply in enumerate(replies) if isinstance(reply, bytes)}
        for reply in refused.values():
            raise HopsRefused(reply.decode(errors="replace"), [hops[i].entry for i in refused])
        return replies

    def _put_pictures(self, stage: Stage, consumer: str, hops: Sequence[Hop]) -> list[Hop]:
        """Pictures that live elsewhere are put there first: an outcome never names one that is not there.

        Whoever was fenced out while drawing puts none. Only between this look and the hop may that happen unseen.
        """
        drawn = [hop for hop in hops if hop.picture]
        pipe = self.client.pipeline(transaction=False)
        for hop in drawn:
            place = hop.entry.entry_id
            pipe.hmget(self.keys.prompt(hop.entry.job.id), ["state", "overtaken", *PLACE])
            pipe.xpending_range(self.keys.streams[stage][hop.entry.priority], GROUP, place, place, 1, consumer)
        seen = pipe.execute(raise_on_error=False)
        ours = [
            hop
            for hop, *about in zip(drawn, seen[::2], seen[1::2], strict=True)
            if _may_put(hop, stage, consumer, *about)
        ]
        deadlines = {(hop.entry.job.id, stage): hop.entry.job.deadline for hop in ours if hop.end is None}
        now = self.now() if deadlines else 0.0
        open_s = {place: deadline - now for place, deadline in deadlines.items()}
        self.pictures.put({(hop.entry.job.id, stage): hop.picture for hop in ours}, open_s)
        return [replace(hop, picture=b"") for hop in hops]

    def _drop_cancelled(self, stage: Stage, hops: Sequence[Hop]) -> None:
        states = self.states([hop.entry.job.id for hop in hops])
        self.pictures.drop((prompt_id, stage) for prompt_id, state in states.items() if state == "cancelled")

    def _commit(self, stage: Stage, consumer: str, hops: Sequence[Hop]) -> list[Any]:
        if not hops:
            return []
        keys = [*self.keys.streams[stage], *self.keys.streams["heavy"], self.keys.wake["heavy"], *self._ending()]
        keys += [self.keys.pictures, self.keys.picture_bytes]
        rows: list[list[Any]] = []
        for hop in hops:
            job = hop.entry.job
            keys += (self.keys.prompt(job.id), self.keys.image(job.id, stage))
            score = str(job.visits[-1].score) if job.visits else ""
            head = [hop.entry.priority, hop.entry.entry_id, job.id, hop.end or "", hop.why, hop.picture, hop.gpu_s]
            fields = flatten(job.wire()) if hop.fields is None else hop.fields
            stated = [*fields, "reason", hop.reason] if hop.reason else fields
            rows.append([*head, score, stated, beside(hop, consumer)])
        arguments: list[Argument] = [consumer, self._ttl_ms, self.settings.done_keep_s, packed(rows)]
        return cast(list[Any], self.run("commit", keys, arguments))

    def fail(self, stage: Stage, consumer: str, broken: Broken, allowance_s: float) -> None:
        """End a malformed entry as failed; its own bytes go to the dead letters."""
        raw = broken.error.fields
        entry = self._adopt_broken(stage, broken, allowance_s)
        job = entry.job
        stated: Wire = {"id": job.id, "published": f"{job.published:.6f}", "deadline": f"{job.deadline:.6f}"}
        stated |= {"reason": broken.error.reason[:500], "stage": stage}
        self.commit(stage, consumer, [Hop(entry, "failed", "malformed", fields=flatten(stated) + left_of(raw, stated))])

    def keep_for(self, stage: Stage, consumer: str, broken: Broken, major: int, allowance_s: float) -> bool:
        """Let an entry wait for workers of a major version; False where it is no open prompt's.

        Should no such worker come, the keeper settles it at its deadline, like any other that waits. What is no open
        prompt's nobody would end.
        """
        prompt_id = self._adopt_broken(stage, broken, allowance_s).job.id
        record = cast(list["bytes | None"], self.client.hmget(self.keys.prompt(prompt_id), PLACE))
        if not is_of(record, stage, broken):
            return False
        self._hand_back(stage, consumer, kept_for(major), RETRY_MS, [broken])
        return True

    def _adopt_broken(self, stage: Stage, broken: Broken, allowance_s: float) -> Entry:
        given = Job(id_or_none(broken.error.fields), "", 0.0, 0.0)
        return self.adopt(stage, Entry(broken.priority, broken.entry_id, given), allowance_s)

    def hand_back(self, stage: Stage, consumer: str, entries: Iterable[Entry], *, suspect: bool = False) -> int:
        """Return entries to the queue at their old place; suspect ones are drawn alone from then on."""
        return self._hand_back(stage, consumer, SUSPECT if suspect else RETURNED, RETRY_MS, entries)

    def set_aside(self, stage: Stage, consumer: str, entries: Iterable[Entry | Broken]) -> int:
        """Return entries that Redis refuses: each is tried again alone, but not before RETRY_MS have passed."""
        return self._hand_back(stage, consumer, SUSPECT, 0, entries)

    def hand_back_all(self, stage: Stage, consumer: str) -> int:
        """Return whatever this consumer holds, known to it or not (after a broken connection)."""
        return self._hand_back(stage, consumer, RETURNED, RETRY_MS, None)

    def _hand_back(
        self, stage: Stage, consumer: str, to: str, idle_ms: int, entries: Iterable[Entry | Broken] | None
    ) -> int:
        pairs = [part for entry in entries or () for part in (entry.priority, entry.entry_id)]
        if entries is not None and not pairs:
            return 0
        keys = [*self.keys.streams[stage], self.keys.wake[stage]]
        return cast(int, self.run("hand_back", keys, [consumer, to, idle_ms, *pairs]))

    def purge_letters(self) -> int:
        """Throw all dead letters away; returns how many."""
        return self.client.xtrim(self.keys.dead, maxlen=0, approximate=False)

    # -- the keeper ------------------------------------------------------------------------------------------

    def states(self, ids: Sequence[str]) -> dict[str, str]:
        """The state of each prompt's record, "" where there is none."""
        return self._of_records(ids, "state")

    def upgradable(self, consumer: str, ids: Sequence[str]) -> set[str]:
        """Those that the keeper ended while this consumer drew them: a better picture of them is still stored."""
        return {each for each, owner in self._of_records(ids, "overtaken").items() if owner == consumer}

    def _of_records(self, ids: Sequence[str], field: str) -> dict[str, str]:
        pipe = self.client.pipeline(transaction=False)
        for prompt_id in ids:
            pipe.hget(self.keys.prompt(prompt_id), field)
        found: list[bytes | None] = pipe.execute()
        return {prompt_id: (value or b"").decode() for prompt_id, value in zip(ids, found, strict=True)}

    def expire_pictures(self) -> int:
        """Forget pictures that are too old or exceed the budget, but none of an open prompt; returns how many."""
        return self.pictures.expire(lambda ids: {each for each, state in self.states(ids).items() if state == "open"})

    def move_to_light(
        self, prompt_id: str, priority: int, entry_id: str, *, silent_s: float | None = None, holder: str = ""
    ) -> bool:
        """Move a prompt without a picture from the heavy stage to the light one, if nobody but `holder` draws it.

        `silent_s`: also from a worker whose lease was not renewed for so long; it may be dead, and what it still
        brings is refused.
        """
        streams = self.keys.streams
        keys = [streams["heavy"][priority], self.keys.prompt(prompt_id), streams["light"][priority]]
        keys.append(self.keys.wake["light"])
        reply = self.run("move", keys, [entry_id, prompt_id, holder])
        if isinstance(reply, bytes) and silent_s is not None:
            keys.append(self.keys.worker(reply.decode()))
            reply = self.run("move", keys, [entry_id, prompt_id, reply, self._lease_ms - int(silent_s * 1000)])
        return bool(reply == 1)


def _may_put(hop: Hop, stage: Stage, consumer: str, record: Any, pending: Any) -> bool:
    """Whether a hop's picture is wanted: its prompt is still the consumer's, or was overtaken in its hands.

    What cannot be asked counts as a yes: the hop itself asks again.
    """
    if isinstance(record, CommandRefused) or isinstance(pending, CommandRefused):
        return True
    state, overtaken = ((each or b"").decode(errors="replace") for each in record[:2])
    same = is_of(record[2:], stage, hop.entry)
    if pending:
        return not state or (state == "open" and same)
    return same and overtaken == consumer
