"""Publishing, hopping and settling: each wholly or not at all."""

from __future__ import annotations

import pytest

from shared.broker import Broker, HopsRefused
from shared.connection import CommandRefused
from shared.exchange import Hop, Publication
from shared.messages import Visit, pack_visits
from shared.observer import Backlog, Observer
from tests.helpers import (
    a_plan,
    by_hand,
    ends,
    events,
    hire,
    holders,
    job,
    outcomes,
    publish,
    put_plan,
    spoilt,
    totals,
)


def test_a_confident_prompt_ends_light_with_its_whole_story(broker: Broker, observer: Observer) -> None:
    receipt = publish(broker, "p", seed=7, parameters={"index": 3}, priority=0)
    light = hire(broker)
    entry = light.one()
    assert (entry.priority, entry.job.seed, dict(entry.job.parameters)) == (0, 7, {"index": 3})
    assert light.end(entry) == 1
    (outcome,) = outcomes(broker)
    assert (outcome.id, outcome.prompt, outcome.end, outcome.why) == ("p", "a cat", "light", "confident")
    assert (outcome.deadline, outcome.seed, outcome.priority) == (receipt.deadline, 7, 0)
    assert outcome.published <= outcome.finished <= outcome.deadline
    (visit,) = outcome.visits
    assert (visit.stage, visit.worker, visit.batch, visit.score) == ("light", light.name, 1, 0.75)
    assert totals(broker) == {"offered": 1, "published": 1, "light": 1, "light:confident": 1}
    assert events(broker) == [{b"type": b"settled", b"id": b"p", b"end": b"light", b"why": b"confident"}]
    assert observer.image("p", "light") == b"light"
    assert observer.backlog() == {"light": Backlog(0, 0), "heavy": Backlog(0, 0)}
    assert not broker.client.zcard(broker.keys.due)


def test_an_escalated_prompt_ends_heavy_with_both_visits_and_both_pictures(broker: Broker, observer: Observer) -> None:
    receipt = publish(broker)
    light, heavy = hire(broker), hire(broker, "heavy")
    assert light.escalate(light.one()) == 1
    assert broker.client.llen(broker.keys.wake["heavy"]) == 1
    assert observer.backlog()["heavy"] == Backlog(1, 0)
    entry = heavy.one()
    assert entry.job.deadline == pytest.approx(receipt.deadline, abs=2e-6)
    assert heavy.end(entry, why="cascade") == 1
    (outcome,) = outcomes(broker)
    assert (outcome.end, [visit.stage for visit in outcome.visits], outcome.score) == (
        "heavy",
        ["light", "heavy"],
        0.25,
    )
    assert [observer.image("p", "light"), observer.image("p", "heavy")] == [b"light", b"heavy"]
    assert totals(broker) == {"offered": 1, "published": 1, "escalated": 1, "heavy": 1, "heavy:cascade": 1}
    assert [event[b"type"] for event in events(broker)] == [b"light", b"settled"]


def test_one_publish_wakes_one_worker(broker: Broker) -> None:
    publish(broker, "a", "b", "c")
    assert broker.client.llen(broker.keys.wake["light"]) == 1
    assert broker.client.llen(broker.keys.wake["heavy"]) == 0
    publish(broker, "d", route="heavy")
    assert broker.client.llen(broker.keys.wake["heavy"]) == 1


def test_a_deadline_is_published_plus_allowance_minus_lag(broker: Broker) -> None:
    receipt = publish(broker, allowance_s=5.0, lag_s=1.5)
    entry = hire(broker).one()
    assert entry.job.deadline == receipt.deadline
    assert entry.job.deadline - entry.job.published == pytest.approx(3.5, abs=2e-6)
    assert abs(entry.job.published - broker.now()) < 5
    assert broker.client.zscore(broker.keys.due, "p") == pytest.approx(receipt.deadline)


def test_an_id_is_published_drawn_and_counted_once(broker: Broker) -> None:
    statuses = [receipt.status for receipt in broker.publish([Publication(job("p"), 9.0)] * 2)]
    assert statuses == ["published", "known"]
    assert (publish(broker).status, publish(broker).state) == ("known", "open")
    light = hire(broker)
    (entry,) = light.take(4)
    light.end(entry)
    assert publish(broker).state == "light"
    assert not light.take(4)
    assert totals(broker)["offered"] == 1


