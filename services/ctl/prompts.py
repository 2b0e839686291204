"""`submit`, `watch`, `cancel`: one prompt, from the command line to its picture."""

from __future__ import annotations

import argparse
import time
import uuid
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from services.ctl.command import Commands, add_command
from shared.broker import Broker
from shared.catalog import load_cascade
from shared.door import Door
from shared.errors import CascadeError
from shared.exchange import Publication
from shared.lookup import OPEN, Look, Lookup
from shared.messages import Job
from shared.observer import Observer
from shared.schema import CLASSES, NORMAL
from shared.wire import ROUTES
from shared.words import at

LOOK_S: Final = 0.05
AFTER_S: Final = 5.0  # past the deadline the keeper has ended every prompt
FOLDER: Final = Path("logs")


def submit(broker: Broker, given: argparse.Namespace, console: Console) -> None:
    """Offer a prompt and say its id; with --wait what becomes of it, with --out or --open its picture."""
    settings = broker.settings
    prompt_id = uuid.uuid4().hex[:12]
    route = given.route or Door(broker.plan).route(given.prompt, prompt_id)
    job = Job(prompt_id, given.prompt, 0.0, 0.0, given.seed, route, given.priority)
    allowance_s = settings.deadline_s or load_cascade(settings.cascade).deadline_s
    (receipt,) = broker.publish([Publication(job, allowance_s)])
    if receipt.status == "refused":
        again = f"try again in {receipt.retry_after_s:.1f} s" if receipt.retry_after_s else "no waiting helps"
        raise CascadeError(f"refused ({receipt.why}): {again}")
    console.print(Text(f"{prompt_id}  due {at(receipt.deadline)}"))
    if given.wait or given.open or given.out:
        _say_what_happens(broker, prompt_id, console)
    if given.open or given.out:
        path = given.out or FOLDER / f"{prompt_id}.webp"
        _keep_picture(broker, prompt_id, path, console)
        if given.open:
            webbrowser.open(path.resolve().as_uri())


def watch(broker: Broker, given: argparse.Namespace, console: Console) -> None:
    """Say what becomes of a prompt until it has ended."""
    _say_what_happens(broker, given.id, console)


def cancel(broker: Broker, given: argparse.Namespace, console: Console) -> None:
    """End an open prompt: a queued one at once; of one that is being drawn the result is void at once."""
    done = broker.cancel(given.id)
    if not done.done:
        known = "nobody knows such a prompt" if done.state == "unknown" else f"it has ended already: {done.state}"
        raise CascadeError(f"{given.id} was not cancelled: {known}")
    console.print(Text(f"{given.id} is cancelled"))


def _say_what_happens(broker: Broker, prompt_id: str, console: Console) -> None:
    said = ""
    for look in _looks(broker, prompt_id):
        if (words := in_words(look)) != said:
            said = words
            console.print(Text(words), soft_wrap=True)


def _looks(broker: Broker, prompt_id: str) -> Iterator[Look]:
    """The prompt as it stands, again and again until it has ended; raises CascadeError where nobody knows it."""
    lookup = Lookup(broker)
    while True:
        look = lookup.look(prompt_id, place=True)
        if look is None:
            raise CascadeError(f"nobody knows a prompt {prompt_id!r}: its id is wrong, or its record has run out")
        yield look
        if look.state != OPEN:
            return
        if broker.now() > look.deadline + AFTER_S:
            raise CascadeError(f"{prompt_id} is past its deadline and still open: does the keeper run?")
        time.sleep(LOOK_S)


def in_words(look: Look) -> str:
    """Where a prompt is, or how it ended."""
    score = "" if look.score is None else f", score {look.score:.4f}"
    if look.state == OPEN:
        kept = f"light picture is there{score}; " if look.has_light else ""
        drawn = "is being drawn" if look.placed else "waits, or is being drawn"
        where = drawn if look.waiting is None else f"waits behind {look.waiting}"
        return f"{kept}{look.stage}: {where}"
    reason = f": {look.reason}" if look.reason else ""
    upgraded = ", upgraded to heavy since" if look.upgraded else ""
    took_s = look.finished - look.published
    return f"{look.state} ({look.why}) after {took_s:.3f} s{score}{upgraded}{reason}"


def _keep_picture(broker: Broker, prompt_id: str, path: Path, console: Console) -> None:
    heavy, light = Observer(broker).images([(prompt_id, "heavy"), (prompt_id, "light")])
    picture = heavy or light
    if picture is None:
        raise CascadeError(f"there is no picture of {prompt_id}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
    except OSError as wrong:
        raise CascadeError(f"{path}: {wrong.strerror}") from None
    console.print(Text(f"its picture is in {path}"), soft_wrap=True)


def add(commands: Commands) -> None:
    """Add `submit`, `watch` and `cancel`."""
    made = add_command(commands, "submit", submit)
    made.add_argument("prompt")
    made.add_argument("--wait", action="store_true", help="say what becomes of it until it has ended")
    made.add_argument("--open", action="store_true", help="wait, and show the picture")
    made.add_argument("--out", type=Path, metavar="FILE", help="wait, and keep the picture (WebP) there")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--route", choices=ROUTES, help="default: as the plan says")
    made.add_argument("--priority", type=int, choices=CLASSES, default=NORMAL, help="0 urgent, 1 normal, 2 batch")
    add_command(commands, "watch", watch, looks=True).add_argument("id", help="the prompt's id")
    add_command(commands, "cancel", cancel).add_argument("id", help="the prompt's id")
