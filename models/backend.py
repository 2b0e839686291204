"""The one verb of a model: `draw(jobs) -> pictures`. Workers know this interface and no library.

    jobs ──> Backend.draw ──> [Picture(data, score), ...]   one per job, in order

`open_backend` chooses from a table. Nothing here imports torch: a worker that sleeps must stay cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from shared.catalog import Cascade
from shared.config import Resident
from shared.errors import ModelError, SettingsError
from shared.messages import Job
from shared.schema import Stage


class OutOfMemory(ModelError):
    """The batch does not fit the device's memory; a smaller one may."""


class NobodyWaits(Exception):
    """The batch was given up between two steps: its prompts were cancelled, or are another's by now."""


Abandoned = Callable[[], bool]


def never() -> bool:
    """For who draws whatever happens."""
    return False


@dataclass(frozen=True, slots=True)
class Picture:
    """What a model made of one prompt.

    `data`: an encoded WebP, or the PNG that the prompt asks for, b"" from a backend that draws nothing. `score`: the
    discriminator's P(real) in [0, 1], higher is better; None from the heavy stage. `flagged`: the safety checker does
    not let it pass; then there is no data.
    """

    data: bytes
    score: float | None = None
    flagged: bool = False


@dataclass(frozen=True, slots=True)
class Undeveloped:
    """A picture that is drawn and scored, and is still being encoded in another thread.

    `encoding` waits for its bytes. `score`, `flagged`: as of Picture.
    """

    encoding: Callable[[], bytes]
    score: float | None = None
    flagged: bool = False

    @property
    def data(self) -> bytes:
        """The encoded picture, waited for; raises what the encoding raised."""
        return self.encoding()


Drawn = Picture | Undeveloped


class Backend(Protocol):
    """A loaded model of one stage."""

    @property
    def stage(self) -> Stage:
        """The stage whose model this is."""

    def warm_up(self, batches: Sequence[int]) -> None:
        """Draw once at each batch size, so that the first prompts do not pay for it; raises ModelError."""

    def draw(self, jobs: Sequence[Job], abandoned: Abandoned = ..., /) -> list[Picture]:
        """One picture per job, in order. A picture depends on its own job only, not on the batch.

        `abandoned` is asked between steps: once nobody waits for any of the pictures, NobodyWaits is raised.
        Raises ModelError where the model returned another number of pictures or one that is not finite,
        OutOfMemory where the batch is too large.
        """


@runtime_checkable
class Ahead(Protocol):
    """A backend that can draw the next batch while the pictures of the last are encoded."""

    def draw_ahead(self, jobs: Sequence[Job], abandoned: Abandoned = ..., /) -> Sequence[Drawn]:
        """As `draw`, but it does not wait for the encoding where that has threads of its own."""


@runtime_checkable
class Parkable(Protocol):
    """A backend that can leave its device: while it is parked another process may use the device's memory."""

    @property
    def parked(self) -> bool:
        """Whether it is."""

    def park(self) -> None:
        """Let the device's memory go, if that was not done; the backend draws nothing while it is parked."""

    def unpark(self) -> None:
        """Take it again, if it was let go; raises OutOfMemory where another still has it, ModelError."""


def open_backend(
    kind: str,
    cascade: Cascade,
    stage: Stage,
    gpu: str | None = None,
    resident: Resident = True,
    shares: int = 1,
) -> Backend:
    """Load the stage's model.

    `kind`: `diffusers`, `sleeping` or, to try what faults do, `faulty`. `gpu`: the GPU type as the profiles name
    it; "cpu" never uses a GPU, None uses one if there is one. `resident`, `shares`: as of the settings; where the
    model waits in host memory, the backend is Parkable and begins parked. Raises ModelError (weights, device) or
    SettingsError (kind, profile).
    """
    try:
        opener = (_HOSTED if _waits_in_host_memory(kind, cascade, gpu, resident, shares) else _KINDS)[kind]
    except KeyError:
        raise SettingsError(f"backend: unknown kind {kind!r}; there are {', '.join(_KINDS)}") from None
    return opener(cascade, stage, gpu)


def stays(resident: Resident, backend: Backend) -> str:
    """Where the model stays while the slot's other one draws, as the planner reads it (`census.STAYS`)."""
    return "0" if resident is False else "host" if isinstance(backend, Parkable) else "1"


def _waits_in_host_memory(kind: str, cascade: Cascade, gpu: str | None, resident: Resident, shares: int) -> bool:
    if resident != "auto" or kind != "diffusers":
        return resident == "host"
    from models.memory import both_fit

    return not both_fit(cascade, gpu, shares)


def _diffusers(cascade: Cascade, stage: Stage, gpu: str | None) -> Backend:
    from models.diffusion import open_diffusion

    return open_diffusion(cascade, stage, gpu)


def _swapping(cascade: Cascade, stage: Stage, gpu: str | None) -> Backend:
    from models.swapping import open_swapping

    return open_swapping(cascade, stage, gpu)


def _sleeping_hosted(cascade: Cascade, stage: Stage, gpu: str | None) -> Backend:
    from models.sleeping import SleepingSwapper

    return SleepingSwapper(cascade, stage, gpu)


def _sleeping(cascade: Cascade, stage: Stage, gpu: str | None) -> Backend:
    from models.sleeping import SleepingBackend

    return SleepingBackend(cascade, stage, gpu)


def _faulty(cascade: Cascade, stage: Stage, gpu: str | None) -> Backend:
    from models.faulty import FaultyBackend

    return FaultyBackend(cascade, stage, gpu)


_KINDS: Final[Mapping[str, Callable[[Cascade, Stage, str | None], Backend]]] = {
    "diffusers": _diffusers,
    "sleeping": _sleeping,
    "faulty": _faulty,
}
_HOSTED: Final = {**_KINDS, "diffusers": _swapping, "sleeping": _sleeping_hosted}
