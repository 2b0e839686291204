"""What policies are compared on: one trace on one fleet, simulated under each of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from planner.drafting import Policy
from planner.policies import POLICIES, make_policy
from planner.simulator import Scenario, fleet, peak_rate, simulate, worded
from shared.catalog import Cascade, load_cascade
from shared.config import Settings
from shared.errors import SettingsError
from shared.recording import Recording
from traces.published import locate
from traces.read import Arrival, TraceError, read_trace

NEEDS_A_FILE: Final = "pinned"
DWELL_S: Final[float] = Settings.model_fields["dwell_s"].default


@dataclass(frozen=True, slots=True)
class Trial:
    """A trace, a cascade and a fleet of its own GPU type; `pinned`: the file that `pinned` reads.

    `label` names the trace, and says so where it stands in for a published one.
    """

    label: str
    arrivals: tuple[Arrival, ...]
    cascade: Cascade
    gpus: int
    deadline_s: float
    seed: int = 0
    solver: str = "exhaustive"
    pinned: Path | None = None
    dwell_s: float = DWELL_S

    def run(self, policy: str, **changes: Any) -> Recording:
        """Simulate the trace under a policy; raises SettingsError for one that is unknown or lacks its file.

        `changes`: fields of the Scenario that differ from its defaults.
        """
        peak = peak_rate(self.arrivals)
        given = {"peak": peak, "pinned": self.pinned, "resident": changes.get("resident", True)}
        made = make_policy(policy, self.cascade, self.deadline_s, self.solver, self.dwell_s, **given)
        return self.run_made(policy, made, **changes)

    def run_made(self, name: str, policy: Policy, **changes: Any) -> Recording:
        """Simulate the trace under a policy that is made already."""
        slots = fleet(self.gpus, self.cascade.gpu)
        scenario = Scenario(self.cascade, slots, policy, self.deadline_s, seed=self.seed)
        run = simulate(self.arrivals, replace(scenario, **changes))
        return replace(run, settings={**run.settings, "policy": name, "trace": self.label})


def make_trial(
    trace: str,
    cascade: str,
    gpus: int,
    deadline_s: float | None = None,
    seed: int = 0,
    solver: str = "exhaustive",
    pinned: Path | None = None,
) -> Trial:
    """A trial by names: a trace's file or published name, a cascade's row. Raises SettingsError."""
    if gpus < 1:
        raise SettingsError(f"gpus: must be at least 1, got {gpus}")
    loaded = load_cascade(cascade)
    if deadline_s is None:
        deadline_s = loaded.deadline_s
    if not 0 < deadline_s < float("inf"):
        raise SettingsError(f"deadline_s: must be positive and finite, got {deadline_s}")
    label, arrivals = read_arrivals(trace)
    return Trial(label, arrivals, loaded, gpus, deadline_s, seed, solver, pinned)


def read_arrivals(trace: str) -> tuple[str, tuple[Arrival, ...]]:
    """The label and the arrivals of a trace, by its file or published name; raises SettingsError."""
    try:
        found = locate(trace)
        return found.label, tuple(worded(read_trace(found.path)))
    except TraceError as wrong:
        raise SettingsError(str(wrong)) from None
    except OSError as wrong:
        raise SettingsError(f"{wrong.filename or trace}: {wrong.strerror}") from None


def check_policies(names: Iterable[str], pinned: Path | None) -> tuple[str, ...]:
    """The names, each once; raises SettingsError for an unknown one, and for `pinned` without a plan."""
    kept = tuple(dict.fromkeys(names))
    for name in kept:
        if name not in POLICIES:
            raise SettingsError(f"policy: no {name!r}; there are {', '.join(POLICIES)}")
    if NEEDS_A_FILE in kept and pinned is None:
        raise SettingsError(f"policy {NEEDS_A_FILE}: needs the file of its plan, --pinned FILE")
    if not kept:
        raise SettingsError("policy: none named")
    return kept


def all_policies(pinned: Path | None = None) -> tuple[str, ...]:
    """Every policy that can run with what is given."""
    return tuple(name for name in POLICIES if name != NEEDS_A_FILE or pinned is not None)
