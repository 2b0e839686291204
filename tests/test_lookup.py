"""A look at one prompt tells how it stands, wherever it is, and how many are drawn before it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from shared.broker import Broker
from shared.exchange import Hop
from shared.lookup import Lookup
from shared.schema import QUEUE_SHOWN
from tests.helpers import by_hand, hire, publish


def test_a_place_in_the_queue_counts_those_before_and_higher_classes(broker: Broker) -> None:
    publish(broker, "a", "b", "c")
    publish(broker, "low", priority=2)
    by_hand(broker, {"prompt": "a cat"}, priority=0)
    lookup = Lookup(broker)

    def waiting(prompt_id: str) -> int | None:
        look = lookup.look(prompt_id, place=True)
        assert look is not None
        return look.waiting

    assert [waiting(each) for each in ("a", "b", "c", "low")] == [1, 2, 3, 4]
    light = hire(broker)
    light.take(2)  # the one by hand, and a
    time.sleep(0.002)  # what came within the millisecond of a look counts as come since
    lookup = Lookup(broker)
    assert [waiting(each) for each in ("a", "b", "c", "low")] == [None, 0, 1, 2]
    publish(broker, "new")
    assert waiting("new") == 2, "one that came since the last look stands last"


def test_a_place_far_behind_is_told_as_so_many_or_more(broker: Broker) -> None:
    publish(broker, *(f"p{number}" for number in range(QUEUE_SHOWN + 20)), allowance_s=60.0)
    lookup = Lookup(broker)
    places = [
        look.waiting
        for number in (QUEUE_SHOWN - 1, QUEUE_SHOWN + 10)
        if (look := lookup.look(f"p{number}", place=True))
    ]
    assert places == [QUEUE_SHOWN - 1, QUEUE_SHOWN]


def test_a_look_tells_the_whole_history_also_after_the_end(broker: Broker) -> None:
    lookup, light, heavy = Lookup(broker), hire(broker), hire(broker, "heavy")
    assert lookup.look("p") is None
    receipt = publish(broker, "p", allowance_s=20.0)
    light.escalate(light.one(), score=0.25)
    look = lookup.look("p")
    assert look is not None
    assert (look.state, look.stage, look.has_light, look.score, look.prompt) == ("open", "heavy", True, 0.25, "a cat")
    taken = heavy.one()
    assert broker.overtake("p", "heavy", 1, taken.entry_id, "light", "deadline")
    look = lookup.look("p")
    assert look is not None
    assert (look.state, look.why, look.upgraded) == ("light", "deadline", False)
    assert look.published < look.finished < look.deadline == receipt.deadline
    assert [visit.stage for visit in look.visits] == ["light"]
    assert heavy.end(taken) == 2
    look = lookup.look("p")
    assert look is not None and look.upgraded


def test_a_prompt_that_moves_on_meanwhile_is_seen_whole(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(broker, "p", extra={b"user": b"lisa"})
    lookup, light = Lookup(broker), hire(broker)
    taken, read = [light.one()], lookup._message

    def meanwhile(record: Any) -> Any:
        if taken:
            light.escalate(taken.pop())
        return read(record)

    monkeypatch.setattr(lookup, "_message", meanwhile)
    look = lookup.look("p")
    assert look is not None
    assert (look.stage, look.prompt, look.user) == ("heavy", "a cat", "lisa")


def test_a_look_at_a_failed_prompt_says_the_reason(broker: Broker) -> None:
    publish(broker, "p")
    light = hire(broker)
    hop = Hop.spoilt(light.one(), "error", "ValueError: no such thing", "Traceback")
    broker.commit("light", light.name, [hop])
    look = Lookup(broker).look("p")
    assert look is not None
    assert (look.end, look.why, look.reason, look.attempts) == ("failed", "error", "ValueError: no such thing", 1)
