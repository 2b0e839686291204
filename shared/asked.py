"""What a prompt asks of a model beside its words: size, steps, guidance. Only prompts that ask alike share a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from shared.catalog import Cascade
from shared.messages import Entry, Job
from shared.model import Model
from shared.sizes import asked_size


class Asked(NamedTuple):
    """How a model draws a prompt; `size` as `<width>x<height>` in pixels."""

    size: str
    steps: int
    guidance: float


def asked_of(model: Model, job: Job) -> Asked:
    """How the model draws the prompt: as asked where its row allows that, else as it does by itself."""
    steps, guidance = job.parameters.get("steps"), job.parameters.get("guidance")
    return Asked(
        asked_size(job) or model.own_size,
        steps if steps in model.steps_allowed else model.steps,
        guidance if guidance in model.guidance_allowed else model.guidance,
    )


def objection(cascade: Cascade, job: Job) -> tuple[str, str] | None:
    """What a prompt asks that is not drawn on its route: the parameter, and why in words; None where all is.

    A size is drawn by every model on the route. Steps and guidance are by one at least; the others keep their own.
    """
    size, sizes = asked_size(job), cascade.sizes_of(job.route)
    if size is not None and size not in sizes:
        return "size", f"size {size[:20]} is not among those of this cascade: {', '.join(sizes) or 'none'}"
    for name, allowed in (("steps", cascade.steps_of(job.route)), ("guidance", cascade.guidance_of(job.route))):
        if (value := job.parameters.get(name)) is not None and value not in allowed:
            known = ", ".join(f"{each:g}" for each in allowed)
            return name, f"{name} {value} is not among those of this cascade: {known}"
    return None


def alike(
    entries: Sequence[Entry], kind: Callable[[Job], Asked], can_wait: Callable[[Job], bool]
) -> tuple[list[Entry], list[Entry]]:
    """Those that can be drawn together with the first one, and the rest, both in order.

    The first in the order of the claim came first, or was handed back before: if the most urgent one always chose,
    whoever asks for something rare would wait for ever. But of those that cannot wait for one more batch the most
    urgent chooses.
    """
    if not entries:
        return [], []
    kinds = [kind(entry.job) for entry in entries]
    pressed = [place for place, entry in enumerate(entries) if not can_wait(entry.job)]
    first = min(pressed, key=lambda place: entries[place].job.deadline, default=0)
    together = [entry for entry, each in zip(entries, kinds, strict=True) if each == kinds[first]]
    return together, [entry for entry, each in zip(entries, kinds, strict=True) if each != kinds[first]]
