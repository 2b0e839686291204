"""Which slot runs which stage: the plan's counts on each GPU type, with the fewest switches from what runs now.

A slot beyond the planned workers is left out and idles; policies staff every slot that helps, so this
is only one that a plan leaves free on purpose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from shared.plans import Plan, Slot
from shared.schema import STAGES, Stage

Assignment = dict[str, Stage]
Counts = tuple[int, int]  # light, heavy


def place(plan: Plan, slots: Sequence[Slot], current: Mapping[str, Stage]) -> Plan:
    """The plan with its assignment filled in, deterministic in its arguments.

    Where the plan says how many workers each stage has on each GPU type, that holds; else any slot will do.
    A stage that the plan still wants, or that has more than one worker, never loses all of them in one
    step: one stays until the next. Where the slots can't give both counts, light comes first.
    """
    able = sorted((slot for slot in slots if slot.stages), key=lambda slot: slot.name)
    running = {slot.name: current[slot.name] for slot in able if current.get(slot.name) in slot.stages}
    chosen: Assignment = {}
    for wanted, group in _groups(plan, able):
        chosen |= _fewest_switches(wanted, group, running)
    for stage in STAGES:
        workers = sorted(name for name, now in running.items() if now == stage)
        gone = not any(chosen.get(name) == stage for name in workers)
        if workers and gone and (plan.workers(stage) or len(workers) > 1):
            chosen[workers[0]] = stage
    return replace(plan, assignment=dict(sorted(chosen.items())))


def _groups(plan: Plan, able: list[Slot]) -> Iterator[tuple[Counts, list[Slot]]]:
    """The slots among which workers are alike to the plan, and how many of each stage it wants there."""
    if not (plan.light_on or plan.heavy_on):
        yield (plan.light_workers, plan.heavy_workers), able
        return
    for gpu in sorted({slot.gpu for slot in able}):
        yield (plan.light_on.get(gpu, 0), plan.heavy_on.get(gpu, 0)), [slot for slot in able if slot.gpu == gpu]


def _fewest_switches(wanted: Counts, able: list[Slot], running: Mapping[str, Stage]) -> Assignment:
    """Try each number of two-way slots that light could take; the best fills most and moves least."""
    light, heavy = wanted
    two_way = [slot.name for slot in able if len(set(slot.stages)) > 1]
    only = {stage: [slot.name for slot in able if set(slot.stages) == {stage}] for stage in STAGES}
    here = Counter(running.get(name) for name in two_way)
    there = {stage: sum(name in running for name in only[stage]) for stage in STAGES}

    def worth(taken: int) -> tuple[int, int]:
        filled = min(heavy, len(two_way) - taken + len(only["heavy"]))
        pushed_out = max(0, taken - here["light"] - here[None])
        stay = min(taken, here["light"]) + min(light - taken, there["light"])
        return filled, stay + min(heavy, here["heavy"] - pushed_out + there["heavy"])

    least = min(max(0, light - len(only["light"])), len(two_way))
    taken = max(range(least, min(light, len(two_way)) + 1), key=worth)
    to_light = _stayers_first(two_way, "light", running)[:taken]
    to_light += _stayers_first(only["light"], "light", running)[: light - taken]
    lit = set(to_light)
    rest = [name for name in two_way if name not in lit]
    to_heavy = _stayers_first(rest + only["heavy"], "heavy", running)[:heavy]
    return dict.fromkeys(to_light, STAGES[0]) | dict.fromkeys(to_heavy, STAGES[1])


def _stayers_first(names: list[str], stage: Stage, running: Mapping[str, Stage]) -> list[str]:
    """Those that run the stage already, then the idle ones, then those that would have to leave another."""
    return sorted(names, key=lambda name: (running.get(name) != stage, name in running, name))
