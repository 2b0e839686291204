"""Dead letters: the full record of prompts that failed, for people to read, to send again, or to throw away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from shared.errors import CascadeError, MalformedEntry
from shared.exchange import Hop, Publication
from shared.messages import Job, Visit, Wire, readable_visits
from shared.observer import Observer
from shared.schema import DEAD_KEPT, LETTER_LIMIT, VALUE_LIMIT, node_of
from shared.wire import integer_or, read_id

FIELDS_KEPT: Final = 64  # of a malformed entry
RETRY_OF: Final = b"retry_of"  # field of a prompt's entry: the id of the failed one that it repeats
# What a letter says of the end; the rest are the prompt's own fields.
_OF_THE_END: Final = frozenset(
    b"end why finished reason traceback node worker attempts stage visits published deadline retry_of".split()
)


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter: why a prompt failed, where, and after how many attempts that it made go wrong alone."""

    entry_id: str
    id: str
    prompt: str
    why: str
    reason: str
    traceback: str
    node: str
    worker: str
    attempts: int
    finished: float
    allowance_s: float
    visits: tuple[Visit, ...]
    fields: Mapping[bytes, bytes]

    @classmethod
    def from_wire(cls, entry_id: str, raw: Mapping[bytes, bytes]) -> Letter:
        """Read an entry of `dead`; whatever the failed entry held is shown and not trusted."""

        def text(name: bytes) -> str:
            return raw.get(name, b"").decode(errors="replace")

        return cls(
            entry_id=entry_id,
            id=text(b"id"),
            prompt=text(b"prompt"),
            why=text(b"why"),
            reason=text(b"reason"),
            traceback=text(b"traceback"),
            node=text(b"node"),
            worker=text(b"worker"),
            attempts=integer_or(raw.get(b"attempts"), 0),
            finished=_seconds(raw.get(b"finished")),
            allowance_s=_seconds(raw.get(b"deadline")) - _seconds(raw.get(b"published")),
            visits=readable_visits(raw.get(b"visits")),
            fields=raw,
        )

    def again(self, allowance_s: float) -> Publication:
        """A new prompt that repeats this one, with `retry_of`; the same letter always makes the same id.

        It is promised what the failed one was, or `allowance_s` where that was nothing. Raises CascadeError for
        an entry that was no prompt.
        """
        own = {name: value for name, value in self.fields.items() if name not in _OF_THE_END}
        try:
            job = Job.from_wire(own)
        except MalformedEntry as wrong:
            raise CascadeError(f"{self.id} can't be sent again: {wrong.reason}") from None
        job = replace(job, id=f"{self.id}-retry-{self.entry_id}", extra={**job.extra, RETRY_OF: self.id.encode()})
        return Publication(job, self.allowance_s if self.allowance_s > 0 else allowance_s)


def letters(observer: Observer) -> list[Letter]:
    """All dead letters, oldest first."""
    # Trimming is approximate: there may be some more than are kept.
    rows = observer.rows(observer.keys.dead, "0", 2 * DEAD_KEPT)
    return [Letter.from_wire(entry_id.decode(), fields) for entry_id, fields in rows]


def find_letter(observer: Observer, prompt_id: str) -> Letter:
    """The newest letter of a prompt; raises CascadeError where there is none."""
    found = [letter for letter in letters(observer) if letter.id == prompt_id]
    if not found:
        raise CascadeError(f"there is no dead letter of {prompt_id!r}")
    return found[-1]


def _seconds(text: bytes | None) -> float:
    try:
        return float(text or 0.0)
    except ValueError:
        return 0.0


def id_or_none(raw: Mapping[bytes, bytes]) -> str:
    """A malformed entry's own id; an id that is malformed itself is replaced by the entry's."""
    try:
        return read_id(raw.get(b"id", b""))
    except ValueError:
        return ""


def left_of(raw: Mapping[bytes, bytes], stated: Wire) -> list[str | bytes]:
    """What a letter keeps of a malformed entry's own fields: the first ones, each cut, and all of them too."""
    kept: list[str | bytes] = []
    room = LETTER_LIMIT
    for name, value in list(raw.items())[:FIELDS_KEPT]:
        pair = name[:VALUE_LIMIT], value[:VALUE_LIMIT]
        if name.decode(errors="replace") not in stated and (room := room - sum(map(len, pair))) >= 0:
            kept += pair
    return kept


def beside(hop: Hop, consumer: str) -> list[str]:
    """What a letter says beside the outcome; nothing where the prompt was not to blame for anything."""
    if not hop.blamed:
        return []
    return ["node", node_of(consumer), "worker", consumer, "traceback", hop.traceback]
