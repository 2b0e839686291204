"""What somebody wrote by hand where the services read: they go on, and so do the prompts."""

from __future__ import annotations

import math
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from planner.policies import make_policy
from services.agent import Agent, Supervisor
from services.control import Control
from services.keeper import Keeper
from services.lease import Lease
from services.worker import Worker
from shared.broker import Broker
from shared.connection import CommandRefused
from shared.errors import PlanUnreadable
from shared.incarnation import identity
from shared.observer import Observer
from shared.plans import Plan
from shared.process import Stop, until_done
from shared.schema import LATEST_VERSION
from tests.easel import CASCADE, Easel, plan_for, working
from tests.helpers import a_plan, ends, hire, logger, publish, put_plan, spoilt, totals
from tests.processes import until

Plant = Callable[[Broker], object]


def in_plan(field: Any, value: Any) -> Plant:
    return lambda broker: broker.client.hset(broker.keys.plan, field, value)


def in_totals(value: str) -> Plant:
    return lambda broker: broker.client.hset(broker.keys.totals, "mine", value)


def as_worker(**about: str | bytes) -> Plant:
    """A worker that a group knows, and under whose name stands what anybody may write."""

    def plant(broker: Broker) -> None:
        name = f"test-9-light-{uuid.uuid4().hex[:8]}"
        broker.announce("light", name, {"node": "test"})
        key = broker.keys.worker(name)
        broker.client.delete(key)
        written(broker, key, {"consumer": name, **about})

    return plant


WORKER: Final[dict[str, str | bytes]] = {"node": "test", "slot": "0", "stage": "light", "gpu": "cpu", "ready": "1"}
NUMBERLESS = {
    "a batch that is no number": in_plan("light_batch", "abc"),
    "a batch of many digits": in_plan("light_batch", "9" * 5000),
    "a batch below zero": in_plan("light_batch", "-3"),
    "a threshold that is none": in_plan("threshold", "nan"),
    "bytes that are no text": in_plan("light_service_s", b"\xff\xfe"),
    "a version that is no number": in_plan("version", "newest"),
    "a version that none can follow": in_plan("version", str(10**30)),
    "a version without an end": in_plan("version", "inf"),
    "a slot of no stage": in_plan("slot:test:0", "medium"),
    "a plan without most of it": lambda broker: broker.client.hdel(broker.keys.plan, "policy", "light_batch"),
    "GPUs that cannot be counted": in_plan("light_on:cpu", "some"),
}
ELSEWHERE = {
    "a slot without a number": in_plan("slot:foo", "light"),
    "a slot whose number is none": in_plan(b"slot:te\xffst:one", "light"),
    "a total that is no number": in_totals("abc"),
    "a total without an end": in_totals("inf"),
    "a count of plans that is no number": lambda broker: broker.client.hset(broker.keys.totals, "plans", "nan"),
    "a worker without a node": as_worker(ready="1"),
    "a worker without a number": as_worker(**WORKER | {"slot": "first"}),
    "a worker of no stage": as_worker(**WORKER | {"stage": "medium"}),
    "a worker of bytes": as_worker(**WORKER | {"node": b"\xff", "error": b"\xff"}),
    "a worker without a GPU": as_worker(node="test", slot="7", stage="light", ready="1"),
    "a worker that is no process": as_worker(**WORKER | {"process": "not one"}),
    "a worker of a huge process": as_worker(**WORKER | {"process": f"a b {10**30} 1"}),
    "a node without a name": lambda broker: written(broker, broker.keys.node("test"), {"resident": "0"}),
    "a ceiling that is no number": lambda broker: ceiling(broker, "no number"),
    "a ceiling below zero": lambda broker: ceiling(broker, "-4"),
    "a plan of old that is none": lambda broker: broker.client.xadd(broker.keys.plans, {"version": "x"}),
}


def written(broker: Broker, key: str, about: dict[Any, Any]) -> None:
    broker.client.hset(key, mapping=about)
    broker.client.expire(key, 60)


def ceiling(broker: Broker, text: str) -> None:
    broker.client.set(broker.keys.ceiling(CASCADE.models["light"].name, CASCADE.gpu), text, ex=60)


@contextmanager
def crew(broker: Broker) -> Iterator[dict[str, Any]]:
    """The services as objects that a test steps."""
    policy = make_policy("quality", CASCADE, 5.0, "exhaustive", dwell_s=0.0, peak=None, pinned=None)
    alone_s = {stage: CASCADE.service_s(stage, 1) for stage in CASCADE.models}
    control = Control(broker.settings, CASCADE, policy, logger)
    keeper = Keeper(broker.settings, alone_s, logger)
    agent = Agent(broker.settings, Supervisor(Path("/nowhere.sock")), logger)
    yield {"control": control, "keeper": keeper, "agent": agent}
    control.leave()
    keeper.leave()


