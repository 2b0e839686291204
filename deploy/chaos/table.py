"""The table of faults: name -> what is injected, for how long, and what must hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from deploy.chaos import faults, server_faults
from deploy.chaos.arena import Arena

FREED_S: Final = 2.0 + faults.FREED_S  # with the default lease
FLOW_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the table.

    `seconds`: how long the fault goes on at scale 1. `violation`: at most, as a share of what was offered.
    `recovery_s`: at most, at the 99th percentile. `per_slot_s`: prompts/s offered for each slot. `slots`: of all
    nodes, None for as many as were asked for; `far`: how many of these lie on a second node, whose way to Redis
    leads through a proxy. `direct`: share of the prompts sent straight to heavy. `keeps_deadlines`: nothing may
    end after its deadline. `only_refusals`: nothing that was accepted may be late. `bounded`: nothing may grow.
    `characters`: of each prompt. `memory_mib`: Redis' memory limit, 0 for none. `spoils`: what the share `spoilt`
    of the prompts does to its model.
    """

    what: str
    inject: Callable[[Arena, float], None]
    seconds: float
    violation: float = 1.0
    recovery_s: float = math.inf
    per_slot_s: float = 0.8
    slots: int | None = None
    far: int = 0
    direct: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    keeps_deadlines: bool = False
    only_refusals: bool = False
    bounded: bool = False
    characters: int = 0
    memory_mib: int = 0
    spoils: tuple[str, ...] = ()
    spoilt: float = 0.05


_ROOM: Final = {"deadline_s": 15.0}  # for a prompt to be drawn twice
_TINY: Final = {"cascade": "tiny", "backend": "diffusers", "deadline_s": 8.0}

FAULTS: Final[Mapping[str, Fault]] = {
    "kill": Fault("a worker killed every 2 s", faults.kill_workers, 120, 0.01, 1.0),
    "kill-tiny": Fault(
        "a worker killed every 20 s, real pictures",
        faults.kill_workers_seldom,
        120,
        0.01,
        1.0,
        per_slot_s=0.5,
        slots=2,
        settings=_TINY,
    ),
    "pause": Fault("a worker paused for 3 leases", faults.pause_worker, 60, 0.01, FREED_S, settings=_ROOM),
    "node": Fault("a node cut off", faults.cut_off_node, 30, 0.01, FLOW_S, slots=4, far=2, settings=_ROOM),
    "redis": Fault("Redis killed 3 times", server_faults.kill_redis, 30, recovery_s=FLOW_S),
    "cut": Fault("connections cut", server_faults.cut_network, 30, recovery_s=FLOW_S, per_slot_s=1.2, slots=4, far=2),
    "slow": Fault(
        "connections slow by 300 ms", server_faults.slow_network, 30, recovery_s=FLOW_S, per_slot_s=1.2, slots=4, far=2
    ),
    "half-open": Fault(
        "connections half-open", server_faults.half_open_network, 30, recovery_s=FLOW_S, per_slot_s=1.2, slots=4, far=2
    ),
    "heavy": Fault("all heavy workers dead", faults.heavy_dead, 60, 0.0, direct=0.2, keeps_deadlines=True),
    "light": Fault("all light workers dead", faults.light_dead, 60, keeps_deadlines=True),
    "control": Fault("control dead", faults.control_dead, 60, 0.01, FLOW_S),
    "keeper": Fault("keeper dead", faults.keeper_dead, 5, 0.01, FLOW_S),
    "agent": Fault("agent dead", faults.agent_dead, 60, 0.01, FLOW_S),
    "waking": Fault("a paused control wakes up", faults.control_wakes, 10, 0.01, FREED_S),
    "types": Fault("a wrong type at each key", server_faults.plant_wrong_types, 60, recovery_s=FLOW_S),
    "memory": Fault("Redis at its memory limit", server_faults.memory_limit, 10, recovery_s=FLOW_S),
    "model": Fault(
        "a model that raises, returns NaN, or a picture too few",
        faults.spoilt_prompts,
        60,
        direct=0.2,
        # Whose fault it was is known only when each was drawn again alone.
        settings={"backend": "faulty", **_ROOM},
        spoils=("raise", "nan", "short"),
    ),
    "hang": Fault(
        "a model that hangs",
        faults.hanging_prompts,
        60,
        direct=0.2,
        settings={"backend": "faulty", "deadline_s": 60.0},
        spoils=("hang",),
        spoilt=0.01,
    ),
    "switch": Fault("all slots change their stage every 5 s", faults.switch_roles, 120),
    "flood": Fault(
        "10 times the load", server_faults.flood, 60, slots=2, per_slot_s=200, only_refusals=True, bounded=True
    ),
    "flood-memory": Fault(
        "10 times the load, 64 MiB for Redis",
        server_faults.flood,
        600,
        slots=2,
        per_slot_s=200,
        only_refusals=True,
        bounded=True,
        characters=1000,
        memory_mib=64,
    ),
}
# The best quality takes 0.6 s of a slot for a prompt: 1.1 prompts/s are 70 % of what a slot carries.
SOAK: Final = Fault(
    "soak: a fault a minute",
    faults.several,
    3600,
    0.01,
    per_slot_s=1.1,
    bounded=True,
    settings={"done_keep_s": 60.0, "picture_ttl_s": 60.0},
)
