"""Keeps what Redis forgets: turns `done` and `plans` into tables, one row a prompt and one row a plan.

python -m analysis.collect --redis-url redis://head:6379/0 --deployment cascade --out records [--day]

    <out>/<deployment>/outcomes/[day=2026-01-31/]until-<id>.parquet      (.csv where pyarrow is not installed)
    <out>/<deployment>/plans/[day=2026-01-31/]until-<id>.parquet

Each call goes on where the last file ended, by the id in its name: run it more often than `done` forgets
(CASCADE_DONE_KEEP_S, an hour). A folder of parquet files is one table: `pandas.read_parquet(folder)`. With --day
the rows of each day (UTC, by settlement) lie in a folder of their own.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Final

from analysis.recording import OUTCOME_COLUMNS, outcome_row
from shared.broker import Broker
from shared.config import Settings, load, parser
from shared.errors import CascadeError, PlanUnreadable
from shared.files import write_bytes
from shared.lookout import AT_ONCE, START
from shared.messages import Fields, Outcome
from shared.observer import Observer, StreamRow
from shared.plans import MAPPINGS, Plan
from shared.process import guarded
from shared.tables import write_table

PART_ROWS: Final = 100_000  # of one file: what a call holds in memory at most
NEEDED: Final = ("redis_url", "deployment")
ENTRY: Final = "entry"  # the id of a row's entry in its stream
_NAME: Final = re.compile(r"until-(\d+)-(\d+)\.(?:parquet|csv)")
# Kinds of columns that are no text; a seed may have more digits than a column of numbers holds.
_COUNTS: Final = frozenset(("priority", "on_time", "light_batch", "heavy_batch"))
_SECONDS: Final = frozenset(("published", "deadline", "finished", "latency_s", "score", "heavy_score", "gpu_s"))
_MOMENTS: Final = ("_started", "_finished")
_KINDS: Final[Mapping[str, type]] = {"int": int, "float": float, "bool": bool}

Columns = Mapping[str, type]
Values = list[object]


@dataclass(frozen=True, slots=True)
class Table:
    """A stream as a table: its columns with their types, and the values of an entry, which raises where it is none."""

    name: str
    stream: str
    columns: Columns
    values: Callable[[Fields], Values]


def _outcome_kind(column: str) -> type:
    if column in _COUNTS:
        return int
    return float if column in _SECONDS or column.endswith(_MOMENTS) else str


def _outcome_values(raw: Fields) -> Values:
    outcome = Outcome.from_wire(raw)
    row = dict(zip(OUTCOME_COLUMNS, outcome_row(outcome), strict=True)) | {"seed": str(outcome.seed)}
    return [*row.values(), raw.get(b"reason", b"").decode(errors="replace")]


def _plan_values(raw: Fields) -> Values:
    plan = Plan.from_wire(raw)
    values = {item.name: getattr(plan, item.name) for item in fields(Plan)}
    packed = {name: json.dumps(dict(values[name]), sort_keys=True) for name in MAPPINGS}
    return [*(values | packed).values(), raw.get(b"view", b"").decode(errors="replace")]


def tables(observer: Observer) -> tuple[Table, ...]:
    """What is collected."""
    outcomes = {ENTRY: str, **{column: _outcome_kind(column) for column in OUTCOME_COLUMNS}, "reason": str}
    plans = {ENTRY: str, **{item.name: _KINDS.get(str(item.type), str) for item in fields(Plan)}, "view": str}
    return (
        Table("outcomes", observer.keys.done, outcomes, _outcome_values),
        Table("plans", observer.keys.plans, plans, _plan_values),
    )


# -- where the last file ended ------------------------------------------------------------------------------------


def last_collected(folder: Path) -> str:
    """The id of the newest entry in the files of a table, START where there is none."""
    found = [match for path in folder.rglob("until-*") if (match := _NAME.fullmatch(path.name))]
    ids = [(int(match[1]), int(match[2])) for match in found]
    return "-".join(map(str, max(ids))) if ids else START


def _order(entry_id: str) -> tuple[int, ...]:
    return tuple(int(part) for part in entry_id.split("-"))


def _day(row: Sequence[object]) -> str:
    written_s = int(str(row[0]).split("-")[0]) / 1000
    return f"day={datetime.fromtimestamp(written_s, UTC):%Y-%m-%d}"


# -- reading and writing ------------------------------------------------------------------------------------------


def new_rows(observer: Observer, table: Table, after: str) -> Iterator[Values]:
    """Rows after an id, oldest first; what was written by hand and is none is passed over."""
    while True:
        found: Sequence[StreamRow] = observer.rows(table.stream, after, AT_ONCE)
        for entry_id, raw in found:
            after = entry_id.decode()
            try:
                yield [after, *table.values(raw)]
            except (KeyError, ValueError, TypeError, PlanUnreadable):
                continue
        if len(found) < AT_ONCE:
            return


def parquet_writer() -> Callable[[Path, Columns, Sequence[Values]], None] | None:
    """What writes a parquet file; None where pyarrow is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        return None
    types: dict[type, Any] = {
        str: pyarrow.string(),
        int: pyarrow.int64(),
        float: pyarrow.float64(),
        bool: pyarrow.bool_(),
    }

    def write(path: Path, columns: Columns, rows: Sequence[Values]) -> None:
        # Types are stated: a file in which nobody was drawn heavy must fit together with the others.
        schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
        arrays = [
            pyarrow.array(values, item.type) for values, item in zip(zip(*rows, strict=True), schema, strict=True)
        ]
        packed = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_arrays(arrays, schema=schema), packed, compression="zstd")
        write_bytes(path, packed.getvalue())

    return write


