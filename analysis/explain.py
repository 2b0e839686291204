"""Why a run went as it did: when the plan changed and why, and who stayed light though a heavy picture was due."""

from __future__ import annotations

from collections import Counter

from rich.table import Table

from planner.explain import changes
from planner.explain import plans_table as table_of_plans
from shared.ledger import KEPT, percentile
from shared.messages import Outcome
from shared.recording import Recording


def kept(recording: Recording) -> list[Outcome]:
    """Prompts answered light for want of time, in the order of publication."""
    late = [outcome for outcome in recording.outcomes if outcome.end == "light" and outcome.why in KEPT]
    return sorted(late, key=lambda outcome: outcome.published)


def plans_table(recording: Recording, most: int = 20) -> Table:
    """When workers or batches changed, to what, and what the planner said; the first `most` times."""
    found = changes(recording.plans)
    title = f"{len(recording.plans)} plans, {len(found)} of them with other workers or batches"
    return table_of_plans(found[:most], title, lambda plan: f"{plan.made - recording.start:.0f}")


def kept_table(recording: Recording) -> Table:
    """How answers came about: for each end and reason, how many, their median score and how long they took."""
    counts = Counter((outcome.end, outcome.why) for outcome in recording.outcomes)
    made = Table(title="How prompts ended", caption="light:deadline and light:no_time were kept light for want of time")
    for head in ("end", "why"):
        made.add_column(head)
    for head in ("prompts", "median score", "median latency"):
        made.add_column(head, justify="right")
    for (end, why), count in counts.most_common():
        those = [outcome for outcome in recording.outcomes if (outcome.end, outcome.why) == (end, why)]
        scores = sorted(outcome.score for outcome in those if outcome.score is not None)
        score = f"{percentile(scores, 50):.3f}" if scores else "none"
        latency_s = percentile(sorted(outcome.latency_s for outcome in those), 50)
        made.add_row(end, why, f"{count:,}", score, f"{latency_s:.2f} s")
    return made


def late_table(recording: Recording, most: int = 10) -> Table:
    """The prompts kept light for want of time: their score, and how long they had waited; the first `most`."""
    found = kept(recording)
    made = Table(title=f"{len(found):,} prompts kept light for want of time")
    for head in ("second", "score", "seconds after the light picture", "why"):
        made.add_column(head, justify="right")
    for outcome in found[:most]:
        waited_s = outcome.finished - max((visit.finished for visit in outcome.visits), default=outcome.published)
        score = "none" if outcome.score is None else f"{outcome.score:.3f}"
        made.add_row(f"{outcome.published - recording.start:.1f}", score, f"{waited_s:.2f}", outcome.why)
    return made
