"""`proteus`: accuracy scaling after Proteus (ASPLOS 2024): as many prompts on the better model as the slots carry.

Which ones is left to chance: no picture is looked at, and a prompt drawn heavy has no light picture first. So
the light stage draws only the rest, and a prompt has the whole deadline for its one stage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from planner.demand import forecast
from planner.drafting import NO_LOSS, Policy, Setup, all_light, as_seen, draft, no_plan
from planner.fleet import WAIT_SHARE, Choice, Staff, choices_of, worthwhile
from planner.milp import Case, Solution, case_of
from planner.program import SLACK
from shared.plans import Plan, View

NAME: Final = "proteus"
Rates = tuple[float, ...]  # prompts/s of one worker on each pool, headroom taken off


def proteus(setup: Setup) -> Policy:
    """The largest share s with n_light * T_light >= (1 - s) * D and n_heavy * T_heavy >= s * D; spare slots help.

    Exact for one GPU type. With several, slots turn heavy in the order of how much better they are at it,
    which is best but for one slot. The plan says `heavy_direct` = s and `lot`: lots are drawn at the door.
    """

    def policy(view: View) -> Plan:
        cascade = as_seen(setup.cascade, view)
        case = case_of(cascade, view.slots, forecast(view.offered).planned, setup.deadline_s, NO_LOSS)
        heavies = worthwhile(choices_of(cascade, "heavy", case.pools, WAIT_SHARE), case.deadline_s)
        light = _fastest(case.light, tuple(pool.light_slots for pool in case.pools))
        heavy = _fastest(heavies, tuple(pool.heavy_slots for pool in case.pools))
        best = _best(case, _rates(case, light), _rates(case, heavy)) if light else None
        if light is None or best is None:
            return replace(draft(NAME, view, cascade, case, all_light(case, cascade), no_plan(case)), lot=True)
        share, staff = best
        why = f"the slots carry a heavy share of {share:.2f}, chosen by lot"
        solution = Solution(*staff, light, heavy, 0.0, 0.0)
        return replace(draft(NAME, view, cascade, case, solution, why), heavy_direct=share, lot=True)

    return policy


def _fastest(choices: tuple[Choice, ...], slots: tuple[int, ...]) -> Choice | None:
    return max(choices, key=lambda choice: choice.drawn_by(slots), default=None)


def _rates(case: Case, choice: Choice | None) -> Rates:
    if choice is None:
        return (0.0,) * len(case.pools)
    return tuple(case.headroom * choice.batch / seconds for seconds in choice.seconds)


def _best(case: Case, light: Rates, heavy: Rates) -> tuple[float, Staff] | None:
    """The largest heavy share and who carries it, its busier stage as idle as can be; None where none is carried."""
    best: tuple[tuple[float, float], Staff] | None = None
    for staff in _staffs(case, light, heavy):
        light_drawn, heavy_drawn = _drawn(staff.light, light), _drawn(staff.heavy, heavy)
        share = min(1.0, heavy_drawn / case.demand)
        rest = (1 - share) * case.demand
        if light_drawn >= rest * (1 - SLACK):
            busy = max(share * case.demand / max(heavy_drawn, SLACK), rest / max(light_drawn, SLACK))
            best = max(best, ((share, -busy), staff)) if best else ((share, -busy), staff)
    return (best[0][0], best[1]) if best else None


def _staffs(case: Case, light: Rates, heavy: Rates) -> Iterator[Staff]:
    """All who can on light, then one after the other on heavy; one stays on light, for whom heavy fails."""
    on_light = [pool.light_slots for pool in case.pools]
    on_heavy = [pool.slots - pool.light_slots for pool in case.pools]
    yield Staff(tuple(on_light), tuple(on_heavy))
    better_at_heavy = sorted(range(len(on_light)), key=lambda place: -heavy[place] / max(light[place], SLACK))
    for place in better_at_heavy:
        pool = case.pools[place]
        for _ in range(pool.light_slots + pool.heavy_slots - pool.slots):
            if sum(on_light) <= 1:
                return
            on_light[place] -= 1
            on_heavy[place] += 1
            yield Staff(tuple(on_light), tuple(on_heavy))


def _drawn(workers: tuple[int, ...], rates: Rates) -> float:
    return sum(count * rate for count, rate in zip(workers, rates, strict=True))
