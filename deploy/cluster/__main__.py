"""`make cluster`: a head and GPU nodes, each in a network namespace of its own, run from the compose files and tried.

    python -m deploy.cluster node restart --scale 0.5

Needs root and no container engine. Prints a table and writes it as CSV, one row per scenario; rows of scenarios that
were not run now are kept.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from deploy.cluster.network import obstacle
from deploy.cluster.play import play
from deploy.cluster.report import as_table, phases_table, row, write_csv
from deploy.cluster.scenarios import SCENARIOS
from deploy.results import end_on_sigterm
from shared.errors import SettingsError
from shared.process import guarded


def main() -> int:
    """Run the chosen scenarios one after the other; 1 when something that must hold does not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chosen", nargs="*", metavar="scenario", help=f"{', '.join(SCENARIOS)}; default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the waits between what is done")
    parser.add_argument("--out", type=Path, default=Path("logs/cluster.csv"), help="the CSV file")
    parser.add_argument("--logs", type=Path, help="folder that keeps every container's log; default: none are kept")
    given = parser.parse_args()
    end_on_sigterm()
    if unknown := [name for name in given.chosen if name not in SCENARIOS]:
        raise SettingsError(f"no scenario is called {unknown[0]}; there are {', '.join(SCENARIOS)}")
    if reason := obstacle():
        raise SettingsError(f"not run: {reason}")
    console = Console()
    command = shlex.join(["python", "-m", "deploy.cluster", *sys.argv[1:]])
    rows: list[list[str]] = []
    for name in given.chosen or SCENARIOS:
        with tempfile.TemporaryDirectory(prefix="cascade-cluster-") as temporary:
            folder = (given.logs / name).resolve() if given.logs else Path(temporary)
            verdict = play(
                SCENARIOS[name],
                given.scale,
                folder,
                lambda line: console.print(line, highlight=False, soft_wrap=True),
            )
        rows.append(row(name, SCENARIOS[name], verdict, command))
        write_csv(rows[-1:], given.out)
        console.print(phases_table(verdict.phases))
        for words in (*verdict.missed, *(f"{name}: {words}" for words in verdict.broken)):
            console.print(words, highlight=False, soft_wrap=True)
    console.print(as_table(rows))
    return 1 if any(each[-2] for each in rows) else 0


if __name__ == "__main__":
    guarded(main)
