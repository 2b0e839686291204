"""Who may act: leases of workers, tokens of slots and leaders, the plan in force, and what the dead leave behind."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, cast

from shared.config import Settings
from shared.connection import Argument, CommandRefused, Connection
from shared.errors import PlanUnreadable
from shared.exchange import Renewal, flatten
from shared.messages import Entry
from shared.orders import Order, Orders
from shared.plans import Plan, View
from shared.schema import (
    CEILING_TTL_S,
    CLASSES,
    GROUP,
    NODE_TTL_S,
    NORMAL,
    STAGES,
    Stage,
    node_of,
    reserved,
)
from shared.wire import integer_or

UNREADABLE: Final = -1  # the version of a plan whose own is no number
AT_ONCE: Final = 1000  # entries of one dead consumer that are taken back in one step


class Standing(Connection):
    """The commands around a process' right to act."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._ttl_ms = int(settings.picture_ttl_s * 1000)
        self._lease_ms = int(settings.lease_s * 1000)
        self._last_plan: Plan | None = None

    # -- a worker's lease ------------------------------------------------------------------------------------

    def announce(self, stage: Stage, consumer: str, about: Mapping[str, str]) -> None:
        """Say what a worker is; this is its lease. Its name enters the group, which lists all workers."""
        keys = [self.keys.worker(consumer), self.keys.streams[stage][NORMAL]]
        self.run("announce", keys, [self._lease_ms, consumer, *flatten(dict(about))])

    def renew(
        self, stage: Stage, consumer: str, slot_key: str, entries: Iterable[Entry], *, holds: bool = True
    ) -> Renewal:
        """One beat of the lease, and of the slot if it `holds` that; tells which entries are still this consumer's."""
        pairs = [part for entry in entries for part in (entry.priority, entry.entry_id)]
        keys = [self.keys.worker(consumer), slot_key, *self.keys.streams[stage], self.keys.plan]
        alive, holder, version, *still = self.run(
            "renew", keys, [consumer, consumer if holds else "", self._lease_ms, *pairs]
        )
        ours = frozenset(
            (int(priority), entry.decode()) for priority, entry in zip(still[::2], still[1::2], strict=True)
        )
        return Renewal(bool(alive), bool(holder), integer_or(version, UNREADABLE), ours)

    def retire(self, stage: Stage, consumer: str) -> None:
        """Forget a worker that ends. What it still holds it died of: that counts as a death."""
        self.bury(stage, consumer)

    # -- what the dead leave behind --------------------------------------------------------------------------

    def reclaim(self, *, sweep: bool = True) -> int:
        """Take back what workers without a lease held; returns how many entries.

        Raises CommandRefused after it has taken back what it could.
        `sweep`: forget also the names of dead workers that held nothing.
        """
        taken, refused = 0, None
        for stage in STAGES:
            try:
                dead = self._without_lease(self._consumers(stage, sweep))
                taken += sum(self._take_back(stage, consumer, "", sure=False) for consumer in dead)
            except CommandRefused as wrong:  # one stage's trouble must not cost the other its prompts
                refused = wrong
        if refused is not None:
            raise refused
        return taken

    def bury(self, stage: Stage, consumer: str, slot_key: str = "") -> int:
        """Take back at once what a worker held whose process is known to have ended; returns how many entries.

        The name is of one incarnation: whoever has its slot or its place by now is not harmed.
        """
        return self._take_back(stage, consumer, slot_key, sure=True)

    def _consumers(self, stage: Stage, sweep: bool) -> list[str]:
        """Those that hold something; with `sweep` also those that the groups merely know."""
        pipe = self.client.pipeline(transaction=False)
        for stream in self.keys.streams[stage]:
            if sweep:
                pipe.xinfo_consumers(stream, GROUP)
            else:
                pipe.xpending(stream, GROUP)
        found: dict[str, None] = {}
        for reply in pipe.execute(raise_on_error=False):
            if isinstance(reply, CommandRefused):
                self._mend(reply)
                continue
            rows: Any = reply if sweep else reply["consumers"]
            found |= {cast(bytes, row["name"]).decode(): None for row in rows}
        return [name for name in found if not reserved(name)]

    def _mend(self, refused: Exception) -> None:
        """Make groups that are gone again; raises what cannot be mended."""
        if "NOGROUP" in str(refused) or "no such key" in str(refused):
            self.ensure_groups()
        elif "WRONGTYPE" not in str(refused):  # what sits there holds nobody's prompts
            raise refused

    def _without_lease(self, consumers: Sequence[str]) -> list[str]:
        """Those whose key is gone; the script asks again."""
        pipe = self.client.pipeline(transaction=False)
        for consumer in consumers:
            pipe.exists(self.keys.worker(consumer))
        return [name for name, alive in zip(consumers, pipe.execute(), strict=True) if not alive]

    def _take_back(self, stage: Stage, consumer: str, slot_key: str, *, sure: bool) -> int:
        """Move a dead consumer's entries to SUSPECT; one that has killed too often ends instead."""
        keys = [*self.keys.streams[stage], self.keys.wake[stage], *self._ending()]
        keys += [self.keys.worker(consumer), slot_key or self.keys.slot("", 0)]
        node = node_of(consumer)
        arguments: list[Argument] = [consumer, int(sure), stage, node, self._ttl_ms, self.settings.done_keep_s]
        for priority, entry_id, prompt_id in self._held(stage, consumer):
            keys.append(self.keys.prompt(prompt_id))
            arguments += [priority, entry_id, prompt_id]
        return cast(int, self.run("reclaim", keys, arguments))

    def _held(self, stage: Stage, consumer: str) -> list[tuple[int, str, str]]:
        """Class, entry and prompt of what a consumer holds; the script declares the prompts' records as keys."""
        held: list[tuple[int, str]] = []
        pipe = self.client.pipeline(transaction=False)
        for priority in CLASSES:
            stream = self.keys.streams[stage][priority]
            try:
                rows: Any = self.client.xpending_range(stream, GROUP, "-", "+", AT_ONCE, consumer)
            except CommandRefused as gone:
                if "NOGROUP" not in str(gone) and "WRONGTYPE" not in str(gone):
                    raise
                continue
            for row in rows:
                held.append((priority, row["message_id"].decode()))
                pipe.xrange(stream, row["message_id"], row["message_id"])
        found = [rows[0][1].get(b"id", b"") if rows else b"" for rows in pipe.execute()]
        return [
            (priority, entry_id, given.decode(errors="replace") or f"{stage}-{priority}-{entry_id}")
            for (priority, entry_id), given in zip(held, found, strict=True)
        ]

    def _ending(self) -> list[str]:
        keys = self.keys
        return [keys.due, keys.done, keys.dead, keys.events, keys.totals]

    # -- tokens and plans ------------------------------------------------------------------------------------

    def hold(self, key: str, token: str) -> bool:
        """Take or renew a token (a slot, or the lead of a service)."""
        return bool(self.run("hold", [key], [token, self._lease_ms]))

    def release(self, key: str, token: str) -> bool:
        """Give a token up, if it is ours."""
        return bool(self.run("release", [key], [token]))

    def plan(self) -> Plan | None:
        """The plan in force; where somebody spoilt it, the last one that could be read."""
        with suppress(PlanUnreadable):
            self._last_plan = self.standing_plan()
        return self._last_plan

    def standing_plan(self) -> Plan | None:
        """The plan as it stands in Redis; raises PlanUnreadable where that is none."""
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
        self.run("announce", [self.keys.node(name)], [int(NODE_TTL_S * 1000), name, *flatten(dict(about))])

    # -- what people order -----------------------------------------------------------------------------------

    def orders(self) -> Orders:
        """What stands ordered."""
        return Orders.from_wire(cast(dict[bytes, bytes], self.client.hgetall(self.keys.orders)))

    def order(self, order: Order, who: str) -> bool:
        """Take an order and write down whose it is; False where it stood so already, and nothing is written."""
        given = {name: value for name, value in order.fields.items() if value is not None}
        arguments: list[Argument] = [who, order.what, len(given), *flatten(dict(given))]
        arguments += [name for name, value in order.fields.items() if value is None]
        return bool(self.run("order", [self.keys.orders, self.keys.audit], arguments))

    # -- what a GPU can hold ---------------------------------------------------------------------------------

    def lower_ceiling(self, model: str, gpu: str, batch: int) -> int:
        """Remember the most prompts of a batch that fit the GPU's memory; returns the lowest known."""
        return cast(int, self.run("ceiling", [self.keys.ceiling(model, gpu)], [batch, int(CEILING_TTL_S * 1000)]))

    def ceiling(self, model: str, gpu: str) -> int | None:
        """The most prompts of a batch of the model that fit the GPU's memory; None where nobody met a limit."""
        found = cast("bytes | None", self.client.get(self.keys.ceiling(model, gpu)))
        return read_ceiling(found)


def read_ceiling(text: bytes | None) -> int | None:
    """The number of prompts, None where there is none."""
    ceiling = integer_or(text, 0)
    return ceiling if ceiling > 0 else None
