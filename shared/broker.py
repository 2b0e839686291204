"""Every Redis command that changes something.

What changes a prompt's state is a script in `lua/`, so that each hop happens wholly or not at all; the
methods here only pack and unpack. Reading for planners and people is in `observer.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast

import msgpack

from shared.config import Settings
from shared.connection import Argument, CommandRefused, Connection
from shared.errors import MalformedEntry
from shared.exchange import Broken, Claim, Hop, Publication, Receipt, Renewal
from shared.messages import End, Entry, Job, Wire
from shared.plans import Plan, View
from shared.schema import CLASSES, GROUP, NODE_TTL_S, NORMAL, RETURNED, STAGES, SUSPECT, Stage

BLOCK_S: Final = 2.0  # longest blocking read; a lost wake-up costs no more than this


class Broker(Connection):
    """The commands of one deployment."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._ttl_ms = int(settings.picture_ttl_s * 1000)
        self._lease_ms = int(settings.lease_s * 1000)

    # -- the door --------------------------------------------------------------------------------------------

    def publish(self, publications: Sequence[Publication]) -> list[Receipt]:
        """Offer prompts; each is published once, however often its id comes."""
        keys = [*self.keys.streams["light"], *self.keys.streams["heavy"], self.keys.due, self.keys.totals]
        keys += [self.keys.plan, self.keys.wake["light"], self.keys.wake["heavy"]]
        offers: list[list[Any]] = []
        for publication in publications:
            job = publication.job
            keys.append(self.keys.prompt(job.id))
            stage, fields = int(job.route == "heavy"), flatten(job.wire(stamped=False))
            offers.append([job.id, stage, job.priority, publication.allowance_s, publication.lag_s, fields])
        replies = self.run("publish", keys, [_packed(offers)])
        return [_receipt(each.job.id, reply) for each, reply in zip(publications, replies, strict=True)]

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
    ) -> Claim:
        """Take a batch for this consumer, which must hold the slot. `service_s[n-1]`: seconds for n."""
        following = self.keys.streams["heavy"] if stage == "light" else ()
        keys = [*self.keys.streams[stage], self.keys.plan, slot_key, self.keys.wake[stage], *following]
        arguments: list[Argument] = [consumer, consumer, batch, hold_s, allowance_s, *service_s[:batch]]
        status, version, now, ask_again, next_waiting, *rows = self.run("claim", keys, arguments)
        entries: list[Entry] = []
        broken: list[Broken] = []
        for priority, (entry_id, flat) in zip(rows[::2], rows[1::2], strict=True):
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            try:
                entries.append(Entry(priority, entry_id.decode(), Job.from_wire(fields)))
            except MalformedEntry as error:
                broken.append(Broken(priority, entry_id.decode(), error))
        return Claim(
            holder=status != b"not_holder",
            regrouped=status == b"regrouped",
            plan_version=int(version),
            now=float(now),
            ask_again_s=float(ask_again),
            next_waiting=next_waiting,
            entries=tuple(entries),
            broken=tuple(broken),
        )

    def adopt(self, stage: Stage, entry: Entry, allowance_s: float) -> Entry:
        """Fill in what an entry written by hand lacks; the same entry always gets the same id and times."""
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
        stamped = [float(time) for time in self.run("adopt", keys, arguments)]
        return replace(entry, job=replace(job, id=prompt_id, published=stamped[0], deadline=stamped[1]))

    def commit(self, stage: Stage, consumer: str, hops: Sequence[Hop]) -> list[int]:
        """Hop or end each prompt of a batch; each happens wholly or not at all.

        Per hop: 1 done, 0 no longer ours, 2 overtaken by the keeper (a heavy picture is kept as an upgrade).
        A record that is missing belongs to an entry written by hand with an id: it is adopted first.
        Raises CommandRefused when Redis refused one; that prompt stays pending, the others are done.
        """
        replies = self._commit(stage, consumer, hops)
        orphans = [i for i, reply in enumerate(replies) if reply == -1]
        for i in orphans:
            self.adopt(stage, hops[i].entry, self.settings.deadline_s or 0.0)
        for i, reply in zip(orphans, self._commit(stage, consumer, [hops[i] for i in orphans]), strict=True):
            replies[i] = reply
        for reply in replies:
            if isinstance(reply, bytes):
                raise CommandRefused(reply.decode(errors="replace"))
        return replies

    def _commit(self, stage: Stage, consumer: str, hops: Sequence[Hop]) -> list[Any]:
        if not hops:
            return []
        keys = [*self.keys.streams[stage], *self.keys.streams["heavy"], self.keys.wake["heavy"], *self._ending()]
        packed: list[list[Any]] = []
        for hop in hops:
            job = hop.entry.job
            keys += (self.keys.prompt(job.id), self.keys.image(job.id, stage))
            score = str(job.visits[-1].score) if job.visits else ""
            head = [hop.entry.priority, hop.entry.entry_id, job.id, hop.end or "", hop.why, hop.picture, hop.gpu_s]
            fields = flatten(job.wire()) if hop.fields is None else hop.fields
            packed.append([*head, score, [*fields, "reason", hop.reason] if hop.reason else fields])
        arguments: list[Argument] = [consumer, self._ttl_ms, self.settings.done_keep_s, _packed(packed)]
        return cast(list[Any], self.run("commit", keys, arguments))

    def fail(self, stage: Stage, consumer: str, broken: Broken, allowance_s: float) -> None:
        """End a malformed entry as failed; its own bytes go to the dead letters."""
        raw = broken.error.fields
        own_id = raw.get(b"id", b"").decode(errors="replace")[:200]
        entry = self.adopt(stage, Entry(broken.priority, broken.entry_id, Job(own_id, "", 0.0, 0.0)), allowance_s)
        job = entry.job
        stated: Wire = {"id": job.id, "published": f"{job.published:.6f}", "deadline": f"{job.deadline:.6f}"}
        stated |= {"reason": broken.error.reason[:500], "stage": stage}
        kept = {name: value for name, value in list(raw.items())[:64] if name.decode(errors="replace") not in stated}
        fields = flatten(stated) + [part[:4096] for pair in kept.items() for part in pair]
        self._commit(stage, consumer, [Hop(entry, "failed", "malformed", fields=fields)])

    def _ending(self) -> list[str]:
        keys = self.keys
        return [keys.due, keys.done, keys.dead, keys.events, keys.totals]

    def hand_back(self, stage: Stage, consumer: str, entries: Iterable[Entry], *, suspect: bool = False) -> int:
        """Return entries to the queue at their old place; suspect ones are drawn alone from then on."""
        pairs = [part for entry in entries for part in (entry.priority, entry.entry_id)]
        return self._hand_back(stage, [consumer, SUSPECT if suspect else RETURNED, *pairs]) if pairs else 0

    def hand_back_all(self, stage: Stage, consumer: str) -> int:
        """Return whatever this consumer holds, known to it or not (after a broken connection)."""
        return self._hand_back(stage, [consumer, RETURNED])

    def _hand_back(self, stage: Stage, arguments: list[Argument]) -> int:
        return cast(int, self.run("hand_back", [*self.keys.streams[stage], self.keys.wake[stage]], arguments))

    def announce(self, stage: Stage, consumer: str, about: Mapping[str, str]) -> None:
        """Say what a worker is; this is its lease. Its name enters the group, which lists all workers."""
        key = self.keys.worker(consumer)
        with self.client.pipeline(transaction=True) as pipe:
            pipe.xgroup_createconsumer(self.keys.streams[stage][NORMAL], GROUP, consumer)
            pipe.hset(key, mapping=cast(Any, about))
            pipe.pexpire(key, self._lease_ms)
            pipe.execute()

    def renew(
        self, stage: Stage, consumer: str, slot_key: str, entries: Iterable[Entry], *, holds: bool = True
    ) -> Renewal:
        """One beat of the lease, and of the slot if it `holds` that; tells which entries are still this consumer's."""
        pairs = [part for entry in entries for part in (entry.priority, entry.entry_id)]
        keys = [self.keys.worker(consumer), slot_key, *self.keys.streams[stage], self.keys.plan]
        alive, holder, version, *still = self.run(
            "renew", keys, [consumer, consumer if holds else "", self._lease_ms, *pairs]
        )
        return Renewal(bool(alive), bool(holder), int(version), frozenset(entry.decode() for entry in still))

    def retire(self, stage: Stage, consumer: str) -> None:
        """Forget a worker that stopped with nothing in hand."""
        self.client.delete(self.keys.worker(consumer))
        for stream in self.keys.streams[stage]:
            self._reclaim(stage, stream, [consumer])

    # -- tokens and plans ------------------------------------------------------------------------------------

    def hold(self, key: str, token: str) -> bool:
        """Take or renew a token (a slot, or the lead of a service)."""
        return bool(self.run("hold", [key], [token, self._lease_ms]))

    def release(self, key: str, token: str) -> bool:
        """Give a token up, if it is ours."""
        return bool(self.run("release", [key], [token]))

    def plan(self) -> Plan | None:
        """The plan in force."""
        fields = cast(dict[bytes, bytes], self.client.hgetall(self.keys.plan))
        return Plan.from_wire(fields) if fields else None

    def put_plan(self, plan: Plan, view: View, token: str) -> bool:
        """Put a plan in force, if this token still leads and the plan is newer.

        Where slots change their stage all workers are woken, so that idle ones notice at once.
        """
        keys = [self.keys.leader("control"), self.keys.plan, self.keys.plans, self.keys.events, self.keys.totals]
        keys += self.keys.wake.values()
        moved = view.plan is None or view.plan.assignment != plan.assignment
        seen: dict[str, Any] = {"offered": view.offered[-10:], "waiting": view.waiting, "running": view.running}
        seen |= {"slots": len(view.slots), "scores": len(view.scores), "pace": view.pace}
        return bool(
            self.run(
                "plan",
                keys,
                [token, plan.version, json.dumps(seen), len(view.slots) if moved else 0, *flatten(plan.wire())],
            )
            == 1
        )

    def announce_node(self, name: str, about: Mapping[str, str]) -> None:
        """Say what an agent's node has."""
        key = self.keys.node(name)
        with self.client.pipeline(transaction=True) as pipe:
            pipe.delete(key)
            pipe.hset(key, mapping=cast(Any, about))
            pipe.pexpire(key, int(NODE_TTL_S * 1000))
            pipe.execute()

    # -- the keeper ------------------------------------------------------------------------------------------

    def overtake(self, prompt_id: str, stage: Stage, priority: int, entry_id: str, end: End, why: str) -> bool:
        """End a prompt that somebody else holds, or nobody."""
        keys = [self.keys.streams[stage][priority], self.keys.prompt(prompt_id), *self._ending()]
        keys.append(self.keys.image(prompt_id, "light"))
        arguments: list[Argument] = [entry_id, prompt_id, end, why, self._ttl_ms, self.settings.done_keep_s]
        return bool(self.run("overtake", keys, arguments))

    def move_to_light(self, prompt_id: str, priority: int, entry_id: str) -> bool:
        """Move a prompt that waits for heavy, without a picture, to the light stage."""
        streams = self.keys.streams
        keys = [streams["heavy"][priority], self.keys.prompt(prompt_id), streams["light"][priority]]
        return bool(self.run("move", [*keys, self.keys.wake["light"]], [entry_id, prompt_id]))

    def reclaim(self, *, sweep: bool = True) -> int:
        """Take back what dead workers held; returns how many entries.

        `sweep`: forget also the names of dead workers that held nothing.
        """
        taken = 0
        for stage in STAGES:
            for priority in CLASSES:
                stream = self.keys.streams[stage][priority]
                try:
                    rows = cast(list[Mapping[str, Any]], self.client.xinfo_consumers(stream, GROUP))
                except CommandRefused as gone:
                    if "NOGROUP" not in str(gone) and "no such key" not in str(gone):
                        raise
                    self.ensure_groups()
                    continue
                holders = [cast(bytes, row["name"]).decode() for row in rows if row["pending"] or sweep]
                taken += self._reclaim(stage, stream, [name for name in holders if name not in (RETURNED, SUSPECT)])
        return taken

    def _reclaim(self, stage: Stage, stream: str, consumers: Sequence[str]) -> int:
        if not consumers:
            return 0
        keys = [stream, self.keys.wake[stage], self.keys.totals, *(self.keys.worker(name) for name in consumers)]
        return cast(int, self.run("reclaim", keys, consumers))


def _packed(value: list[list[Any]]) -> bytes:
    # One argument packed in C, instead of dozens a prompt packed one by one; Lua knows msgpack's old strings.
    return cast(bytes, msgpack.packb(value, use_bin_type=False))


def flatten(fields: Wire) -> list[str | bytes]:
    """A mapping as the flat list that scripts take."""
    return [part for pair in fields.items() for part in pair]


def _receipt(prompt_id: str, reply: Sequence[bytes]) -> Receipt:
    status, value = reply[0].decode(), reply[1]
    if status == "published":
        return Receipt(prompt_id, "published", deadline=float(value))
    if status == "refused":
        return Receipt(prompt_id, "refused", retry_after_s=float(value))
    return Receipt(prompt_id, "known", state=value.decode())
