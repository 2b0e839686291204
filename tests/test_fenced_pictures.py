"""Pictures kept outside the deployment's Redis: who was fenced out while drawing leaves none there."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.broker import Broker
from shared.config import Settings
from shared.embedded import EmbeddedRedis
from shared.exchange import Hop
from shared.messages import Entry
from shared.observer import Observer
from shared.schema import Stage
from tests.helpers import Hand, by_hand, by_hand_alike, ends, hire, publish


@pytest.fixture(params=["second", "folder"])
def keeping(request: pytest.FixtureRequest, oldest_server: EmbeddedRedis, tmp_path: Path) -> Iterator[Broker]:
    """A deployment whose pictures are kept elsewhere."""
    second = f"{oldest_server.url.rpartition('?')[0]}?db=1"
    place = second if request.param == "second" else str(tmp_path / "pictures")
    name = f"f{uuid.uuid4().hex[:6]}"
    made = Broker(Settings(redis_url=oldest_server.url, deployment=name, pictures_at=place))
    made.check()
    yield made
    made.client.flushall()
    made.close()


def end_with(hand: Hand, entry: Entry, picture: bytes) -> int:
    score = 0.75 if hand.stage == "light" else None
    hop = Hop(hand.drawn(entry, score), hand.stage, "confident", picture)
    return hand.broker.commit(hand.stage, hand.name, [hop])[0]


@pytest.mark.parametrize("answered", [True, False])
def test_one_who_was_fenced_out_overwrites_no_picture_and_leaves_none(keeping: Broker, answered: bool) -> None:
    publish(keeping)
    paused, other = hire(keeping), hire(keeping)
    entry = paused.one()
    paused.die()
    keeping.reclaim()
    again = other.one()
    if answered:
        assert end_with(other, again, b"the answer") == 1
    assert end_with(paused, entry, b"too late") == 0
    assert Observer(keeping).image("p", "light") == (b"the answer" if answered else None)


def test_an_entry_that_took_the_id_of_another_prompt_leaves_no_picture_in_its_place(keeping: Broker) -> None:
    publish(keeping)
    by_hand(keeping, {"id": "p", "prompt": "another", "published": "1.0", "deadline": f"{keeping.now() + 60}"})
    light = hire(keeping)
    first, second = light.take(2)
    assert end_with(light, first, b"the answer") == 1
    assert end_with(light, second, b"another") == 0
    assert Observer(keeping).image("p", "light") == b"the answer"


@pytest.mark.parametrize(("stage", "priority"), [("light", 0), ("heavy", 1)])
def test_nor_does_one_in_another_stream_that_has_its_entrys_id_too(
    keeping: Broker, stage: Stage, priority: int
) -> None:
    publish(keeping)
    light = hire(keeping)
    entry = light.one()
    by_hand_alike(keeping, entry, stage, priority)
    hand = hire(keeping, stage)
    alike = hand.one()
    assert end_with(hand, alike, b"another") == 0
    assert Observer(keeping).image("p", stage) is None
    assert end_with(light, entry, b"the answer") == 1
    assert ends(keeping) == {"p": ("light", "confident")}


@pytest.mark.parametrize("priority", [0, 2])
def test_nor_an_upgrade_where_the_keeper_answered_before_its_owner(keeping: Broker, priority: int) -> None:
    publish(keeping, route="heavy")
    heavy = hire(keeping, "heavy")
    entry = heavy.one()
    by_hand_alike(keeping, entry, "heavy", priority)
    alike = heavy.one()
    keeping.hand_back("heavy", heavy.name, [alike])
    assert keeping.overtake("p", "heavy", 1, entry.entry_id, "dropped", "deadline")
    assert end_with(heavy, alike, b"another") == 0
    assert Observer(keeping).image("p", "heavy") is None
    assert end_with(heavy, entry, b"better") == 2
    assert Observer(keeping).image("p", "heavy") == b"better"


def test_what_is_ours_is_kept_whether_published_overtaken_or_written_by_hand(keeping: Broker) -> None:
    publish(keeping, "published")
    publish(keeping, "overtaken", route="heavy")
    now = keeping.now()
    by_hand(keeping, {"id": "by-hand", "prompt": "x", "published": f"{now}", "deadline": f"{now + 60}"})
    light, heavy = hire(keeping), hire(keeping, "heavy")
    for entry in light.take(2):
        assert end_with(light, entry, b"light") == 1
    entry = heavy.one()
    assert keeping.overtake("overtaken", "heavy", 1, entry.entry_id, "dropped", "deadline")
    assert end_with(heavy, entry, b"heavy") == 2
    observer = Observer(keeping)
    assert [observer.image(each, "light") for each in ("published", "by-hand")] == [b"light", b"light"]
    assert observer.image("overtaken", "heavy") == b"heavy"
    assert set(ends(keeping)) == {"published", "by-hand", "overtaken"}
