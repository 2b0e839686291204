"""Which of the speed switches are on: a checked, frozen value, read from a row of the catalogue or the environment.

    speed = "default,compile"                          in a row of [models]
    CASCADE_SPEED="default,guidance_until=0.6" ...     for one process; wins over the row

`none`, `default` (what suits the device) and `all` (every switch that leaves the picture as it is) are words for
several. What each does and when it cannot stands in models/speed.py. Nothing here imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from shared.errors import SettingsError
from shared.model import Model

SETTING: Final = "CASCADE_SPEED"
# In the order in which they are applied: compiling takes in what the others did.
UNCHANGED: Final = (
    "channels_last", "fused_projections", "cached_prompts", "host_schedule", "threaded_encoding", "compile",
)  # fmt: skip
CHANGED: Final = ("guidance_until", "cached_features", "int8")  # these draw other pictures: never on by themselves


@dataclass(frozen=True, slots=True)
class Switches:
    """What is on. The first six leave pictures as they are but for rounding; the last three do not.

    `guidance_until`: the share of the steps, from the first, that are guided, in (0, 1]; 1 is all of them.
    `cached_features`: the denoiser's deep blocks run in every so many-th step; 1 is in each. Raises SettingsError.
    """

    channels_last: bool = False
    fused_projections: bool = False
    cached_prompts: bool = False
    host_schedule: bool = False
    threaded_encoding: bool = False
    compile: bool = False
    guidance_until: float = 1.0
    cached_features: int = 1
    int8: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.guidance_until <= 1:
            raise SettingsError(f"speed: guidance_until is a share of the steps in (0, 1], not {self.guidance_until}")
        if self.cached_features < 1:
            raise SettingsError(f"speed: cached_features is a number of steps from 1, not {self.cached_features}")
        if self.compile and self.cached_features > 1:
            # The kept features would lie in a graph's own memory, which its next run overwrites.
            raise SettingsError("speed: cached_features does not go together with compile; choose one of them")

    def on(self, name: str) -> bool:
        """Whether a switch is set to anything but its default."""
        return bool(getattr(self, name) != next(each.default for each in fields(self) if each.name == name))

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are on, in the order in which they are applied."""
        return tuple(name for name in _APPLIED if self.on(name))


# Compiling comes last of all: it takes the network as it then is.
_APPLIED: Final = (*UNCHANGED[:-1], *CHANGED, UNCHANGED[-1])

# On a GPU compiling costs minutes at the first start and was not measured on one yet: it is asked for by name. On a
# processor channels last gains nothing at these sizes.
_DEFAULTS: Final[Mapping[str, tuple[str, ...]]] = {
    "cuda": UNCHANGED[:-1],
    "cpu": ("fused_projections", "cached_prompts", "threaded_encoding"),
}


def parse(text: str, device: str) -> Switches:
    """Switches from words apart by commas, such as `default,compile,guidance_until=0.6`; raises SettingsError.

    `device`: `cuda` or `cpu`, which decides what `default` stands for.
    """
    several = {"none": (), "default": _DEFAULTS.get(device, ()), "all": UNCHANGED}
    given: dict[str, Any] = {}
    for word in filter(None, (each.strip() for each in text.split(","))):
        name, _, value = word.partition("=")
        if word in several:
            given |= dict.fromkeys(several[word], True)
        else:
            given[name] = _value(name, value, several)
    return Switches(**given)


def _value(name: str, value: str, several: Mapping[str, object]) -> bool | float:
    reader = _READERS.get(name)
    if reader is None:
        raise SettingsError(f"speed: no switch {name!r}; there are {', '.join((*several, *UNCHANGED, *CHANGED))}")
    try:
        return reader(value)
    except ValueError:
        raise SettingsError(f"speed: {name}: {value!r} is no value of it") from None


def _flag(value: str) -> bool:
    if value:
        raise ValueError(value)
    return True


_READERS: Final[Mapping[str, Callable[[str], bool | float]]] = {
    **dict.fromkeys((*UNCHANGED, "int8"), _flag),
    "guidance_until": lambda value: float(value or 0.6),
    "cached_features": lambda value: int(value or 2),
}


def switches_of(model: Model, device: str, environment: Mapping[str, str] = os.environ) -> Switches:
    """What is on for a model: the environment's word, else its row's, else the device's default; raises SettingsError.

    The error names where the word stands.
    """
    source, text = f"model {model.name!r}", model.speed
    if environment.get(SETTING):  # a compose file sets it empty where nobody asked for anything
        source, text = SETTING, environment[SETTING]
    try:
        return parse(text or "default", device)
    except SettingsError as wrong:
        raise SettingsError(f"{source}: {wrong}") from None