def test_what_light_cannot_make_in_time_is_refused_with_the_time_to_retry(broker: Broker) -> None:
    put_plan(broker, a_plan(light_workers=1, light_batch=1, light_service_s=1.0))
    receipts = broker.publish([Publication(job(str(i)), 3.5) for i in range(5)])
    assert [receipt.status for receipt in receipts] == ["published"] * 3 + ["refused"] * 2
    assert receipts[-1].retry_after_s == pytest.approx(0.5)
    assert totals(broker)["refused"] == 2
    assert totals(broker)["offered"] == 5
    assert publish(broker, "3", allowance_s=9.0).status == "published", "a refused prompt may come again"


def forged(broker: Broker, **times: str) -> None:
    """An entry by hand that claims a light picture."""
    visits = pack_visits((Visit("light", "w", 1.0, 2.0, 1, 0.1),))
    by_hand(broker, {"id": "p", "prompt": "a dog", "visits": visits, **times}, "heavy")


@pytest.mark.parametrize("stamped", [False, True])
@pytest.mark.parametrize(
    ("why", "expected"), [("deadline", ("dropped", "deadline")), ("heavy_failed", ("failed", "error"))]
)
def test_a_light_picture_that_nobody_made_is_no_answer(
    broker: Broker, stamped: bool, why: str, expected: tuple[str, str]
) -> None:
    now = broker.now()
    forged(broker, **({"published": f"{now:.6f}", "deadline": f"{now + 9:.6f}"} if stamped else {}))
    heavy = hire(broker, "heavy")
    entry = heavy.one()
    if not stamped:
        entry = broker.adopt("heavy", entry, 9.0)
        assert entry.job.visits == ()
    assert broker.commit("heavy", heavy.name, [Hop(entry, "light", why)]) == [1]
    assert ends(broker) == {"p": expected}


def test_a_light_picture_that_was_made_is_an_answer(broker: Broker) -> None:
    publish(broker)
    light, heavy = hire(broker), hire(broker, "heavy")
    light.escalate(light.one())
    entry = heavy.one()
    assert broker.adopt("heavy", entry, 9.0).job.visits == entry.job.visits
    assert broker.commit("heavy", heavy.name, [Hop(entry, "light", "deadline")]) == [1]
    assert ends(broker) == {"p": ("light", "deadline")}


@pytest.mark.parametrize("record", ["of another type", "unreadable"])
def test_redis_may_refuse_one_hop_and_its_mates_are_done(broker: Broker, record: str) -> None:
    now = broker.now()
    by_hand(broker, {"id": "bad", "prompt": "a dog", "published": f"{now:.6f}", "deadline": f"{now + 9:.6f}"})
    publish(broker, "good")
    light = hire(broker)
    hops = [Hop(light.drawn(each, 0.75), "light", "confident") for each in light.take(2)]
    key = broker.keys.prompt("bad")
    if record == "unreadable":
        broker.client.hset(key, mapping={"published": "soon", "deadline": "2.0"})
    else:
        broker.client.set(key, "of another type")
    with pytest.raises(HopsRefused, match=r"WRONGTYPE|cannot be read") as refused:
        broker.commit("light", light.name, hops)
    assert refused.value.entries == [hops[0].entry]
    assert ends(broker) == {"good": ("light", "confident")}
    broker.client.delete(key)
    assert broker.commit("light", light.name, hops) == [1, 0]
    assert set(ends(broker)) == {"good", "bad"}


def test_a_refused_end_of_a_malformed_entry_is_told(broker: Broker) -> None:
    by_hand(broker, {"id": "bad"})
    light = hire(broker)
    (broken,) = light.claim().broken
    last = f"{2**64 - 1}-{2**64 - 1}"  # no id is left after it
    broker.client.xadd(broker.keys.done, {"x": "y"}, id=last)
    with pytest.raises(HopsRefused):
        broker.fail("light", light.name, broken, 9.0)
    broker.client.delete(broker.keys.done)
    broker.fail("light", light.name, broken, 9.0)
    assert ends(broker) == {"bad": ("failed", "malformed")}


