"""One line of the doctor's table."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["ok", "note", "wrong"]


class Finding(NamedTuple):
    """What is to be said of a subject, and how bad it is."""

    subject: str
    level: Level
    words: str
