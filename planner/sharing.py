"""Several cascades on the same slots: one program decides how many GPUs of each type each of them gets.

Demand-weighted loss over all of them comes first, then the GPUs used, then switches. Where the slots can't
draw all demand light, every cascade is all light and sheds the same share of its demand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from planner.formulation import build, decode, width
from planner.milp import Case, Solution
from planner.solvers import Solver

Solutions = tuple[Solution, ...]


@dataclass(frozen=True, slots=True)
class Sharing:
    """A solution for each case, in order, and the share of their demand that these carry; the rest is shed.

    None for a case that gets no GPU: no batch of it meets its deadline, or there are fewer light slots than cases,
    of which those of least demand then go without.
    """

    cases: tuple[Case, ...]
    solutions: tuple[Solution | None, ...]
    carried: float

    def gpus(self, place: int) -> dict[str, int]:
        """How many GPUs of each type the case at that place gets."""
        used, pools = self.solutions[place], self.cases[place].pools
        if used is None:
            return {pool.gpu: 0 for pool in pools}
        both = zip(pools, used.light_on, used.heavy_on, strict=True)
        return {pool.gpu: light + heavy for pool, light, heavy in both}


def share(cases: Sequence[Case], solver: Solver) -> Sharing:
    """The best use of slots that all cases share: `case_of` made each of them from the same slots. Never fails."""
    able = [place for place, case in enumerate(cases) if case.light_slots and _in_time(case)]
    carried, found = 1.0, _solve([cases[place] for place in able], solver)
    while found is None:
        carried, found = _shed([cases[place] for place in able], solver)
        if found is None:
            able.remove(min(able, key=lambda place: cases[place].demand))
    served = dict(zip(able, found, strict=True))
    return Sharing(tuple(cases), tuple(map(served.get, range(len(cases)))), carried if served else 0.0)


def _in_time(case: Case) -> bool:
    """Whether any light batch meets the deadline."""
    return any(min(choice.latencies) <= case.deadline_s for choice in case.light)


def _solve(cases: Sequence[Case], solver: Solver, shed: bool = False) -> Solutions | None:
    """One solution for each case, or None where they can't all be carried."""
    if not cases:
        return ()
    values = solver.run(build(*cases, shed=shed))
    if values is None:
        return None
    starts = [sum(map(width, cases[:place])) for place in range(len(cases))]
    return tuple(decode(case, values, start) for case, start in zip(cases, starts, strict=True))


def _shed(cases: Sequence[Case], solver: Solver) -> tuple[float, Solutions | None]:
    """The largest share of all demands that the slots draw light, and who draws it.

    None where not even a worker for each case is to be had.
    """
    # More than this no case could carry even alone: beside a demand without bound a worker would be as nothing.
    most = min([1.0, *(case.headroom * case.slots * _best(case) / case.demand for case in cases)])
    light = [replace(case, demand=case.demand * most, heavy=()) for case in cases]
    found = _solve(light, solver, shed=True)
    if found is None:
        return 0.0, None
    carried = [
        case.headroom * solution.throughput("light") / case.demand for case, solution in zip(cases, found, strict=True)
    ]
    return min([1.0, *carried]), found


def _best(case: Case) -> float:
    """Prompts per second that a light worker draws at most."""
    return max(choice.batch / min(choice.seconds) for choice in case.light)