SETTLED_KEYS = ("due", "done", "dead", "events", "totals", "record")
ESCALATED_KEYS = ("next", "wake", "events", "totals", "record")


def key_of(broker: Broker, name: str) -> str:
    special = {
        "record": broker.keys.prompt("p"),
        "next": broker.keys.streams["heavy"][1],
        "wake": broker.keys.wake["heavy"],
    }
    return special.get(name) or str(getattr(broker.keys, name))


@pytest.mark.parametrize("name", SETTLED_KEYS)
def test_an_error_inside_a_settlement_leaves_the_prompt_where_it_was(broker: Broker, name: str) -> None:
    publish(broker)
    light = hire(broker)
    entry = light.one()
    before = totals(broker)
    with spoilt(broker, key_of(broker, name)), pytest.raises(CommandRefused, match="WRONGTYPE"):
        light.end(entry, "failed", "broken")
    assert holders(broker) == {light.place(entry): light.name}
    assert (ends(broker), totals(broker), events(broker)) == ({}, before, [])
    assert broker.client.xlen(broker.keys.dead) == 0
    assert broker.client.zcard(broker.keys.due) == 1
    assert broker.hand_back_all("light", light.name) == 1
    assert light.end(light.one(), "failed", "broken") == 1
    assert ends(broker) == {"p": ("failed", "broken")}
    assert broker.client.xlen(broker.keys.dead) == 1


@pytest.mark.parametrize("name", ESCALATED_KEYS)
def test_an_error_inside_an_escalation_leaves_the_prompt_where_it_was(broker: Broker, name: str) -> None:
    publish(broker)
    light, heavy = hire(broker), hire(broker, "heavy")
    entry = light.one()
    before = totals(broker)
    with spoilt(broker, key_of(broker, name)), pytest.raises(CommandRefused, match="WRONGTYPE"):
        light.escalate(entry)
    assert holders(broker) == {light.place(entry): light.name}
    assert (totals(broker), events(broker), heavy.take()) == (before, [], [])
    assert broker.client.hget(broker.keys.prompt("p"), "stage") == b"light"
    broker.hand_back_all("light", light.name)
    assert light.escalate(light.one()) == 1
    assert heavy.end(heavy.one()) == 1
    assert not light.take(9)
    assert not heavy.take(9)
    assert list(ends(broker)) == ["p"]


@pytest.mark.parametrize("name", ["due", "totals", "wake", "next", "other record"])
def test_an_error_at_the_door_publishes_nothing(broker: Broker, name: str) -> None:
    key = broker.keys.prompt("b") if name == "other record" else key_of(broker, name)
    offers = [Publication(job("a"), 9.0), Publication(job("b", route="heavy"), 9.0)]
    with spoilt(broker, key), pytest.raises(CommandRefused, match="WRONGTYPE"):
        broker.publish(offers)
    assert not totals(broker)
    assert not broker.client.exists(broker.keys.due, broker.keys.prompt("a"))
    assert [receipt.status for receipt in broker.publish(offers)] == ["published", "published"]


def test_a_picture_replaces_whatever_sat_at_its_key(broker: Broker, observer: Observer) -> None:
    publish(broker)
    broker.client.hset(broker.keys.image("p", "light"), "of", "another type")
    light = hire(broker)
    assert light.end(light.one()) == 1
    assert observer.image("p", "light") == b"light"


def test_an_error_of_one_hop_does_not_keep_its_mates(broker: Broker) -> None:
    from shared.exchange import Hop

    publish(broker, "p", "q")
    light = hire(broker)
    first, second = light.take(2)
    hops = [Hop(light.drawn(each), "light", "confident", b"x") for each in (first, second)]
    with spoilt(broker, broker.keys.prompt("p")), pytest.raises(CommandRefused):
        broker.commit("light", light.name, hops)
    assert ends(broker) == {"q": ("light", "confident")}
    assert holders(broker) == {light.place(first): light.name}
    assert light.end(first) == 1


def test_scripts_survive_a_server_that_forgot_them(broker: Broker) -> None:
    publish(broker)
    broker.client.script_flush()
    light = hire(broker)
    (entry,) = light.take()
    broker.client.script_flush()
    assert light.end(entry) == 1
