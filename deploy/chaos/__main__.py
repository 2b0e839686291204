"""`make chaos`: inject faults while a trace runs on sleeping workers, and tell whether every promise holds.

    python -m deploy.chaos kill pause --scale 0.2 --slots 8

Prints a table and writes it as CSV, one row per fault; rows of faults that were not run now are kept.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from deploy.chaos.play import play
from deploy.chaos.report import Played, as_table, row, write_csv
from deploy.chaos.table import FAULTS, SOAK
from deploy.results import end_on_sigterm
from shared.errors import CascadeError, SettingsError
from shared.process import guarded

TABLE = {**FAULTS, "soak": SOAK}


def main() -> int:
    """Run the chosen faults one after the other; 1 when something that must hold does not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chosen", nargs="*", metavar="fault", help=f"{', '.join(TABLE)}; default: all but soak")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on how long each fault goes on")
    parser.add_argument("--slots", type=int, default=16, help="slots, where the fault does not say")
    parser.add_argument("--runs", type=int, default=1, help="times that each fault is run")
    parser.add_argument("--out", type=Path, default=Path("logs/chaos.csv"), help="the CSV file")
    parser.add_argument("--logs", type=Path, help="folder that keeps every run's logs; default: none are kept")
    given = parser.parse_args()
    end_on_sigterm()
    unknown = [name for name in given.chosen if name not in TABLE]
    if unknown:
        raise SettingsError(f"no fault is called {unknown[0]}; there are {', '.join(TABLE)}")
    console = Console(stderr=True)
    command = shlex.join(["python", "-m", "deploy.chaos", *sys.argv[1:]])
    rows: list[list[str]] = []
    for name in given.chosen or FAULTS:
        rows.append(row([_played(name, number, given, console) for number in range(given.runs)], command))
        write_csv(rows[-1:], given.out)
    Console().print(as_table(rows))
    broken = [each for each in rows if each[-2]]
    for each in broken:
        Console().print(f"{each[0]}: {each[-2]}", highlight=False, soft_wrap=True)
    return 1 if broken else 0


def _played(name: str, number: int, given: argparse.Namespace, console: Console) -> Played:
    def say(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    with tempfile.TemporaryDirectory(prefix="cascade-chaos-") as temporary:
        folder = given.logs / f"{name}-{number}" if given.logs else Path(temporary) / name
        try:
            return play(name, TABLE[name], given.scale, given.slots, folder, say)
        except CascadeError as wrong:  # the next fault is run all the same
            return Played(name, TABLE[name].what, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, (), (f"not tested: {wrong}",))


if __name__ == "__main__":
    guarded(main)
