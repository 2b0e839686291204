"""The figures that every run is judged by, computed in one pass over its recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, Final

from rich.table import Table

from shared.catalog import Cascade
from shared.errors import SettingsError
from shared.ledger import Ledger, Quality, percentile, quality
from shared.pace import paces
from shared.plans import Plan
from shared.recording import Recording
from shared.schema import STAGES, Stage

UNKNOWN: Final = "not measured"
METRIC_PARTS: Final = {"": "value", "_whole": "whole", "_kept_by_lot": "kept_by_lot"}


def summarise(recording: Recording, cascade: Cascade, pictures_missing: int | None = None) -> dict[str, Any]:
    """Everything in `summary.json`: counts of prompts, shares in [0, 1], latencies in seconds.

    `gpu_s_per_prompt` divides all seconds of a slot, wasted ones included, by the answered prompts: a system
    that sheds its load shall not look cheap. `pictures_missing`: answers without a picture, where somebody
    looked. The quality figures are None where the cascade has no curve.
    """
    ledger = recording.tally.ledger(recording.offered, recording.refused, recording.wasted_s)
    answered = ledger.ends["light"] + ledger.ends["heavy"]
    found = _quality(recording, cascade)
    return {
        "cascade": recording.cascade,
        "policy": recording.plans[-1].policy if recording.plans else recording.settings.get("policy", ""),
        "deadline_s": recording.deadline_s,
        "scores": cascade.scores_from,
        "seconds": recording.end - recording.start,
        "offered": recording.offered,
        "refused": recording.refused,
        "published": recording.published,
        **ledger.ends,
        "open": ledger.open,
        "on_time": ledger.on_time,
        "late": ledger.late,
        "answered_twice": len(ledger.twice),
        "violation": ledger.violation,
        "heavy_share": ledger.heavy_share,
        "kept_light": ledger.why.get("light:deadline", 0),
        "no_time": ledger.why.get("light:no_time", 0),
        "upgraded": recording.upgraded,
        "pictures_missing": pictures_missing,
        "why": ledger.why,
        **_latencies(ledger),
        "quality": found,
        # By their own names too, for who asks for `fid`.
        **{found["metric"] + part: found[name] for part, name in METRIC_PARTS.items()},
        "gpu_s": ledger.gpu_s,
        "wasted_s": recording.wasted_s,
        "gpu_s_per_prompt": ledger.gpu_s / answered if answered else 0.0,
        **{f"{stage}_batch_mean": recording.tally.batch_mean(stage) for stage in STAGES},
        **_planning(recording.plans),
        "pace": {stage: asdict(found) for stage, found in paces(recording, cascade).items()},
    }


def switches(plans: Sequence[Plan]) -> int:
    """How often a slot was given another stage than the last it had, also after a rest; coming or going is none."""
    last: dict[str, Stage] = {}
    count = 0
    for plan in plans:
        count += sum(stage != last.get(slot, stage) for slot, stage in plan.assignment.items())
        last |= plan.assignment
    return count


def selector(plans: Sequence[Plan]) -> str:
    """Who chose the prompts that were escalated, by most of the plans: lot or discriminator."""
    return "lot" if sum(plan.lot for plan in plans) > len(plans) / 2 else "discriminator"


def _latencies(ledger: Ledger) -> dict[str, float]:
    return {f"latency_p{percent}_s": ledger.latency_s(percent) for percent in (50, 99)}


def _planning(plans: Sequence[Plan]) -> dict[str, float]:
    # A pinned plan was never solved, and a zero would flatter the solver.
    solved = sorted(plan.solve_ms for plan in plans if plan.solve_ms > 0)
    return {
        "plans": len(plans),
        "switches": switches(plans),
        "solve_ms_p50": percentile(solved, 50),
        "solve_ms_p99": percentile(solved, 99),
    }


def _quality(recording: Recording, cascade: Cascade) -> dict[str, Any]:
    chosen = selector(recording.plans)
    try:
        return asdict(quality(recording.tally, cascade.curve(chosen), cascade.curve("lot")))
    except SettingsError:
        unknown = dict.fromkeys(item.name for item in fields(Quality))
        return {**unknown, "metric": cascade.metric, "selector": chosen}


def table(summary: dict[str, Any]) -> Table:
    """The summary for a terminal."""
    made = Table(title=f"{summary['cascade']} · {summary['policy']} · {summary['seconds']:.0f} s", show_header=False)
    made.add_column(style="dim")
    made.add_column(justify="right")
    made.add_column(style="dim")
    for label, value, remark in _lines(summary):
        made.add_row(label, value, remark)
    return made


def _lines(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    answered = found["light"] + found["heavy"]
    missed = ", ".join(f"{found[end]:,} {end}" for end in ("dropped", "failed", "cancelled", "open") if found[end])
    return [
        ("offered", f"{found['offered']:,}", f"{found['refused']:,} refused, {found['published']:,} published"),
        ("answered", f"{answered:,}", f"{found['light']:,} light, {found['heavy']:,} heavy"),
        ("unanswered", f"{found['offered'] - found['refused'] - answered:,}", missed),
        ("answered twice", f"{found['answered_twice']:,}", "must be 0"),
        ("violation", percent(found["violation"]), f"{found['late']:,} late, of all offered"),
        ("kept light", f"{found['kept_light']:,}", "by the keeper, at the deadline"),
        ("heavy share", percent(found["heavy_share"]), "of the answered"),
        ("latency p50", f"{found['latency_p50_s']:.2f} s", ""),
        ("latency p99", f"{found['latency_p99_s']:.2f} s", f"deadline {found['deadline_s']:g} s"),
        (f"quality ({found['quality']['metric']})", quality_figure(found["quality"], "value"), control(found)),
        ("GPU seconds", f"{found['gpu_s_per_prompt']:.3f} s", "per answered prompt"),
        ("mean batch", f"{found['light_batch_mean']:.1f} / {found['heavy_batch_mean']:.1f}", "light / heavy"),
        ("plans", f"{found['plans']:,}", f"{found['switches']:,} switches of a slot"),
        ("solve p50 / p99", f"{found['solve_ms_p50']:.1f} / {found['solve_ms_p99']:.1f} ms", ""),
    ]


def percent(share: float) -> str:
    """A share in words, such as `0.2 %`; a small one is never shown as nothing."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:.1f} %" if share else "0 %"


def quality_figure(found: dict[str, Any], name: str) -> str:
    """A quality figure; or the words that nobody measured it."""
    if found[name] is None:
        return UNKNOWN
    return metric_figure(found["metric"], found[name])


def metric_figure(metric: str, value: float) -> str:
    """A value of a metric in the digits it deserves."""
    return f"{value:.2f}" if metric == "fid" else f"{value:.3f}"


def control(found: dict[str, Any]) -> str:
    """The random control beside the quality, with the word `assumed` where no one measured it."""
    if found["quality"]["control"] is None:
        return "no curve measured"
    assumed = " (assumed)" if found["quality"]["control_assumed"] else ""
    return f"{quality_figure(found['quality'], 'control')} by lot{assumed}"
