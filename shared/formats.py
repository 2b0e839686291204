"""The encoding in which a picture is drawn: a prompt's parameter `picture_format`."""

from __future__ import annotations

from typing import Final, Literal

from shared.messages import Job

PictureFormat = Literal["webp", "png"]
FORMAT: Final = "picture_format"
FORMATS: Final[tuple[PictureFormat, ...]] = ("webp", "png")


def asked_format(job: Job) -> PictureFormat | None:
    """WebP unless the prompt asks for another; None for one that nobody draws."""
    asked = job.parameters.get(FORMAT, FORMATS[0])
    return next((known for known in FORMATS if known == asked), None)
