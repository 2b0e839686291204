"""What people order stands until it is taken back, and the audit says who ordered it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from shared import orders
from shared.broker import Broker
from shared.connection import CommandRefused
from shared.errors import SettingsError
from shared.observer import Observer
from shared.orders import Orders
from shared.schema import AUDIT_KEPT
from tests.helpers import hire, publish, spoilt


def deeds(broker: Broker) -> list[tuple[str, str]]:
    return [(deed.who, deed.what) for deed in Observer(broker).deeds(100)]


def test_orders_stand_together_until_each_is_taken_back(broker: Broker) -> None:
    assert not broker.orders()
    assert broker.order(orders.drain("gpu-1"), "ada")
    assert broker.order(orders.pin(threshold=0.3, light_workers=4), "ada")
    assert broker.order(orders.pin(heavy_workers=0), "bob")
    assert broker.order(orders.pause(), "bob")
    assert broker.orders() == Orders(frozenset({"gpu-1"}), 0.3, 4, 0, True)
    assert broker.order(orders.unpin("threshold"), "bob")
    assert broker.orders() == Orders(frozenset({"gpu-1"}), None, 4, 0, True)
    for order in (orders.unpin(), orders.resume(), orders.undrain("gpu-1")):
        assert broker.order(order, "ada")
    assert not broker.orders()
    assert not broker.client.exists(broker.keys.orders)


def test_the_audit_says_who_changed_what_and_nothing_of_what_changed_nothing(broker: Broker) -> None:
    before = broker.now()
    assert broker.order(orders.pin(threshold=0.3), "ada")
    assert not broker.order(orders.pin(threshold=0.3), "bob"), "it stands so already"
    assert not broker.order(orders.resume(), "bob")
    assert broker.order(orders.pin(threshold=0.3, heavy_workers=2), "bob"), "half of it is new"
    assert broker.order(orders.unpin(), "ada")
    assert deeds(broker) == [
        ("ada", "pin threshold=0.3"),
        ("bob", "pin threshold=0.3 heavy_workers=2"),
        ("ada", "unpin"),
    ]
    for deed in Observer(broker).deeds(100):
        assert before - 0.01 <= deed.at <= broker.now() + 0.01
    assert [deed.what for deed in Observer(broker).deeds(1)] == ["unpin"], "the newest"


def test_an_order_that_can_not_be_written_down_is_not_given(broker: Broker) -> None:
    with spoilt(broker, broker.keys.audit), pytest.raises(CommandRefused):
        broker.order(orders.pause(), "ada")
    assert not broker.orders()
    with spoilt(broker, broker.keys.orders), pytest.raises(CommandRefused):
        broker.order(orders.pause(), "ada")
    assert not deeds(broker)


def test_the_audit_is_bounded(broker: Broker) -> None:
    for _ in range(2 * AUDIT_KEPT):
        broker.order(orders.pause(), "ada")
        broker.order(orders.resume(), "ada")
    assert AUDIT_KEPT <= broker.client.xlen(broker.keys.audit) < 1.5 * AUDIT_KEPT


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"threshold": 1.1}, "threshold"),
        ({"threshold": math.nan}, "threshold"),
        ({"light_workers": 0}, "light_workers"),
        ({"heavy_workers": -1}, "heavy_workers"),
        ({"heavy_workers": 10**9}, "heavy_workers"),
        ({}, "pin"),
    ],
)
def test_a_pin_that_makes_no_sense_is_not_taken(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(SettingsError, match=field):
        orders.pin(**wrong)


def test_what_can_not_be_pinned_can_not_be_unpinned() -> None:
    with pytest.raises(SettingsError, match="deadline"):
        orders.unpin("deadline")


def test_orders_written_by_hand_are_obeyed_and_slips_of_the_finger_passed_over(broker: Broker) -> None:
    by_hand: dict[Any, Any] = {"paused": "1", "drain:gpu-1": "yes", "threshold": "0.5", "heavy_workers": "3"}
    broker.client.hset(broker.keys.orders, mapping=by_hand)
    assert broker.orders() == Orders(frozenset({"gpu-1"}), 0.5, None, 3, True)
    slips: dict[Any, Any] = {
        "threshold": "high",
        "heavy_workers": "2.5",
        "light_workers": "0",
        "paused": "maybe",
        "mood": b"\xff",
    }
    broker.client.hset(broker.keys.orders, mapping=slips)
    assert broker.orders() == Orders(frozenset({"gpu-1"}))


def test_orders_are_said_in_words(broker: Broker) -> None:
    for order in (orders.pause(), orders.pin(threshold=0.25, light_workers=2), orders.drain("b"), orders.drain("a")):
        broker.order(order, "ada")
    words = ["the planner is paused", "threshold pinned at 0.25", "light_workers pinned at 2"]
    assert broker.orders().words() == [*words, "a is drained", "b is drained"]


def test_what_is_in_a_nodes_hands_is_its_prompts_and_the_slots_its_workers_hold(
    broker: Broker, observer: Observer
) -> None:
    for name in ("a-0-light-1", "ab-0-light-1"):
        broker.announce("light", name, {"node": name.split("-")[0], "slot": "0", "stage": "light", "ready": "1"})
    assert observer.in_hands("ab") == (0, 0)
    slot = broker.keys.slot("ab", 0)
    broker.hold(slot, "ab-0-light-1")
    publish(broker, "p", "q", priority=0)
    hand = hire(broker, slot_key=slot)
    hand.name = "ab-0-light-1"
    first, second = hand.take(2)
    assert observer.in_hands("ab") == (2, 1)
    assert observer.in_hands("a") == (0, 0), "another node, whose name it begins with"
    hand.end(first)
    hand.end(second)
    broker.release(slot, hand.name)
    assert observer.in_hands("ab") == (0, 0)
