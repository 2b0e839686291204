"""The accounts after a fault: nothing lost, nothing answered twice, and what else the fault's row promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Final

from deploy.chaos.arena import Arena
from deploy.chaos.report import Played
from deploy.chaos.table import Fault
from deploy.chaos.witness import Size
from shared.ledger import account, overlaps
from shared.messages import Outcome

ROOMY: Final = 5  # leases: in a deadline so long a prompt can be drawn twice
LATE_S: Final = 0.5  # a deadline that passed by less is the machine's


def judged(name: str, fault: Fault, arena: Arena, seconds: float) -> Played:
    """The accounts of a run that has been settled, and what should hold and does not."""
    outcomes, offering = arena.witness.outcomes, arena.offering
    ledger = account(outcomes, len(offering.said), offering.refused)
    answered = {outcome.id for outcome in outcomes}
    played = Played(
        name=name,
        what=fault.what,
        seconds=seconds,
        faults=arena.faults,
        offered=len(offering.said),
        refused=offering.refused,
        lost=len(offering.accepted - answered),
        doubled=len(ledger.twice),
        late=ledger.late,
        dropped=ledger.ends["dropped"],
        failed=ledger.ends["failed"],
        violation=ledger.violation,
        recoveries_s=tuple(arena.recoveries_s),
    )
    return replace(played, broken=tuple(_broken(fault, arena, played)))


def _broken(fault: Fault, arena: Arena, played: Played) -> Iterator[str]:
    """What must hold and does not, in words."""
    outcomes = arena.witness.outcomes
    yield from arena.broken
    if played.lost:
        yield f"{played.lost} lost: {sorted(arena.offering.accepted - {each.id for each in outcomes})[:5]}"
    if played.doubled:
        yield f"{played.doubled} answered twice"
    if not played.faults:
        yield "no fault was injected"
    if played.violation > fault.violation:
        yield f"violation {played.violation:.2%} is more than {fault.violation:.0%}"
    if played.recovery_s(99) > fault.recovery_s:
        yield f"recovery took {played.recovery_s(99):.2f} s, more than {fault.recovery_s:g} s"
    if found := overlaps(outcomes):
        yield f"{len(found)} batches overlap on their slot: {found[0]}"
    yield from _fenced(arena, outcomes)
    if fault.spoils:
        yield from _spoilt(arena)
    plans, _ = arena.running.observer.plans("0", 10_000)
    if any(before.version >= after.version for before, after in pairwise(plans)):
        yield "an older plan took the place of a newer one"
    yield from _punctual(fault, arena, played)
    if fault.bounded:
        yield from _grown(fault, arena)


def _punctual(fault: Fault, arena: Arena, played: Played) -> Iterator[str]:
    outcomes = arena.witness.outcomes
    late = [each for each in outcomes if each.finished > each.deadline + LATE_S and each.deadline > each.published]
    if fault.keeps_deadlines and late:
        yield f"{len(late)} ended after their deadline"
    if fault.only_refusals and played.late:
        yield f"{played.late} late answers"
    if fault.only_refusals and (lost := _lost_leases(arena)):
        yield f"{lost} leases ran out"


def _fenced(arena: Arena, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A fenced-out worker settles nothing more, and what it held is drawn by another worker of its stage.

    But not where the deadline leaves no time for that: then a kept light picture is the answer, and one that has
    none may be dropped, which counts as a violation. Of 5 s, a lease of 2 s, a new plan and the heavy batch that the
    next light worker has yet to finish leave none.
    """
    deadline_s = arena.running.settings.deadline_s
    roomy = deadline_s is not None and deadline_s >= ROOMY * arena.running.settings.lease_s
    holders = {prompt_id: name for name, ids in arena.fenced.items() for prompt_id in ids}
    for outcome in outcomes:
        holder = holders.get(outcome.id)
        if holder is None:
            continue
        if any(visit.worker == holder for visit in outcome.visits):
            yield f"{outcome.id} was settled by {holder}, which had been fenced out"
        elif not roomy and outcome.why == "deadline":
            continue
        elif not any(visit.stage == holder.split("-")[-2] for visit in outcome.visits):
            yield f"{outcome.id} was not drawn elsewhere: {outcome.end} ({outcome.why})"


def _spoilt(arena: Arena) -> Iterator[str]:
    """A prompt that spoils its model fails alone, and the reason names what it did."""
    spoilt = arena.offering.spoilt
    for outcome in arena.witness.outcomes:
        asked = spoilt.get(outcome.id)
        if asked is None and outcome.end == "failed":
            yield f"{outcome.id} failed beside another: {outcome.why}"
        elif asked == "nan" and outcome.route == "heavy":
            continue  # only the light stage scores
        elif asked is not None and (outcome.end, outcome.why) != ("failed", "hang" if asked == "hang" else "error"):
            yield f"{outcome.id} was to {asked}, and ended {outcome.end} ({outcome.why})"


def _lost_leases(arena: Arena) -> int:
    folder = arena.running.settings.log_dir
    assert folder is not None
    return sum(path.read_text(errors="replace").count("the lease had run out") for path in folder.glob("worker-*.log"))


def _grown(fault: Fault, arena: Arena) -> Iterator[str]:
    """What is larger in the last quarter of the run than in the second, by more than a tenth and a few."""
    sizes = arena.witness.sizes
    quarter = max(1, len(sizes) // 4)
    early, late = sizes[quarter : 2 * quarter] or sizes[:1], sizes[-quarter:]
    measures: list[tuple[str, float, Callable[[Size], float]]] = [
        ("consumers", 2 * arena.running.settings.slots, lambda size: size.consumers),
        ("lasting keys", 8.0, lambda size: size.keys),
    ]
    lasting = early[-1].processes_mib.keys() & late[-1].processes_mib.keys()
    measures += [(f"MiB in process {pid}", 8.0, partial(_process_mib, pid)) for pid in lasting]
    if fault.memory_mib:
        most = max(size.redis_mib for size in sizes)
        if most > 1.05 * fault.memory_mib:
            yield f"Redis held {most:.0f} MiB, its limit is {fault.memory_mib}"
    else:
        measures.append(("MiB in Redis", 8.0, lambda size: size.redis_mib))
    for words, least, measure in measures:
        before, after = max(map(measure, early)), min(map(measure, late))
        if after > 1.1 * before + least:
            yield f"{words} grew from {before:.0f} to {after:.0f}"


def _process_mib(pid: str, size: Size) -> float:
    return size.processes_mib.get(pid, 0.0)
