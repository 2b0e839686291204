"""Looks whether this machine and its Redis are fit for the pipeline, and says what to mend.

    python -m services.doctor [--role worker]

Prints what is ok, worth a note, or wrong, a line each (on a terminal wrapped); ends with exit code 1 where something is
wrong. A machine that is no node, by --role or by the name of its Redis user, needs neither GPU nor weights.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.doctor.finding import Finding, Level
from services.doctor.machine import of_disk, of_models, of_solver, places
from services.doctor.server import ON_NODES, of_redis
from shared.checkup import WRITES
from shared.config import load, parser
from shared.process import guarded

STYLES: Final[Mapping[Level, str]] = {"ok": "green", "note": "yellow", "wrong": "bold red"}
NAMES: Final = ("redis_url", "deployment", "cascade", "backend", "solver", "node", "gpu", "random_weights")


def main() -> int:
    """Print the findings; 1 where something is wrong."""
    options = parser(__doc__ or "", [*NAMES, "pictures_at", "log_dir"])
    options.add_argument("--role", choices=sorted(WRITES), help="whose rights to check; default: our user's name")
    arguments = options.parse_args()
    settings = load(arguments)
    user = urlsplit(settings.redis_url).username or ""
    role = arguments.role or (user if user in WRITES else "")
    findings = [*of_redis(settings, arguments.role), of_solver(settings)]
    models = list(of_models(settings, role in ON_NODES))
    fetches = any(finding.subject == "weights" and finding.level == "wrong" for finding in models)
    findings += [*models, *of_disk(places(settings, fetches))]
    show(findings, Console(force_terminal=sys.stdout.isatty()))  # FORCE_COLOR makes no terminal of a pipe
    return int(any(finding.level == "wrong" for finding in findings))


def show(findings: Sequence[Finding], console: Console) -> None:
    """Every finding whole: what is too long for a terminal goes on below itself, a file or a pipe gets a line each."""
    if not console.is_terminal:
        width = max(len(finding.subject) for finding in findings)
        for subject, level, words in findings:
            line = f"{subject:{width}}  {level:5}  {' '.join(words.split())}"
            console.print(line, soft_wrap=True, markup=False, emoji=False, highlight=False)
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # a path may be longer than the terminal is wide
    for subject, level, words in findings:
        table.add_row(subject, Text(level, STYLES[level]), Text(words))
    console.print(table)


if __name__ == "__main__":
    guarded(main)
