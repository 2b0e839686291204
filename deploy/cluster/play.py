"""Plays a scenario: a fresh cluster, prompts that go on coming, what is done to it, and the accounts afterwards."""

from __future__ import annotations

from pathlib import Path

from deploy.cluster.cluster import Cluster
from deploy.cluster.drill import Drill, Say
from deploy.cluster.judging import Verdict, judged
from deploy.cluster.scenarios import Scenario
from shared.errors import CascadeError


def play(scenario: Scenario, scale: float, folder: Path, say: Say) -> Verdict:
    """Run it once; nothing is left running. Raises CascadeError where the cluster does not come up."""
    folder.mkdir(parents=True, exist_ok=True)
    with Cluster(folder, scenario.nodes) as cluster:
        for node in scenario.nodes[: scenario.at_start]:
            cluster.join(node.name)
        cluster.head.wait_healthy()
        slots = sum(node.slots for node in scenario.nodes[: scenario.at_start])
        cluster.until(lambda: len(plan.assignment if (plan := cluster.broker.plan()) else ()) == slots, "a first plan")
        drill = Drill(cluster, scenario.per_s, scale, say)
        with drill.under_load():
            try:
                scenario.act(drill)
            except CascadeError as wrong:  # what was seen until then is still told
                drill.broken.append(str(wrong))
        return judged(drill, scenario)
