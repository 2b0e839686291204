"""Which prompts of a run are worth a look, and their pictures in a form that a page can hold."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image

from analysis.recording import PICTURE_KINDS, find_pictures, picture_name
from shared.messages import Outcome
from shared.recording import Recording
from shared.schema import STAGES, Stage

SHOWN_SIDE: Final = 256  # pixels; larger pictures are shrunk, sixty of them must fit one page

Pictures = Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class Card:
    """A prompt with the pictures it was given: data URIs, or None where one was drawn but is not there."""

    outcome: Outcome
    pictures: Mapping[Stage, str | None]


@dataclass(frozen=True, slots=True)
class Group:
    """A few of the prompts that fared alike, and how many fared so."""

    title: str
    remark: str
    total: int
    cards: tuple[Card, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to fare: at most `quota` prompts of it are shown."""

    title: str
    remark: str
    quota: int
    holds: Callable[[Outcome], bool]


# An outcome belongs to the first kind that holds.
KINDS: Final = (
    Kind(
        "Escalated",
        "The light picture scored below the threshold; the heavy one is the answer.",
        24,
        lambda outcome: outcome.end == "heavy" and outcome.score is not None,
    ),
    Kind(
        "Confident",
        "The light picture scored well enough and is the answer.",
        12,
        lambda outcome: outcome.end == "light" and outcome.why == "confident",
    ),
    Kind(
        "Kept by the keeper",
        "Escalated, but heavy could not draw by the deadline: the light picture became the answer.",
        10,
        lambda outcome: outcome.end == "light" and outcome.why == "deadline",
    ),
    Kind(
        "No time to escalate",
        "The light picture scored below the threshold, with too little time left for heavy.",
        4,
        lambda outcome: outcome.end == "light" and outcome.why == "no_time",
    ),
    Kind("Answered otherwise", "Sent straight to one model, or settled by another rule.", 4, lambda o: o.answered),
    Kind("Without a picture", "Dropped, failed or cancelled.", 6, lambda _: True),
)


def gallery(recording: Recording) -> list[Group]:
    """The telling prompts of a run, in the order of `KINDS`; kinds that did not occur are left out."""
    found = find_pictures(recording.pictures)
    sorts: dict[str, list[Outcome]] = {kind.title: [] for kind in KINDS}
    for outcome in recording.outcomes:
        sorts[next(kind.title for kind in KINDS if kind.holds(outcome))].append(outcome)
    return [
        Group(kind.title, kind.remark, len(sorts[kind.title]), _cards(sorts[kind.title], kind.quota, found))
        for kind in KINDS
        if sorts[kind.title]
    ]


def choose(outcomes: Sequence[Outcome], count: int, found: Pictures) -> list[Outcome]:
    """At most `count` outcomes spread evenly over the scores, those whose pictures are all there first."""
    whole = [outcome for outcome in outcomes if all(_name(outcome, stage) in found for stage in drawn(outcome))]
    candidates = whole if len(whole) >= count else outcomes
    ranked = sorted(candidates, key=lambda outcome: (outcome.score or 0.0, outcome.published, outcome.id))
    if len(ranked) <= count:
        return ranked
    return [ranked[place * (len(ranked) - 1) // max(count - 1, 1)] for place in range(count)]


def drawn(outcome: Outcome) -> tuple[Stage, ...]:
    """The stages that drew a picture for the prompt, light first."""
    visited = {visit.stage for visit in outcome.visits}
    return tuple(stage for stage in STAGES if stage in visited)


def data_uri(path: Path) -> str | None:
    """A picture as a data URI, shrunk to SHOWN_SIDE pixels; None where the file is gone or no picture."""
    try:
        with Image.open(path) as picture:
            picture.load()
            if max(picture.size) <= SHOWN_SIDE:
                return _uri(path.read_bytes(), PICTURE_KINDS[path.suffix])
            small = picture.convert("RGB")
            small.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    packed = io.BytesIO()
    small.save(packed, "WEBP", quality=85)
    return _uri(packed.getvalue(), "image/webp")


def _uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _cards(outcomes: Sequence[Outcome], count: int, found: Pictures) -> tuple[Card, ...]:
    return tuple(Card(outcome, _pictures(outcome, found)) for outcome in choose(outcomes, count, found))


def _pictures(outcome: Outcome, found: Pictures) -> dict[Stage, str | None]:
    """The pictures drawn, and a heavy one that came after the prompt was settled."""
    stages = [stage for stage in STAGES if stage in drawn(outcome) or _name(outcome, stage) in found]
    paths = {stage: found.get(_name(outcome, stage)) for stage in stages}
    return {stage: data_uri(path) if path else None for stage, path in paths.items()}


def _name(outcome: Outcome, stage: Stage) -> str:
    return picture_name(outcome.id, stage)
