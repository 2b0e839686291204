"""A recording on disk, the contents of a run folder: what a recorder writes and a report reads.

run.json        settings, totals
outcomes.csv    one row a prompt
plans.csv       one row a plan
ticks.csv       one row a look at the queues, about one a second
failures.csv    one row a dead letter
pictures/       <id>-light.webp and <id>-heavy.webp (or .png), written while the run goes on
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from shared.errors import SettingsError
from shared.files import write_text
from shared.messages import End, Outcome, Visit
from shared.plans import MAPPINGS, Plan
from shared.recording import Failure, Recording, Tick
from shared.schema import STAGES, Stage
from shared.tables import write_table
from shared.wire import PROMPT_LIMIT

T = TypeVar("T")
Row = Mapping[str, str]

PICTURE_KINDS: Final = {".webp": "image/webp", ".png": "image/png"}
_KINDS: Final[Mapping[object, Callable[[str], Any]]] = {"int": int, "float": float, "str": str}
_UNSAFE: Final = re.compile(r"[^\w.-]")
_OUTCOME: Final = ("id", "prompt", "end", "why", "route", "priority", "seed", "published", "deadline", "finished")
_DERIVED: Final = ("latency_s", "on_time", "score")
_VISIT: Final = ("started", "finished", "batch", "worker")
OUTCOME_COLUMNS: Final = (
    *_OUTCOME,
    *_DERIVED,
    *(f"{stage}_{name}" for stage in STAGES for name in _VISIT),
    "heavy_score",
    "gpu_s",
    "other_visits",
)


def save(recording: Recording, folder: Path) -> None:
    """Write the recording's tables into a folder, which is made; raises OSError that names the file."""
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "outcomes.csv", OUTCOME_COLUMNS, (outcome_row(each) for each in recording.outcomes))
    names = [item.name for item in fields(Plan)]
    write_table(folder / "plans.csv", names, (_plan_row(plan, names) for plan in recording.plans))
    write_table(folder / "ticks.csv", [item.name for item in fields(Tick)], (astuple(tick) for tick in recording.ticks))
    named = [item.name for item in fields(Failure)]
    write_table(folder / "failures.csv", named, (astuple(each) for each in recording.failures))
    # Last, since a folder counts as a run when it has this file.
    write_json(folder / "run.json", _totals(recording))


def load(folder: Path) -> Recording:
    """Read what `save` wrote; raises SettingsError with file, line and reason."""
    totals = _read_json(folder / "run.json")
    pictures, failures = folder / "pictures", folder / "failures.csv"
    try:
        return Recording(
            **totals,
            outcomes=_read_table(folder / "outcomes.csv", _outcome),
            plans=_read_table(folder / "plans.csv", _plan),
            ticks=_read_table(folder / "ticks.csv", _tick),
            pictures=pictures if pictures.is_dir() else None,
            # A run recorded before dead letters were has none.
            failures=_read_table(failures, _failure) if failures.exists() else (),
        )
    except TypeError as wrong:
        raise SettingsError(f"{folder / 'run.json'}: {wrong}") from None


def picture_name(prompt_id: str, stage: Stage) -> str:
    """The name of a picture's file, without its ending: an id is the publisher's and may hold anything."""
    safe = _UNSAFE.sub("_", prompt_id)
    return f"{safe[:100]}-{stage}"


def missing_pictures(recording: Recording) -> int | None:
    """How many answered prompts have no file of the picture that was their answer; None where none were kept."""
    if recording.pictures is None:
        return None
    found = find_pictures(recording.pictures)
    answered = [outcome for outcome in recording.outcomes if outcome.answered]
    return sum(picture_name(outcome.id, cast(Stage, outcome.end)) not in found for outcome in answered)


