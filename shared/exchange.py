"""What callers and the broker hand each other: values around a publish, a claim, a hop, a lease."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from shared.errors import MalformedEntry
from shared.messages import End, Entry, Job, Wire
from shared.schema import CLASSES, STAGES, Stage

PLACE: Final = ("entry", "stage", "class")  # fields of a prompt's record


@dataclass(frozen=True, slots=True)
class Publication:
    """A prompt at the door: seconds it is promised within, and how late it came against its schedule."""

    job: Job
    allowance_s: float
    lag_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the door said: published with its deadline, known already, or refused until `retry_after_s`.

    `why` it was refused: `deadline` (no stage can make it in time), `allowance` (nor could an empty one) or `memory`
    (the server's runs short).
    """

    id: str
    status: Literal["published", "known", "refused"]
    deadline: float = 0.0
    retry_after_s: float = 0.0
    state: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What became of a wish to cancel: `done` now, or the state that stood already, `unknown` without a record."""

    id: str
    done: bool
    state: str


@dataclass(frozen=True, slots=True)
class OpenPrompt:
    """What the keeper must know of an open prompt."""

    id: str
    deadline: float
    stage: Stage
    priority: int
    entry_id: str
    has_light: bool


@dataclass(frozen=True, slots=True)
class Broken:
    """A claimed entry that is no prompt."""

    priority: int
    entry_id: str
    error: MalformedEntry


@dataclass(frozen=True, slots=True)
class Claim:
    """What a worker got.

    `next_waiting`: prompts that wait for the next stage; `now`: server time; `regrouped`: a stream had lost
    its group, which was made again.
    """

    holder: bool
    plan_version: int
    now: float
    ask_again_s: float
    next_waiting: int
    entries: tuple[Entry, ...] = ()
    broken: tuple[Broken, ...] = ()
    regrouped: bool = False


@dataclass(frozen=True, slots=True)
class Hop:
    """Where a claimed prompt goes: to the heavy stage (`end` None), or to its end with the reason why.

    `reason`: what went wrong, in words, for the outcome and the dead letter; `why` is one of few words, for
    it is counted. `fields`: what the outcome says in place of the job's own fields, flat. `blamed`: drawing this
    prompt alone went wrong; that is one more of its attempts and makes a dead letter, with the `traceback`.
    """

    entry: Entry
    end: End | None
    why: str
    picture: bytes = b""
    gpu_s: float = 0.0
    reason: str = ""
    fields: Sequence[str | bytes] | None = None
    blamed: bool = False
    traceback: str = ""

    @classmethod
    def spoilt(cls, entry: Entry, why: str, reason: str, traceback: str) -> Hop:
        """The end of a prompt that went wrong alone: its light picture is the answer where it has one."""
        if entry.job.light_visit:
            return cls(entry, "light", "heavy_failed", reason=reason, blamed=True, traceback=traceback)
        return cls(entry, "failed", why, reason=reason, blamed=True, traceback=traceback)


@dataclass(frozen=True, slots=True)
class Renewal:
    """What is still a worker's own after a beat of its lease."""

    alive: bool
    holder: bool
    plan_version: int
    entries: frozenset[tuple[int, str]]  # places


def is_of(record: Sequence[bytes | None], stage: Stage, entry: Entry | Broken) -> bool:
    """Whether a record's PLACE is where this entry of a stage sits: `is_of` in common.lua."""
    known, known_stage, known_class = ((each or b"").decode(errors="replace") for each in record)
    elsewhere = known_stage in STAGES and known_stage != stage
    elsewhere |= known_class in map(str, CLASSES) and known_class != str(entry.priority)
    return known == entry.entry_id and not elsewhere


def flatten(fields: Wire) -> list[str | bytes]:
    """A mapping as the flat list that scripts take."""
    return [part for pair in fields.items() for part in pair]
