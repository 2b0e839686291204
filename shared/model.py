"""A row of [models] in the catalogue: where a pipeline's weights come from, and how it is called.

Names, classes and settings are the models' own. A row is checked where it is read; nothing here imports a library
that draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic.dataclasses import dataclass

from shared.sizes import allowed_sizes
from shared.wire import GUIDANCE, STEPS

TABLES: Final = Path(__file__).resolve().parent.parent / "models"
WEIGHTS: Final = "weights"  # folder beside a catalogue: what was fetched or trained, by the model's name
PROCESSOR: Final = "cpu"  # the GPU type of a slot that has no GPU
VISIBLE: Final = "CUDA_VISIBLE_DEVICES"  # the variable that says which GPUs a process sees, and in which order
SIDE_STEP: Final = 8  # decoders enlarge by this much: a side of a picture is a multiple of it

_CHECKED: Final = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_Revision = Annotated[str, Field(pattern=r"^([0-9a-f]{40})?$")]
_ClassName = Annotated[str, Field(pattern=r"^([A-Z]\w+)?$")]


def on_processor(gpu: str | None) -> bool:
    """Whether what is drawn on slots of a GPU type is drawn on a processor; None is no type, and says nothing."""
    return gpu == PROCESSOR


@dataclass(frozen=True, slots=True, config=_CHECKED)
class Part:
    """A part of a pipeline whose weights another hub id has: a safetensors `file` of `source` at a revision.

    Its architecture is that of the part whose place it takes.
    """

    source: Annotated[str, Field(min_length=1)]
    file: Annotated[str, Field(pattern=r"\.safetensors$")]
    revision: _Revision = ""


def _as_part(given: Any) -> Any:
    return Part(**given) if isinstance(given, dict) else given


@dataclass(frozen=True, slots=True, config=_CHECKED)
class Model:
    """A diffusion pipeline and how it is called.

    `source`: a hub id, or a folder beside the catalogue. `revision`: the commit on the hub that is meant; empty for a
    folder. `variant`: which of several weight files, such as fp16. `pipeline`, `scheduler`: classes of diffusers;
    empty: as the folder's own model_index.json says; `scheduler_settings` change single settings of it. `parts`:
    parts that come from elsewhere, by their names in the pipeline. `without`: parts that are left out.
    `random_weights`: its architecture alone is taken, and weights drawn by chance. `memory_gib`: of the weights and a
    batch of one. `speed`: switches, as models/switches.py reads them; empty: the device's default. `sizes`,
    `steps_allowed`, `guidance_allowed`: what may be asked for, sizes as `<width>x<height>`; its own alone where nothing
    is said, for profiles are of that. `home`: the catalogue's folder.
    """

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    source: str
    steps: Annotated[int, Field(ge=1)]
    guidance: Annotated[float, Field(ge=0)]
    size: Annotated[int, Field(ge=SIDE_STEP, multiple_of=SIDE_STEP)]
    memory_gib: Annotated[float, Field(gt=0)]
    licence: str = ""
    sizes: Annotated[tuple[str, ...], Field(strict=False)] = ()
    steps_allowed: Annotated[tuple[Annotated[int, Field(ge=STEPS[0], le=STEPS[1])], ...], Field(strict=False)] = ()
    guidance_allowed: Annotated[
        tuple[Annotated[float, Field(ge=GUIDANCE[0], le=GUIDANCE[1])], ...], Field(strict=False)
    ] = ()
    revision: _Revision = ""
    variant: str = ""
    pipeline: _ClassName = ""
    scheduler: _ClassName = ""
    scheduler_settings: Mapping[str, Any] = field(default_factory=dict)
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    parts: Mapping[str, Annotated[Part, BeforeValidator(_as_part)]] = field(default_factory=dict)
    without: Annotated[tuple[str, ...], Field(strict=False)] = ()
    random_weights: bool = False
    speed: str = ""
    home: Path = TABLES

    @field_validator("sizes")
    @classmethod
    def _sides_can_be_drawn(cls, sizes: tuple[str, ...]) -> tuple[str, ...]:
        for size in sizes:
            if any(int(side) % SIDE_STEP for side in size.split("x") if side.isdigit()):
                raise ValueError(f"{size}: both sides must be multiples of {SIDE_STEP}")
        return sizes

    @model_validator(mode="after")
    def _its_own_is_allowed(self) -> Model:
        object.__setattr__(self, "sizes", allowed_sizes(self.sizes, self.size))
        for name, own in (("steps", self.steps), ("guidance", self.guidance)):
            allowed = getattr(self, f"{name}_allowed") or (own,)
            if own not in allowed:
                raise ValueError(f"{name}_allowed: {own:g}, the model's own, is missing")
            object.__setattr__(self, f"{name}_allowed", allowed)
        return self

    @property
    def own_size(self) -> str:
        """The size it was made for, as `<width>x<height>`."""
        return f"{self.size}x{self.size}"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where its weights may lie beside the catalogue, the first that is there being the one."""
        return self.home / self.source, self.home / WEIGHTS / self.name

    def part_folder(self, name: str) -> Path:
        """Where the file of a part that comes from elsewhere is fetched to."""
        return self.home / WEIGHTS / f"{self.name}-{name}"

    @property
    def folder(self) -> Path | None:
        """The folder beside the catalogue that its weights lie in; None where there is none."""
        return next((folder for folder in self.folders if folder.is_dir()), None)

    @property
    def fetched(self) -> bool:
        """Whether the hub has it; false for one whose folder came with the catalogue."""
        return not (self.home / self.source).is_dir()
