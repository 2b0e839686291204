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
from tests.helpers import Hand, by_hand, ends, hire, publish


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
