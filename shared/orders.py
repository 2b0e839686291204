"""What a person orders: nodes drained, threshold or counts pinned, the planner paused; and who ordered it.

Orders stand in the hash `{d}:orders` until they are taken back, one field each, and may be written by hand:

    drain:<node>     1           the node's slots leave the view; its workers finish their batch and read nothing more
    threshold        0.3         in place of the policy's
    light_workers    4           in place of the policy's; so `heavy_workers`
    paused           1           the plan in force stays

Through `Standing.order` a change and its entry in `{d}:audit` are made together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from shared.errors import SettingsError
from shared.messages import Fields
from shared.schema import STAGES, Stage

ON: Final = "1"
DRAIN: Final = "drain:"
PAUSED: Final = "paused"
THRESHOLD: Final = "threshold"
WORKERS: Final[Mapping[Stage, str]] = {stage: f"{stage}_workers" for stage in STAGES}
PINS: Final = (THRESHOLD, *WORKERS.values())
LEAST_WORKERS: Final[Mapping[Stage, int]] = {"light": 1, "heavy": 0}  # without light nothing is drawn
MOST_WORKERS: Final = 100_000  # more is a slip of the finger, and would not fit the arithmetic


@dataclass(frozen=True, slots=True)
class Orders:
    """What stands ordered. `drained`: nodes; a pin is None where the policy decides."""

    drained: frozenset[str] = frozenset()
    threshold: float | None = None
    light_workers: int | None = None
    heavy_workers: int | None = None
    paused: bool = False

    def workers(self, stage: Stage) -> int | None:
        """The pinned count of a stage; None where the policy decides."""
        return self.light_workers if stage == "light" else self.heavy_workers

    @property
    def pinned(self) -> dict[str, float | int]:
        """The pins that stand, by the name of their field."""
        return {name: value for name in PINS if (value := getattr(self, name)) is not None}

    def words(self) -> list[str]:
        """What stands, each order in a few words."""
        said = ["the planner is paused"] if self.paused else []
        said += [f"{name} pinned at {value:g}" for name, value in self.pinned.items()]
        return said + [f"{node} is drained" for node in sorted(self.drained)]

    def __bool__(self) -> bool:
        return self != Orders()

    @classmethod
    def from_wire(cls, raw: Fields) -> Orders:
        """Read the hash. What is unreadable or out of range is passed over: a slip must not stop the planner."""
        text = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in raw.items()}
        return cls(
            drained=frozenset(name[len(DRAIN) :] for name in text if name.startswith(DRAIN)),
            threshold=_read_threshold(text.get(THRESHOLD)),
            light_workers=_read_count(text.get(WORKERS["light"]), LEAST_WORKERS["light"]),
            heavy_workers=_read_count(text.get(WORKERS["heavy"]), LEAST_WORKERS["heavy"]),
            paused=text.get(PAUSED) == ON,
        )


@dataclass(frozen=True, slots=True)
class Order:
    """One change of what stands ordered. `fields`: field -> its new value, None: taken back; `what`: in words."""

    what: str
    fields: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Deed:
    """An entry of the audit: who ordered what, and when (seconds of the server's clock)."""

    at: float
    who: str
    what: str

    @classmethod
    def from_wire(cls, entry_id: bytes, raw: Fields) -> Deed:
        """Read an entry of `{d}:audit`."""
        said = (raw.get(name, b"").decode(errors="replace") for name in (b"who", b"what"))
        return cls(int(entry_id.split(b"-")[0]) / 1000, *said)


def drain(node: str) -> Order:
    """Let the node's workers finish what they hold, and give it nothing more."""
    return Order(f"drain {node}", {DRAIN + node: ON})


def undrain(node: str) -> Order:
    """Plan for the node again."""
    return Order(f"undrain {node}", {DRAIN + node: None})


def pin(*, threshold: float | None = None, light_workers: int | None = None, heavy_workers: int | None = None) -> Order:
    """Put these in place of what the policy decides; None: as it stands.

    Raises SettingsError, naming the field, for a threshold outside [0, 1], a negative count, no light worker at all,
    and where nothing is pinned.
    """
    given: dict[str, float | int | None] = {
        THRESHOLD: threshold,
        WORKERS["light"]: light_workers,
        WORKERS["heavy"]: heavy_workers,
    }
    pins = {name: str(value) for name, value in given.items() if value is not None}
    if not pins:
        raise SettingsError(f"pin: say what, of {', '.join(PINS)}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise SettingsError(f"{THRESHOLD}: must lie in [0, 1], got {threshold}")
    for stage in STAGES:
        count, least = given[WORKERS[stage]], LEAST_WORKERS[stage]
        if count is not None and not least <= count <= MOST_WORKERS:
            raise SettingsError(f"{WORKERS[stage]}: must be from {least} to {MOST_WORKERS}, got {count}")
    return Order("pin " + " ".join(f"{name}={value}" for name, value in pins.items()), dict(pins))


def unpin(*names: str) -> Order:
    """Leave these to the policy again, all where none is named. Raises SettingsError for one that can't be pinned."""
    for name in names:
        if name not in PINS:
            raise SettingsError(f"unpin: no {name!r}; there are {', '.join(PINS)}")
    return Order(" ".join(["unpin", *names]), dict.fromkeys(names or PINS))


def pause() -> Order:
    """Keep the plan in force, whatever the load."""
    return Order("pause", {PAUSED: ON})


def resume() -> Order:
    """Plan again."""
    return Order("resume", {PAUSED: None})


def _read_threshold(text: str | None) -> float | None:
    try:
        threshold = float(text) if text is not None else None
    except ValueError:
        return None
    return threshold if threshold is not None and 0 <= threshold <= 1 else None


def _read_count(text: str | None, least: int) -> int | None:
    try:
        count = int(text) if text is not None else None
    except ValueError:
        return None
    return count if count is not None and least <= count <= MOST_WORKERS else None