@pytest.mark.parametrize("what", [*NUMBERLESS, *ELSEWHERE])
def test_services_survive_what_they_cannot_read_and_serve_on(broker: Broker, what: str) -> None:
    plan_for(broker)
    with working(broker, Easel("light")) as worker, crew(broker) as services:
        broker.release(broker.keys.leader("control"), "control")
        worker._lease.describe(ready="1")
        publish(broker, "o")
        until(partial(drawn_by, worker, broker, "o"), "it is drawn")
        for service in services.values():
            service.step()
        (NUMBERLESS | ELSEWHERE)[what](broker)
        worker._lease.note_plan(-2)  # it looks at the plan again
        for prompt_id in "pq":
            publish(broker, prompt_id)
            until(partial(drawn_by, worker, broker, prompt_id), "it is drawn")
            for service in services.values():
                service._next_look = service._next_period = 0.0
                service.step()
        Observer(broker).slots(), Observer(broker).plans()
        assert all(map(math.isfinite, totals(broker).values()))
        assert broker.plan() == broker.standing_plan(), "control has put a plan over it"


def drawn_by(worker: Worker, broker: Broker, prompt_id: str) -> bool:
    worker.step()
    return prompt_id in ends(broker)


@pytest.mark.parametrize("what", NUMBERLESS)
def test_a_spoilt_plan_is_named_and_planned_over_by_a_newer_one(broker: Broker, what: str) -> None:
    put_plan(broker, a_plan(version=7, assignment={"test:0": "light"}))
    broker.release(broker.keys.leader("control"), "control")
    hire(broker)
    newcomer = Broker(broker.settings)
    known = broker.plan()
    NUMBERLESS[what](broker)
    with pytest.raises(PlanUnreadable):
        broker.standing_plan()
    assert broker.plan() == known, "the last that could be read"
    assert newcomer.plan() is None
    with crew(broker) as services:
        services["control"].step()
    mended = broker.standing_plan()
    assert mended is not None
    assert 0 < mended.version <= LATEST_VERSION
    if "version" not in what:
        assert mended.version > 7
    newcomer.close()


def test_an_unreadable_plan_says_which_field_and_which_version() -> None:
    wire = {name.encode(): str(value).encode() for name, value in a_plan(version=4).wire().items()}
    with pytest.raises(PlanUnreadable, match="heavy_batch: ") as wrong:
        Plan.from_wire(wire | {b"heavy_batch": b"four"})
    assert wrong.value.version == 4
    with pytest.raises(PlanUnreadable) as wrong:
        Plan.from_wire(wire | {b"version": b"four"})
    assert wrong.value.version == 0


def test_a_lease_beats_on_whatever_a_beat_brings(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = broker.settings.model_copy(update={"lease_s": 0.2})
    lease = Lease(settings, "light", "test-0-light-1", "played", logger)
    lease.start()
    spared = lease._beat
    beats: list[int] = []

    def beat() -> float:
        beats.append(1)
        if len(beats) == 1:
            raise ValueError("nobody thought of this")
        return spared()

    monkeypatch.setattr(lease, "_beat", beat)
    until(lambda: len(beats) > 2, "it beats on")
    assert lease._thread.is_alive()
    lease.end(broker)


def test_one_dead_worker_that_cannot_be_buried_keeps_no_others_prompts(broker: Broker) -> None:
    agent = Agent(broker.settings, Supervisor(Path("/nowhere.sock")), logger)
    hands = {stage: hire(broker, stage) for stage in ("heavy", "light")}
    for hand in hands.values():
        about = {"node": "test", "slot": "0", "stage": hand.stage, "consumer": hand.name, "process": identity()}
        agent._known[hand.name] = about
    publish(broker, "p")
    entry = hands["light"].one()
    agent._deaths.over = lambda: {identity()}  # type: ignore[method-assign]
    with spoilt(broker, broker.keys.wake["heavy"]), pytest.raises(CommandRefused):
        agent._bury_the_dead()
    assert entry.entry_id in {other.entry_id for other in hire(broker).take()}, "given back at once"
    assert set(agent._known) == {hands["heavy"].name}, "tried again"
    agent._bury_the_dead()
    assert not agent._known


def test_waiting_until_something_is_done_ends_with_it_or_with_the_stop() -> None:
    refusals = iter([CommandRefused("no"), CommandRefused("no")])

    def act() -> None:
        for refused in refusals:
            raise refused

    assert until_done(act, Stop(), logger)
    stop = Stop()
    threading.Timer(0.3, stop.set).start()
    assert not until_done(never, stop, logger)


def never() -> None:
    raise CommandRefused("never")
