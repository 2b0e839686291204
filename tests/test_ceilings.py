"""Batches that do not fit a GPU's memory are not planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from planner.drafting import as_seen
from services.control import Control
from shared.broker import Broker
from shared.plans import Plan, View
from shared.schema import STAGES, Stage
from tests.helpers import logger
from tests.planning import SDTURBO, fleet, policy_of, view

SLOTS = fleet(16)


@pytest.mark.parametrize("name", ["quality", "diffserve", "proteus", "clipper-light", "clipper-heavy", "hybrid"])
@pytest.mark.parametrize("ceiling", [1, 2, 3])
def test_no_policy_plans_a_batch_above_the_ceiling(name: str, ceiling: int) -> None:
    free = policy_of(name)(view(25, SLOTS))
    ceilings: Mapping[Stage, Mapping[str, int]] = {"light": {SDTURBO.gpu: ceiling}, "heavy": {SDTURBO.gpu: ceiling}}
    plan = policy_of(name)(replace(view(25, SLOTS), ceilings=ceilings))
    assert max(free.light_batch, free.heavy_batch) > 3, "without a ceiling it plans larger ones"
    assert max(plan.light_batch, plan.heavy_batch) <= ceiling


def test_a_ceiling_binds_its_stage_and_its_gpu_only() -> None:
    seen = as_seen(SDTURBO, replace(view(25, SLOTS), ceilings={"heavy": {SDTURBO.gpu: 2, "never-profiled": 1}}))
    assert seen.batches("light") == SDTURBO.batches("light")
    assert seen.batches("heavy") == (1, 2)
    assert seen.batches("heavy", "never-profiled") == (1,)
    assert seen.service_s("heavy", 1, "never-profiled") == SDTURBO.service_s("heavy", 1)


def test_control_reads_what_workers_found(broker: Broker) -> None:
    models = SDTURBO.models
    broker.lower_ceiling(models["heavy"].name, SDTURBO.gpu, 2)
    broker.lower_ceiling("another model", SDTURBO.gpu, 1)
    for slot in range(2):
        for stage in STAGES:
            about = {"node": "n", "slot": str(slot), "gpu": SDTURBO.gpu, "stage": stage, "ready": "1"}
            broker.announce(stage, f"n-{slot}-{stage}-1", about)
    seen: list[View] = []

    def policy(given: View) -> Plan:
        seen.append(given)
        return policy_of("quality")(given)

    control = Control(broker.settings, SDTURBO, policy, logger)
    control.step()
    control.leave()
    assert [len(given.slots) for given in seen] == [2]
    assert [given.ceilings for given in seen] == [{"heavy": {SDTURBO.gpu: 2}}]
    plan = broker.plan()
    assert plan is not None
    assert plan.heavy_batch <= 2
