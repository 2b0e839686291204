"""A run cut into windows: violations, quality, escalation and batch sizes over time."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from analysis.figures import Points
from shared.catalog import Cascade
from shared.errors import SettingsError
from shared.ledger import WINDOW_S, Tally, quality
from shared.messages import Outcome, Visit
from shared.passages import escalated, judged
from shared.plans import Plan
from shared.recording import Recording
from shared.schema import Stage
from shared.summary import selector


def violations(recording: Recording) -> Points:
    """Share of the prompts offered in each window that were late, dropped, failed or refused, by its begin.

    Outcomes count in the window they were published in. Refusals have no outcome and are taken from the ticks. A
    run that kept no outcomes gives no points.
    """
    offered, missed = Counter[int](), Counter[int]()
    for outcome in recording.outcomes:
        window = int(outcome.published // WINDOW_S)
        offered[window] += 1
        missed[window] += not outcome.on_time and outcome.end != "cancelled"
    for window, refused in _refusals(recording) if recording.outcomes else ():
        offered[window] += refused
        missed[window] += refused
    return [(_seconds(recording, window), missed[window] / offered[window]) for window in sorted(offered)]


def qualities(recording: Recording, cascade: Cascade) -> Points:
    """Quality in each window that has an answer on time, by its begin; empty where the cascade has no curve."""
    try:
        curve, lot = cascade.curve(selector(recording.plans)), cascade.curve("lot")
    except SettingsError:
        return []
    points = []
    for number, window in sorted(recording.tally.windows.items()):
        alone = Tally()
        alone.windows[number] = window
        points.append((_seconds(recording, number), quality(alone, curve, lot).value))
    return points


def escalations(recording: Recording) -> Points:
    """Share of the prompts drawn light in each window that went on to heavy, by its begin."""
    seen, gone = Counter[int](), Counter[int]()
    for outcome in filter(judged, recording.outcomes):
        window = int((drawn_light(outcome) - recording.start) // WINDOW_S)
        seen[window] += 1
        gone[window] += escalated(outcome)
    return [(max(0.0, window * WINDOW_S), gone[window] / seen[window]) for window in sorted(seen)]


def judgements(recording: Recording) -> list[tuple[Outcome, Plan]]:
    """Each prompt whose light picture was held against a threshold, with the plan in force then."""
    made = [plan.made for plan in recording.plans]
    asked = [outcome for outcome in recording.outcomes if made and judged(outcome)]
    places = (bisect_right(made, drawn_light(outcome)) for outcome in asked)
    return [(outcome, recording.plans[max(0, place - 1)]) for outcome, place in zip(asked, places, strict=True)]


def drawn_light(outcome: Outcome) -> float:
    """When its light picture was drawn."""
    return next(visit.finished for visit in outcome.visits if visit.stage == "light")


def mean_batches(recording: Recording, stage: Stage) -> Points:
    """Mean size of the batches that a stage began in each window, by its begin."""
    prompts, batches = Counter[int](), Counter[int]()
    begun = {(visit.worker, visit.started, visit.batch) for visit in _visits(recording, stage)}
    for _, started, batch in begun:
        window = int((started - recording.start) // WINDOW_S)
        batches[window] += 1
        prompts[window] += batch
    return [(max(0.0, window * WINDOW_S), prompts[window] / batches[window]) for window in sorted(batches)]


def _visits(recording: Recording, stage: Stage) -> Iterator[Visit]:
    return (visit for outcome in recording.outcomes for visit in outcome.visits if visit.stage == stage)


def steps(points: Points) -> Points:
    """The points with one more at the end, so that a step drawn through them shows the last window whole."""
    return [*points, *((time + WINDOW_S, value) for time, value in points[-1:])]


def _refusals(recording: Recording) -> Iterator[tuple[int, int]]:
    for before, after in pairwise(recording.ticks):
        if after.refused > before.refused:
            yield int(before.time_s // WINDOW_S), after.refused - before.refused


def _seconds(recording: Recording, window: int) -> float:
    """The begin of a window in seconds since the start: before 0 for the first, which began before the run did."""
    return max(0.0, window * WINDOW_S - recording.start)
