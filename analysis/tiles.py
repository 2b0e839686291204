"""The figures at the head of a run's page, under the questions that they answer."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, Final

from analysis.over_time import judgements
from analysis.scores import scores, thresholds
from shared.passages import escalated
from shared.recording import Recording
from shared.summary import control, percent, quality_figure
from shared.words import NOTHING, most, reason

METRICS: Final = {"fid": "FID, lower is better", "accuracy": "Accuracy, higher is better"}


@dataclass(frozen=True, slots=True)
class Tile:
    """A name, a figure, and what is to be said of it."""

    name: str
    figure: str
    remark: str


@dataclass(frozen=True, slots=True)
class Question:
    """What one asks of a run, with the tiles that answer it."""

    text: str
    tiles: tuple[Tile, ...]


def questions(recording: Recording, found: dict[str, Any]) -> tuple[Question, ...]:
    """The four questions in their order. `found`: the run's summary."""
    return (
        Question("Are deadlines met?", _deadlines(found)),
        Question("If not, why?", _reasons(found)),
        Question("What did the planner do?", _planner(recording, found)),
        Question("What are the pictures like?", _pictures(recording, found)),
    )


def escalation(recording: Recording) -> tuple[float, float] | None:
    """Share of the judged light pictures whose prompts went on to heavy: measured, and as the plans in force had
    predicted it; None where no outcome says."""
    found = judgements(recording)
    if not found:
        return None
    return fmean(escalated(outcome) for outcome, _ in found), fmean(plan.heavy_share for _, plan in found)


def _deadlines(found: dict[str, Any]) -> tuple[Tile, ...]:
    answered = found["light"] + found["heavy"]
    upgraded = f"; {found['upgraded']:,} upgraded later" if found["upgraded"] is not None else ""
    return (
        Tile(
            "On time",
            most(1 - found["violation"] if found["offered"] else None),
            f"of all offered, within {_deadline(found)}",
        ),
        Tile("Latency", f"{found['latency_p50_s']:.2f} s", f"median; p99 {found['latency_p99_s']:.2f} s"),
        Tile("Answered", f"{answered:,}", f"{found['light']:,} light, {found['heavy']:,} heavy"),
        Tile("Light kept", f"{found['kept_light']:,}", f"by the keeper, at the deadline{upgraded}"),
    )


def _reasons(found: dict[str, Any]) -> tuple[Tile, ...]:
    late = "answered after the deadline" + (f"; {found['open']:,} still open" if found["open"] else "")
    return (
        Tile("Late", f"{found['late']:,}", late),
        Tile("Refused", f"{found['refused']:,}", "at the door: no stage could make it in time"),
        Tile("Dropped", f"{found['dropped']:,}", "no picture by the deadline"),
        Tile("Failed", f"{found['failed']:,}", _most_often("failed", found) or "drawing went wrong"),
    )


def _planner(recording: Recording, found: dict[str, Any]) -> tuple[Tile, ...]:
    shares = escalation(recording)
    remark = f"of the light pictures; predicted {percent(shares[1])}" if shares else "no light picture was judged"
    solved = f"{found['switches']:,} slot switches; solved in {found['solve_ms_p50']:.1f} ms"
    return (
        Tile("Plans", f"{found['plans']:,}", solved),
        Tile("Escalated", percent(shares[0]) if shares else NOTHING, remark),
        Tile("Mean batch", f"{found['heavy_batch_mean']:.1f}", f"heavy; light {found['light_batch_mean']:.1f}"),
        Tile("GPU time", f"{found['gpu_s_per_prompt']:.2f} s", "per answered prompt"),
    )


def _pictures(recording: Recording, found: dict[str, Any]) -> tuple[Tile, ...]:
    seen, held = scores(recording), thresholds(recording)
    score = f"median; threshold {median(held):.2f}" if held else "median"
    missing = found["pictures_missing"]
    recorded = f"{found['light'] + found['heavy'] - missing:,}" if missing is not None else NOTHING
    return (
        Tile(
            METRICS[found["quality"]["metric"]],
            quality_figure(found["quality"], "value"),
            f"random control: {control(found)}",
        ),
        Tile("Heavy share", percent(found["heavy_share"]), "of the answered prompts"),
        Tile("Light score", f"{median(seen):.2f}" if seen else NOTHING, score if seen else "no picture was scored"),
        Tile("Pictures", recorded, f"recorded; {missing:,} missing" if missing is not None else "none were recorded"),
    )


def _deadline(found: dict[str, Any]) -> str:
    return f"{found['deadline_s']:g} s"


def _most_often(end: str, found: dict[str, Any]) -> str:
    """The reason for which prompts ended so most often."""
    reasons = {key.split(":", 1)[1]: count for key, count in found["why"].items() if key.startswith(f"{end}:")}
    if not reasons:
        return ""
    why = max(reasons, key=lambda name: reasons[name])
    return f"most often: {reason(end, why)[:40]}"
