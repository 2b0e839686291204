"""Progress of long work: whoever works says how far it is, and knows nothing of a terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich.progress import Progress, TaskID

Say = Callable[[str, int, int], None]  # what is being done, how much of it is done, of how much


def unsaid(_what: str, _done: int, _of: int) -> None:
    """For who is not asked."""


def bars(shown: Progress) -> Say:
    """Shows each kind of work as a bar of its own; what follows a comma is news of the same work."""
    known: dict[str, TaskID] = {}

    def say(what: str, done: int, of: int) -> None:
        kind = what.split(",")[0]
        if kind not in known:
            known[kind] = shown.add_task(what, total=of)
        shown.update(known[kind], completed=done, total=of, description=what)

    return say
