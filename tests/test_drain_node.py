"""A person's orders in a running deployment: real planner, real workers that sleep, and the command line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from services.control import Control
from shared.broker import Broker
from shared.config import Settings
from shared.embedded import EmbeddedRedis
from shared.errors import CascadeError
from shared.messages import Outcome
from shared.observer import Observer
from shared.plans import Plan
from tests.asking import ctl
from tests.conftest import fresh_deployment
from tests.helpers import ends, holders, logger, outcomes, publish
from tests.planning import SDTURBO, policy_of
from tests.processes import LONG_S, fault, service, settings_for, until, worker

pytestmark = pytest.mark.live


@pytest.fixture
def broker(oldest_server: EmbeddedRedis) -> Iterator[Broker]:
    """One server is enough here: what processes do does not depend on its version. Workers played by hand last."""
    for made in fresh_deployment(oldest_server):
        lasting = made.settings.model_copy(update={"lease_s": 60.0})
        yield Broker(lasting)


def settings_of(broker: Broker, node: str) -> Settings:
    return settings_for(broker, node=node, policy="clipper-light", plan_period_s=0.1, lease_s=2.0)


def standing(broker: Broker, *nodes: str) -> None:
    """A worker of each node, ready to draw light, played by hand."""
    for node in nodes:
        about = {"node": node, "slot": "0", "gpu": SDTURBO.gpu, "stage": "light", "ready": "1"}
        broker.announce("light", f"{node}-0-light-1", about)


def planned_nodes(broker: Broker) -> set[str]:
    plan = broker.plan()
    return {name.split(":")[0] for name in plan.assignment} if plan else set()


def nodes(found: list[Outcome]) -> set[str]:
    return {visit.worker.rsplit("-", 3)[0] for outcome in found for visit in outcome.visits}


def test_a_drained_node_finishes_what_it_holds_and_gets_nothing_more(broker: Broker) -> None:
    with ExitStack() as stack:
        for node in ("stays", "goes"):
            stack.enter_context(worker(settings_of(broker, node)))
        stack.enter_context(service(settings_of(broker, "head"), "control"))
        until(lambda: planned_nodes(broker) == {"stays", "goes"}, "both are planned for")
        fault(broker, "held-1", "none", after_s=2.0)
        until(lambda: set(map(node_of, holders(broker).values())), "one draws")
        fault(broker, "held-2", "none", after_s=2.0)
        until(lambda: set(map(node_of, holders(broker).values())) == {"stays", "goes"}, "both draw")
        assert "nothing is left in the hands of goes" in ctl(broker, "drain", "goes")
        assert "goes" in nodes(outcomes(broker)), "it was left to finish its batch"
        assert planned_nodes(broker) == {"stays"}
        assert Observer(broker).in_hands("goes") == (0, 0)
        done = len(ends(broker))
        publish(broker, *(f"p{number}" for number in range(8)), allowance_s=LONG_S)
        until(lambda: len(ends(broker)) == 10, "the rest is drawn")
        late = [outcome for outcome in outcomes(broker) if outcome.id.startswith("p")]
        assert done <= 2 and nodes(late) == {"stays"}
        assert {end for end, _ in ends(broker).values()} == {"light"}, "no prompt was lost"
        assert "undrain goes" in ctl(broker, "undrain", "goes")
        until(lambda: planned_nodes(broker) == {"stays", "goes"}, "it is planned for again")


def node_of(consumer: str) -> str:
    return consumer.rsplit("-", 3)[0]


def test_a_paused_planner_keeps_its_plan_and_a_pin_changes_the_next(broker: Broker) -> None:
    standing(broker, "a", "b")
    settings = settings_of(broker, "head")
    control = Control(settings, SDTURBO, policy_of("clipper-light"), logger)

    def in_force() -> Plan:
        for _ in range(3):
            time.sleep(control.step())
        plan = broker.plan()
        assert plan is not None
        return plan

    assert len(in_force().assignment) == 2
    ctl(broker, "pin", "--threshold", "0.25")
    assert in_force().threshold == 0.25
    ctl(broker, "pause")
    ctl(broker, "unpin")
    assert in_force().threshold == 0.25, "it stays as it is while the planner is paused"
    assert "the planner is paused" in ctl(broker, "plan")
    ctl(broker, "drain", "b", "--no-wait")
    assert set(in_force().assignment) == {"a:0"}, "a drain is obeyed though the planner is paused"
    ctl(broker, "drain", "a", "--no-wait")
    assert not in_force().assignment, "the last one too"
    ctl(broker, "resume")
    ctl(broker, "undrain", "a")
    plan = in_force()
    assert (plan.threshold, set(plan.assignment)) == (0.0, {"a:0"}), "the policy decides again"
    control.leave()
    rows = [line for line in ctl(broker, "audit").splitlines() if "│" in line]
    what = ("pin", "pause", "unpin", "drain b", "drain a", "resume", "undrain a")
    assert [name in line for name, line in zip(what, rows, strict=True)] == [True] * len(what)


def test_draining_says_what_is_missing(broker: Broker) -> None:
    with pytest.raises(CascadeError, match="no node 'x'; there are none"):
        ctl(broker, "drain", "x")
    standing(broker, "a")
    said = ctl(broker, "drain", "a", "--no-wait")
    assert "no planner leads" in said
    assert "no other node has a slot" in said
    assert "it stands so already" in ctl(broker, "drain", "a", "--no-wait")


def test_a_node_that_does_not_come_to_rest_in_time_stays_drained_and_what_it_holds_is_said(broker: Broker) -> None:
    standing(broker, "a")
    broker.hold(broker.keys.slot("a", 0), "someone")
    with pytest.raises(
        CascadeError, match=r"a was not empty after 0\.3 s: 0 prompts, 1 slots held, 0 slots in the plan"
    ):
        ctl(broker, "drain", "a", "--within-s", "0.3")
    assert broker.orders().drained == {"a"}