def write_csv(path: Path, columns: Columns, rows: Sequence[Values]) -> None:
    """The same as CSV; raises OSError that names the file."""
    write_table(path, list(columns), rows)


def collect(observer: Observer, table: Table, folder: Path, *, by_day: bool, as_csv: bool = False) -> tuple[int, bool]:
    """Write what is new of a table; how many rows, and whether some may be missing, forgotten since the last call."""
    write = None if as_csv else parquet_writer()
    ending = "parquet" if write else "csv"
    after = last_collected(folder)
    oldest = observer.rows(table.stream, START, 1)
    gap = after != START and bool(oldest) and _order(oldest[0][0].decode()) > _order(after)
    count, rows = 0, new_rows(observer, table, after)
    while part := list(islice(rows, PART_ROWS)):
        for day, of_day in groupby(part, _day if by_day else lambda _: ""):
            written = list(of_day)
            place = folder / day
            place.mkdir(parents=True, exist_ok=True)
            (write or write_csv)(place / f"until-{written[-1][0]}.{ending}", table.columns, written)
            count += len(written)
    return count, gap


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else collects into the folder meanwhile, or rows would be there twice; raises CascadeError."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".collecting").open("w") as mark:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CascadeError(f"{folder}: another collector is at work here") from None
        yield


def run(settings: Settings, out: Path, *, by_day: bool, as_csv: bool) -> list[str]:
    """Collect both tables; what became of each, in words."""
    folder = out / settings.deployment
    broker = Broker(settings)
    observer = Observer(broker)
    told = []
    try:
        with alone(folder):
            for table in tables(observer):
                count, gap = collect(observer, table, folder / table.name, by_day=by_day, as_csv=as_csv)
                lost = "; some before them may be missing: Redis had forgotten the last one collected" if gap else ""
                told.append(f"{count:,} new rows in {folder / table.name}{lost}")
    except OSError as wrong:
        raise CascadeError(f"{wrong.filename or folder}: {wrong.strerror}") from None
    finally:
        broker.close()
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = parser(__doc__ or "", NEEDED)
    options.add_argument("--out", type=Path, required=True, help="folder of the tables")
    options.add_argument("--day", action="store_true", help="a folder for each day")
    options.add_argument("--csv", action="store_true", help="CSV, also where pyarrow is installed")
    given: argparse.Namespace = options.parse_args(arguments)
    for line in run(load(given), given.out, by_day=given.day, as_csv=given.csv):
        sys.stdout.write(f"{line}\n")
    return 0


if __name__ == "__main__":
    guarded(main)
