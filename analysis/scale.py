"""What one Redis carries, where it ends, how deployments spread over a cluster, and large fleets in the simulator.

    python -m analysis.scale [--gpus 10,100,1000] [--cascades sdturbo,sdxlltn] [--fleets 100,1000] [--out logs/scale]

Writes scale.md, scale.csv and scale.png into the folder. The limits rest on what `make bench BENCH=polling` measured.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from analysis.scale_drawing import draw
from analysis.scale_fleets import Fleet, simulated
from analysis.scale_limits import BENCH, Costs, Host, best_heavy_share, load_of, measured, taken
from analysis.scale_report import Row, report
from analysis.trial import check_policies
from shared.catalog import Cascade, load_cascade
from shared.errors import SettingsError
from shared.files import write_text
from shared.process import guarded
from shared.tables import write_table

POLICIES: Final = "quality,diffserve,random"
GIB: Final = 2**30
COLUMNS: Final = ("kind", "cascade", "gpus", "case", "figure", "value")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for: sizes of the table of limits and of the simulated fleets, in GPUs."""

    cascades: tuple[Cascade, ...]
    gpus: tuple[int, ...]
    fleets: tuple[int, ...]
    policies: tuple[str, ...]
    time_factor: float


def limits(wanted: Wanted, costs: Costs, host: Host) -> list[Row]:
    """What each size of each cascade asks of one Redis: all light and at the best quality, pictures there or not."""
    rows: list[Row] = []
    for cascade in wanted.cascades:
        for share in (0.0, best_heavy_share(cascade)):
            for elsewhere in (False, True):
                for gpus in wanted.gpus:
                    load = load_of(cascade, gpus, share, elsewhere=elsewhere)
                    rows.append(Row(cascade, load, taken(load, costs, host)))
    return rows


def fleets(wanted: Wanted, console: Console) -> list[Fleet]:
    """Every policy on every simulated fleet, told of while they run."""
    found: list[Fleet] = []
    for cascade in wanted.cascades:
        for gpus in wanted.fleets:
            for each in simulated(cascade, gpus, wanted.policies, wanted.time_factor):
                console.print(
                    f"{each.cascade}, {each.gpus:,} GPUs, {each.policy}: {each.processor_s:.0f} s", style="dim"
                )
                found.append(each)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code. Raises SettingsError before anything is written."""
    given = _parser().parse_args(arguments)
    wanted = Wanted(
        tuple(load_cascade(name) for name in given.cascades.split(",")),
        _sizes("gpus", given.gpus),
        _sizes("fleets", given.fleets),
        check_policies(given.policies.split(","), None),
        given.time,
    )
    host = Host(memory_bytes=given.memory_gib * GIB, network_bytes_per_s=given.network_gbit * 1e9 / 8)
    costs = measured(given.bench)
    rows = limits(wanted, costs, host)
    run = fleets(wanted, Console(stderr=True))
    asked = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "-m", "analysis.scale", *asked])
    try:
        given.out.mkdir(parents=True, exist_ok=True)
        draw(wanted.cascades, costs, host, given.out / "scale.png")
        write_table(given.out / "scale.csv", COLUMNS, _table(rows, run))
        write_text(given.out / "scale.md", report(rows, run, costs, host, command, wanted.time_factor))
    except OSError as wrong:
        raise SettingsError(f"{wrong.filename or given.out}: {wrong.strerror}") from None
    Console().print(f"{given.out / 'scale.md'}", soft_wrap=True, highlight=False)
    return 0


def _table(rows: Sequence[Row], run: Sequence[Fleet]) -> list[list[Any]]:
    made: list[list[Any]] = []
    for row in rows:
        head = ["limit", row.cascade.name, row.load.slots, row.case]
        made.append([*head, "prompts/s", round(row.load.prompts_per_s, 3)])
        made += [[*head, f"share of {name}", round(share, 5)] for name, share in row.taken.items()]
    for each in run:
        head = ["fleet", each.cascade, each.gpus, each.policy]
        made += [[*head, name, round(value, 5)] for name, value in each.figures().items()]
    return made


def _sizes(name: str, text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(",") if part)
    except ValueError:
        raise SettingsError(f"{name}: whole numbers with commas, such as 10,100; got {text!r}") from None
    if any(size < 1 for size in sizes):
        raise SettingsError(f"{name}: must be at least 1, got {text}")
    return sizes


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--gpus", default="10,100,1000", help="sizes of fleets for which limits are told")
    made.add_argument("--cascades", default="sdturbo,sdxlltn", help="rows of [cascades] with a published trace")
    made.add_argument("--fleets", default="100,1000", help="sizes of fleets that are simulated; empty: none")
    made.add_argument("--policies", default=POLICIES, help="names with commas")
    made.add_argument("--time", type=float, default=0.35, help="factor on the length of the published traces")
    made.add_argument("--memory-gib", type=float, default=16.0, help="of Redis' machine")
    made.add_argument("--network-gbit", type=float, default=10.0, help="each way, of Redis' machine")
    made.add_argument("--bench", type=Path, default=BENCH, help="table of `make bench BENCH='queue polling'`")
    made.add_argument("--out", type=Path, default=Path("logs/scale"), help="folder")
    return made


if __name__ == "__main__":
    guarded(main)
