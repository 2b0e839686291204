"""`deadletters list | show ID | retry ID | purge`: the prompts that failed."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.ctl.command import Action, Commands, add_command
from shared.broker import Broker
from shared.catalog import load_cascade
from shared.errors import CascadeError
from shared.letters import Letter, find_letter, letters
from shared.observer import Observer
from shared.words import at

PROMPT_WIDTH: Final = 60


def list_letters(broker: Broker, _given: argparse.Namespace, console: Console) -> None:
    """A table of all dead letters, newest last."""
    table = Table("id", "failed at", "why", "reason", "node", "attempts", "prompt")
    found = letters(Observer(broker))
    for letter in found:
        reason = letter.reason.split("\n")[0]
        row = [letter.id, at(letter.finished), letter.why, reason, letter.node, str(letter.attempts)]
        table.add_row(*map(Text, [*row, letter.prompt[:PROMPT_WIDTH]]))
    console.print(table if found else "no dead letters")


def show_letter(broker: Broker, given: argparse.Namespace, console: Console) -> None:
    """All that is known of one failed prompt."""
    letter = find_letter(Observer(broker), given.id)
    table = Table("field", "value", show_header=False)
    for name, value in _about(letter).items():
        if value:
            table.add_row(name, Text(value))
    console.print(table)
    if letter.visits:
        history = Table("stage", "worker", "started", "seconds", "batch", "score", title="visits")
        for visit in letter.visits:
            seconds = f"{visit.finished - visit.started:.3f}"
            score = "" if visit.score is None else f"{visit.score:.4f}"
            row = [visit.stage, str(visit.worker), at(visit.started), seconds, str(visit.batch), score]
            history.add_row(*map(Text, row))
        console.print(history)
    if letter.traceback:
        console.print(Text(letter.traceback))


def retry_letter(broker: Broker, given: argparse.Namespace, console: Console) -> None:
    """Publish a failed prompt again, under a new id that names it in `retry_of`.

    The letter stays, and a second retry of it is the same prompt.
    """
    settings = broker.settings
    letter = find_letter(Observer(broker), given.id)
    again = letter.again(settings.deadline_s or load_cascade(settings.cascade).deadline_s)
    (receipt,) = broker.publish([again])
    if receipt.status == "refused":
        raise CascadeError(f"{given.id} was refused at the door; try again in {receipt.retry_after_s:.1f} s")
    said = f"due {at(receipt.deadline)}" if receipt.status == "published" else f"known already: {receipt.state}"
    console.print(Text(f"{letter.id} is published again as {receipt.id}, {said}"), soft_wrap=True)


def purge_letters(broker: Broker, _given: argparse.Namespace, console: Console) -> None:
    """Throw all dead letters away."""
    console.print(f"{broker.purge_letters()} dead letters thrown away")


LETTERS: Final[Mapping[str, Action]] = {
    "list": list_letters,
    "show": show_letter,
    "retry": retry_letter,
    "purge": purge_letters,
}


def add(commands: Commands) -> None:
    """Add `deadletters` and its verbs."""
    made = commands.add_parser("deadletters", help="prompts that failed: list | show ID | retry ID | purge")
    verbs = made.add_subparsers(dest="verb", required=True, metavar="verb")
    for name, action in LETTERS.items():
        verb = add_command(verbs, name, action, looks=name in ("list", "show"))
        if name in ("show", "retry"):
            verb.add_argument("id", help="the prompt's id")


def _about(letter: Letter) -> dict[str, str]:
    shown = {"id": letter.id, "prompt": letter.prompt, "why": letter.why, "reason": letter.reason}
    shown |= {"failed at": at(letter.finished), "node": letter.node, "worker": letter.worker}
    shown |= {"attempts": str(letter.attempts or ""), "allowance_s": f"{letter.allowance_s:.3f}"}
    for name in (b"seed", b"route", b"priority", b"retry_of"):
        shown[name.decode()] = letter.fields.get(name, b"").decode(errors="replace")
    return shown
