"""What people read of prompts, times and shares: in the same words on the dashboard, in reports and in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from shared.summary import percent

NOTHING: Final = "\N{EN DASH}"
# By `<end>:<why>`, and by why alone where it says the same whatever the end.
REASONS: Final[Mapping[str, str]] = {
    "light:confident": "the score reached the threshold",
    "light:light_only": "light was asked for",
    "light:moved": "there was no time left to draw it heavy, as was asked for",
    "light:no_time": "too little time was left for heavy",
    "light:deadline": "heavy would have come after the deadline",
    "heavy:cascade": "the score lay below the threshold",
    "heavy:heavy": "heavy was asked for",
    "dropped:deadline": "no picture by the deadline",
    "refused:deadline": "the queue is too long for the deadline",
    "refused:allowance": "the deadline is shorter than a batch takes",
    "refused:memory": "Redis runs short of memory",
    "heavy_failed": "the heavy picture could not be drawn",
    "error": "drawing went wrong",
    "unsafe": "the prompt or its picture was judged unsafe",
    "size": "a size that the cascade does not draw",
    "steps": "a number of steps that the cascade does not draw in",
    "guidance": "a guidance that the cascade does not draw with",
    "format": "a format in which no picture is drawn",
    "malformed": "the entry was no prompt",
    "poison": "workers died while they drew it",
    "hang": "drawing it did not end",
}


def reason(end: str, why: str) -> str:
    """Why a prompt ended so; the text of an error is shown as it is."""
    known = REASONS.get(f"{end}:{why}") or REASONS.get(why)
    return known or (why.replace("_", " ") if why.isidentifier() else why)


def told(end: str, why: str) -> str:
    """How a prompt ended, and why."""
    return f"{end}: {reason(end, why)}" if why else end


def at(seconds: float) -> str:
    """A time of the server's clock as people read it."""
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return "?"


def most(share: float | None) -> str:
    """A share that should be whole: one that is all but whole is not shown as whole; None where there is none."""
    if share is None:
        return NOTHING
    if share >= 0.9995:
        return "100 %" if share == 1 else "> 99.9 %"
    return percent(share)
