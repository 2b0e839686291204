"""What every door does: offer prompts, cancel them, end them from outside."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, cast

import msgpack

from shared.connection import Argument, CommandRefused, Reply, Unreachable
from shared.exchange import Cancellation, OpenPrompt, Publication, Receipt, flatten
from shared.messages import End
from shared.schema import Stage
from shared.standing import Standing
from shared.wire import check_offer

TRIES: Final = 10  # to catch a prompt that moves on while it is being cancelled; it moves three times at most


class Admission(Standing):
    """The commands around a prompt's way in, and out before its time."""

    def publish(self, publications: Sequence[Publication]) -> list[Receipt]:
        """Offer prompts; each is published once, however often its id comes.

        One that waits in a lower class and that a newcomer pushes past its deadline ends `dropped`, why `displaced`:
        the youngest of the lowest class, never one in a worker's hands. Raises MalformedEntry, with nothing
        published, where a prompt breaks a limit of `shared/wire.py`.
        """
        keys = [*self.keys.streams["light"], *self.keys.streams["heavy"], self.keys.due, self.keys.totals]
        keys += [self.keys.plan, self.keys.wake["light"], self.keys.wake["heavy"], self.keys.memory]
        offers: list[list[Any]] = []
        for publication in publications:
            job = publication.job
            keys.append(self.keys.prompt(job.id))
            stage, wire = int(job.route == "heavy"), job.wire(stamped=False)
            check_offer(wire, job.parameters, publication.allowance_s)
            offers.append([job.id, stage, job.priority, publication.allowance_s, publication.lag_s, flatten(wire)])
        replies = self.run("publish", keys, [packed(offers)])
        for reply in replies:
            if len(reply) == 5:
                self._displace(*reply[2:])
        return [_receipt(each.job.id, reply) for each, reply in zip(publications, replies, strict=True)]

    def _displace(self, priority: int, entry_id: bytes, prompt_id: bytes) -> None:
        place: tuple[str, Stage, int, str] = (prompt_id.decode(errors="replace"), "light", priority, entry_id.decode())
        # Who offered must hear what the door said, whatever becomes of this: at its deadline it is dropped anyway.
        with suppress(CommandRefused, *Unreachable):
            self.overtake(*place, "dropped", "displaced", waiting_only=True)

    def cancel(self, prompt_id: str) -> Cancellation:
        """End an open prompt as `cancelled`, wherever it is; a worker that draws it hears of it, its result is void."""
        state = "unknown"
        for _ in range(TRIES):
            names = ["state", "stage", "class", "entry"]
            found = cast(list[bytes | None], self.client.hmget(self.keys.prompt(prompt_id), names))
            state, stage, priority, entry_id = ((each or b"").decode() for each in found)
            if state != "open":
                break
            if self.overtake(prompt_id, cast(Stage, stage), int(priority), entry_id, "cancelled", "asked"):
                return Cancellation(prompt_id, done=True, state="cancelled")
        return Cancellation(prompt_id, done=False, state=state or "unknown")

    def overtake(
        self,
        prompt_id: str,
        stage: Stage,
        priority: int,
        entry_id: str,
        end: End,
        why: str,
        *,
        waiting_only: bool = False,
    ) -> bool:
        """End a prompt that somebody else holds, or nobody; with `waiting_only` one that nobody draws."""
        call = self._overtaking(prompt_id, stage, priority, entry_id, end, why, waiting_only)
        return bool(self.run("overtake", *call))

    def overtake_all(self, ended: Sequence[tuple[OpenPrompt, End]], why: str) -> list[Reply]:
        """The same for many in one round trip; per prompt 1, 0 where it moved on, or the CommandRefused."""
        calls = [
            self._overtaking(each.id, each.stage, each.priority, each.entry_id, end, why, False) for each, end in ended
        ]
        return self.run_all("overtake", calls)

    def _overtaking(
        self, prompt_id: str, stage: Stage, priority: int, entry_id: str, end: End, why: str, waiting_only: bool
    ) -> tuple[list[str], list[Argument]]:
        keys = [self.keys.streams[stage][priority], self.keys.prompt(prompt_id), *self._ending()]
        keys.append(self.keys.image(prompt_id, "light"))
        arguments: list[Argument] = [entry_id, prompt_id, end, why, self._ttl_ms, self.settings.done_keep_s]
        return keys, [*arguments, int(waiting_only)]


def packed(value: list[list[Any]]) -> bytes:
    """Rows as one argument, packed in C instead of dozens of parts one by one; Lua knows msgpack's old strings."""
    return cast(bytes, msgpack.packb(value, use_bin_type=False))


def _receipt(prompt_id: str, reply: Sequence[bytes]) -> Receipt:
    status, value = reply[0].decode(), reply[1]
    if status == "published":
        return Receipt(prompt_id, "published", deadline=float(value))
    if status == "refused":
        return Receipt(prompt_id, "refused", retry_after_s=float(value), why=reply[2].decode())
    return Receipt(prompt_id, "known", state=value.decode())
