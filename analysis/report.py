"""The page of a run: one self-contained file, without scripts and without anything fetched.

python -m analysis.report logs/<run>     rebuilds summary.json and report.html, prints the table
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from rich.console import Console

from analysis.figures import NARROW_IN, WIDE_IN
from analysis.gallery import gallery
from analysis.recording import load, missing_pictures, write_json
from analysis.scores import draw_scores, scores
from analysis.tiles import questions
from analysis.timelines import draw
from shared import summary as figures_of
from shared.catalog import Cascade, load_cascade
from shared.errors import CascadeError
from shared.files import write_text
from shared.messages import ENDS
from shared.pace import slower
from shared.recording import Recording
from shared.words import reason, told

TEMPLATES: Final = Path(__file__).parent / "templates"
LETTERS: Final = 50  # dead letters on a page, the newest
_CALENDAR: Final = 1e9  # a start beyond it is a date; before it, a simulator's clock


def write_summary(recording: Recording, cascade: Cascade, folder: Path) -> dict[str, Any]:
    """Write `summary.json` and return its content; raises OSError that names the file."""
    found = figures_of.summarise(recording, cascade, missing_pictures(recording))
    write_json(folder / "summary.json", found)
    return found


def write_report(recording: Recording, cascade: Cascade, folder: Path) -> Path:
    """Write `report.html` and return its path; raises OSError that names the file."""
    path = folder / "report.html"
    write_text(path, render(recording, cascade, folder.name))
    return path


def render(recording: Recording, cascade: Cascade, name: str) -> str:
    """The page as text. `name` is the run's."""
    found = figures_of.summarise(recording, cascade, missing_pictures(recording))
    return (
        _environment()
        .get_template("report.html")
        .render(
            name=name,
            began=began(recording),
            cascade=cascade,
            recording=recording,
            found=found,
            headline=headline(found),
            slower=slower(found),
            questions=questions(recording, found),
            widths=[("wide", WIDE_IN), ("narrow", NARROW_IN)],
            over_time=lambda width: Markup(draw(recording, cascade, width)),
            scores=(lambda width: Markup(draw_scores(recording, width))) if scores(recording) else None,
            failures=recording.failures[: -LETTERS - 1 : -1],
            groups=gallery(recording),
            ends=ends(found),
        )
    )


def headline(found: dict[str, Any]) -> str:
    """The run in one sentence."""
    if not found["offered"]:
        return "No prompt was offered."
    lost = [(found[end], end) for end in ("refused", "dropped", "failed", "cancelled")]
    lost += [(found["open"], "still open"), (found["answered_twice"], "answered twice")]
    parts = [f"{count:,} {how}" for count, how in lost if count]
    if not parts:
        parts = ["all answered once"]
    elif found["light"] + found["heavy"]:
        parts.insert(0, f"{found['light'] + found['heavy']:,} answered")
    missed = figures_of.percent(found["violation"]).replace(" ", "\u00a0")
    return f"{found['offered']:,} prompts offered, {', '.join(parts)}, {missed} late or unanswered."


def began(recording: Recording) -> str:
    """When the run began, in UTC; empty for a simulated one."""
    if recording.start < _CALENDAR:
        return ""
    return f"{datetime.fromtimestamp(recording.start, UTC):%d %B %Y, %H:%M} UTC"


def ends(found: dict[str, Any]) -> list[tuple[str, str, int]]:
    """End, reason and count of every way in which prompts ended, in the order of the ends."""
    rows = [(*key.split(":", 1), count) for key, count in found["why"].items()]
    ordered = sorted(rows, key=lambda row: (ENDS.index(row[0]), -row[2]))
    extra = [(name, "", found[name]) for name in ("refused", "open") if found[name]]
    return [(end, reason(end, why) if why else "", count) for end, why, count in [*ordered, *extra]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Rebuild the summary and the page of a run; 2 where the folder holds none or cannot be written."""
    parser = argparse.ArgumentParser(description="Rebuild summary.json and report.html of a run.")
    parser.add_argument("folder", type=Path, help="the run's folder, such as logs/demo")
    folder: Path = parser.parse_args(arguments).folder
    try:
        recording = load(folder)
        cascade = load_cascade(recording.cascade)
        found = write_summary(recording, cascade, folder)
        page = write_report(recording, cascade, folder.resolve())
    except (CascadeError, OSError) as wrong:
        sys.stderr.write(f"{wrong}\n")
        return 2
    console = Console()
    console.print(figures_of.table(found))
    console.print(f"{page}", soft_wrap=True, highlight=False)
    return 0


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"told": lambda outcome: told(outcome.end, outcome.why), "percent": figures_of.percent}
    return made


if __name__ == "__main__":
    sys.exit(main())
