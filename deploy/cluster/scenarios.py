"""What is done to the cluster while prompts come: a node's life, and a rolling restart of everything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from deploy.cluster.cluster import MADE_UP, PROFILED, Node
from deploy.cluster.drill import Drill
from services.agent import program
from shared.schema import STAGES

CUT_S: Final = 20.0
HEAD: Final = ("control", "keeper", "gateway", "redis")


@dataclass(frozen=True, slots=True)
class Scenario:
    """`per_s`: prompts/s published, one client of the door a second beside them. `at_start`: how many nodes are there.

    `violation`: at most, as a share of what was offered.
    """

    what: str
    act: Callable[[Drill], None]
    nodes: tuple[Node, ...]
    per_s: float
    violation: float
    at_start: int = 1


def life_of_a_node(drill: Drill) -> None:
    """The second node joins, is drained, joins again, is cut off, comes back; the head restarts service by service."""
    first, second = drill.cluster.specs
    drill.note(f"{first} alone", first, drill.cluster.specs[first].slots)
    drill.wait(20)
    drill.join(second)
    drill.wait(20)
    drill.drain(second)
    drill.wait(15)
    drill.undrain(second)
    drill.wait(15)
    drill.cut(second, CUT_S)
    drill.wait(20)
    for service in HEAD:
        drill.restart(service)
        drill.wait(8)


def rolling_restart(drill: Drill) -> None:
    """Every service of the head, then on each node the agent, each worker, and supervisord with all it runs."""
    drill.wait(10)
    for service in HEAD:
        drill.restart(service)
        drill.wait(5)
    for name, node in drill.cluster.specs.items():
        drill.restart_program(name, "agent")
        drill.wait(3)
        for slot in range(node.slots):
            for stage in STAGES:
                drill.restart_program(name, program(slot, stage))
                drill.wait(2)
        drill.restart_node(name)
        drill.wait(5)


SCENARIOS: Final[Mapping[str, Scenario]] = {
    "node": Scenario(
        "a node joins, is drained, joins again, is cut off for 20 s, comes back; the head's services restart",
        life_of_a_node,
        (Node("gpu-1", 3, PROFILED), Node("gpu-2", 4, MADE_UP)),
        per_s=3.0,
        violation=0.01,
    ),
    "restart": Scenario(
        "every service restarts, one after the other",
        rolling_restart,
        (Node("gpu-1", 3, PROFILED), Node("gpu-2", 2, MADE_UP)),
        per_s=2.5,
        violation=0.005,
        at_start=2,
    ),
}
