"""What the history knows at one moment, as plain data: what a dashboard draws, and nothing it must compute.

Times are seconds of the server's clock. A figure that nobody could know is None, and a chart shows a gap: a gateway
that has just started knows of the hour before it only what `done` and `plans` still hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shared.figures import Figures
from shared.letters import Letter
from shared.lookout import Mark
from shared.messages import End, Outcome
from shared.plans import Plan
from shared.schema import Stage


@dataclass(frozen=True, slots=True)
class StageMoment:
    """One stage at one moment.

    `wanted`: workers the plan asks for; `ready`: those that draw; `loading`: those there, but not ready yet.
    `batch_planned` beside `batch_achieved`, the mean over the last seconds (`history.SMOOTH_S`).
    """

    waiting: int | None = None
    running: int | None = None
    wanted: int | None = None
    ready: int | None = None
    loading: int | None = None
    batch_planned: int | None = None
    batch_achieved: float | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """One look at the deployment, about one a second; rates are per second since the look before.

    `offered_per_s`: demand as measured, refused prompts included; `planned_for_per_s`: demand the plan was made for.
    `ends_per_s`: prompts per second by how they ended; `late_per_s`: of these, pictures after their deadline.
    `violations_per_s`: late, dropped, failed and refused. `p50_s`, `p99_s`: latency of the answers, `escalation`:
    measured share of the prompts drawn light that went on to heavy, both over the last seconds
    (`history.SMOOTH_S`); `escalation_planned`: the share that the plan predicted.
    """

    time_s: float
    offered_per_s: float | None
    refused_per_s: float | None
    ends_per_s: Mapping[End, float]
    late_per_s: float
    violations_per_s: float
    p50_s: float | None
    p99_s: float | None
    planned_for_per_s: float | None
    threshold: float | None
    escalation: float | None
    escalation_planned: float | None
    light: StageMoment
    heavy: StageMoment

    def stage(self, stage: Stage) -> StageMoment:
        """The moment of one stage."""
        return self.light if stage == "light" else self.heavy


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """What one worker process says of itself; `draws`: it is ready and the plan gives its slot to its stage."""

    consumer: str
    stage: Stage
    model: str
    ready: bool
    draws: bool
    error: str


@dataclass(frozen=True, slots=True)
class SlotRow:
    """A slot of the fleet: what the plan wants of it (None: rest) and which workers are there, or are being started.

    `programs`: what the node's agent last said of the slot's programs, stage -> supervisor's state.
    """

    node: str
    number: int
    gpu: str
    planned: Stage | None
    workers: tuple[WorkerRow, ...]
    programs: Mapping[Stage, str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of it, the parts of `moments`, `marks` and `scores` of the last `window_s` seconds, oldest first.

    `time_s`: the newest look, 0 before the first; `trouble`: why there has been none since, else "".
    `plan`: the plan in force. `latest`: the newest outcomes, the newest first. `open`: prompts on their way.
    `dead`: how many dead letters there are; `letters`: the newest of them, the newest first.
    """

    window_s: float
    time_s: float
    trouble: str
    tiles: Figures
    moments: tuple[Moment, ...]
    marks: tuple[Mark, ...]
    plan: Plan | None
    fleet: tuple[SlotRow, ...]
    scores: tuple[float, ...]
    latest: tuple[Outcome, ...]
    open: int
    dead: int
    letters: tuple[Letter, ...]
