"""Which slot runs which stage: the plan's counts, with the fewest switches from what runs now.

A slot beyond the planned workers is left out and idles; policies staff every slot that helps, so this
is only one that a plan leaves free on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from shared.plans import Plan, Slot
from shared.schema import STAGES, Stage

Assignment = dict[str, Stage]


def place(plan: Plan, slots: Sequence[Slot], current: Mapping[str, Stage]) -> Plan:
    """The plan with its assignment filled in, deterministic in its arguments.

    A stage that the plan still wants, or that has more than one worker, never loses all of them in one
    step: one stays until the next. Where the slots can't give both counts, light comes first.
    """
    able = sorted((slot for slot in slots if slot.stages), key=lambda slot: slot.name)
    running = {slot.name: current[slot.name] for slot in able if current.get(slot.name) in slot.stages}
    chosen = _fewest_switches(plan, able, running)
    for stage in STAGES:
        workers = sorted(name for name, now in running.items() if now == stage)
        gone = not any(chosen.get(name) == stage for name in workers)
        if workers and gone and (plan.workers(stage) or len(workers) > 1):
            chosen[workers[0]] = stage
    return replace(plan, assignment=dict(sorted(chosen.items())))


def _fewest_switches(plan: Plan, able: list[Slot], running: Mapping[str, Stage]) -> Assignment:
    """Try each number of two-way slots that light could take; the best fills most and moves least."""
    two_way = [slot.name for slot in able if len(set(slot.stages)) > 1]
    only = {stage: [slot.name for slot in able if set(slot.stages) == {stage}] for stage in STAGES}
    least = min(max(0, plan.light_workers - len(only["light"])), len(two_way))
    most = min(plan.light_workers, len(two_way))
    tried = [_assign(plan, two_way, only, running, taken) for taken in range(least, most + 1)]
    return max(tried, key=lambda chosen: (len(chosen), sum(chosen.get(name) == now for name, now in running.items())))


def _assign(
    plan: Plan, two_way: list[str], only: Mapping[Stage, list[str]], running: Mapping[str, Stage], taken: int
) -> Assignment:
    light = _stayers_first(two_way, "light", running)[:taken]
    light += _stayers_first(only["light"], "light", running)[: plan.light_workers - taken]
    rest = [name for name in two_way if name not in light]
    heavy = _stayers_first(rest + only["heavy"], "heavy", running)[: plan.heavy_workers]
    return dict.fromkeys(light, STAGES[0]) | dict.fromkeys(heavy, STAGES[1])


def _stayers_first(names: list[str], stage: Stage, running: Mapping[str, Stage]) -> list[str]:
    """Those that run the stage already, then the idle ones, then those that would have to leave another."""
    return sorted(names, key=lambda name: (running.get(name) != stage, name in running, name))