def find_pictures(folder: Path | None) -> dict[str, Path]:
    """The pictures of a run by `<id>-<stage>`; empty where there is no folder.

    The folder is listed, and no path is made of an id: an id is the publisher's and may hold anything.
    """
    try:
        found = sorted(folder.iterdir()) if folder is not None else []
    except OSError:
        return {}
    return {path.stem: path for path in found if path.suffix in PICTURE_KINDS}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write readable JSON under a temporary name and rename; raises OSError that names the file."""
    write_text(path, json.dumps(value, indent=2, default=str, allow_nan=False) + "\n")


def _totals(recording: Recording) -> dict[str, Any]:
    return {
        "cascade": recording.cascade,
        "deadline_s": recording.deadline_s,
        "offered": recording.offered,
        "refused": recording.refused,
        "published": recording.published,
        "wasted_s": recording.wasted_s,
        "upgraded": recording.upgraded,
        "settings": recording.public_settings,
    }


def outcome_row(outcome: Outcome) -> list[object]:
    """The values of OUTCOME_COLUMNS: the prompt, and its first visit to either stage flattened."""
    shown = [next((visit for visit in outcome.visits if visit.stage == stage), None) for stage in STAGES]
    others = [asdict(visit) for visit in outcome.visits if not any(visit is one for one in shown)]
    row: list[object] = [getattr(outcome, name) for name in _OUTCOME]
    # Longer prompts are malformed entries, and the csv module refuses to read a field without bound.
    row[1] = outcome.prompt[:PROMPT_LIMIT]
    row += [outcome.latency_s, int(outcome.on_time), outcome.score]
    for visit in shown:
        row += [getattr(visit, name, None) for name in _VISIT]
    row.append(shown[1].score if shown[1] else None)
    return [*row, outcome.gpu_s, json.dumps(others) if others else ""]


def _outcome(row: Row) -> Outcome:
    visits = [visit for stage in STAGES if (visit := _visit(row, stage))]
    visits += [Visit(**other) for other in json.loads(row["other_visits"] or "[]")]
    return Outcome(
        id=row["id"],
        prompt=row["prompt"],
        end=cast(End, row["end"]),
        why=row["why"],
        published=float(row["published"]),
        deadline=float(row["deadline"]),
        finished=float(row["finished"]),
        visits=tuple(sorted(visits, key=lambda visit: visit.started)),
        route=row["route"],
        priority=int(row["priority"]),
        seed=int(row["seed"]),
    )


def _visit(row: Row, stage: Stage) -> Visit | None:
    if not row[f"{stage}_batch"]:
        return None
    score = row["score" if stage == "light" else "heavy_score"]
    return Visit(
        stage=stage,
        worker=row[f"{stage}_worker"],
        started=float(row[f"{stage}_started"]),
        finished=float(row[f"{stage}_finished"]),
        batch=int(row[f"{stage}_batch"]),
        score=float(score) if score else None,
    )


def _plan_row(plan: Plan, names: Sequence[str]) -> list[object]:
    mappings = {name: json.dumps(dict(getattr(plan, name)), sort_keys=True) for name in MAPPINGS}
    wire: dict[str, object] = {**plan.wire(), **mappings}
    return [wire[name] for name in names]


def _plan(row: Row) -> Plan:
    # A run recorded before there were several GPU types has no columns for them.
    packed = {
        f"{prefix}:{key}": str(value)
        for name, prefix in MAPPINGS.items()
        for key, value in json.loads(row[name] if name == "assignment" else row.get(name) or "{}").items()
    }
    return Plan.from_wire({name.encode(): value.encode() for name, value in {**row, **packed}.items()})


def _tick(row: Row) -> Tick:
    return Tick(**{item.name: _KINDS[item.type](row[item.name]) for item in fields(Tick)})


def _failure(row: Row) -> Failure:
    return Failure(**{item.name: _KINDS[item.type](row[item.name]) for item in fields(Failure)})


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return cast(dict[str, Any], json.loads(path.read_text(encoding="utf-8")))
    except OSError as wrong:
        raise SettingsError(f"{path.parent} holds no run: {path.name}: {wrong.strerror}") from None
    except ValueError as wrong:
        raise SettingsError(f"{path}: {wrong}") from None


def _read_table(path: Path, parse: Callable[[Row], T]) -> tuple[T, ...]:
    line = 1
    parsed: list[T] = []
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            rows = csv.DictReader(lines)
            for row in rows:
                line = rows.line_num
                parsed.append(parse(row))
    except OSError as wrong:
        raise SettingsError(f"{path}: {wrong.strerror}") from None
    except KeyError as missing:
        raise SettingsError(f"{path}:{line}: no {missing.args[0]}") from None
    except (ValueError, TypeError, AttributeError, csv.Error) as wrong:
        raise SettingsError(f"{path}:{line}: {wrong}") from None
    return tuple(parsed)
