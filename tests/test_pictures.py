"""Pictures: within their time and their bytes, and behind one setting in another place."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from services.keeper import Keeper
from shared.broker import Broker
from shared.config import Settings
from shared.connection import CommandRefused, Unreachable
from shared.embedded import EmbeddedRedis
from shared.exchange import Hop
from shared.messages import End
from shared.observer import Observer
from shared.pictures import FolderPictures, open_pictures
from shared.schema import Stage
from tests.helpers import ALLOWANCE_S, Hand, ends, hire, logger, publish, totals
from tests.processes import until

KIB = 1024
PICTURE = 40 * KIB
BUDGET = 0.125  # MiB: three pictures and a bit
PLACES = ["same", "second", "folder"]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, oldest_server: EmbeddedRedis, tmp_path: Path) -> str:
    second = f"{oldest_server.url.rpartition('?')[0]}?db=1"
    return {"same": "", "second": second, "folder": str(tmp_path / "pictures")}[request.param]


@pytest.fixture
def keeping(oldest_server: EmbeddedRedis, place: str) -> Iterator[Broker]:
    """A deployment whose pictures are kept at the place, within BUDGET."""
    name = f"p{uuid.uuid4().hex[:6]}"
    made = Broker(Settings(redis_url=oldest_server.url, deployment=name, pictures_at=place, picture_budget_mib=BUDGET))
    made.check()
    yield made
    made.client.flushall()
    made.close()


def drawn(broker: Broker, *ids: str, escalate: bool = False) -> Hand:
    """Prompts whose light picture is made, one after the other."""
    light = hire(broker)
    for prompt_id in ids:
        publish(broker, prompt_id)
        entry = light.drawn(light.one(), 0.25)
        end, why = (None, "escalate") if escalate else ("light", "confident")
        hop = Hop(entry, cast("End | None", end), why, prompt_id.encode() * PICTURE)
        assert broker.commit("light", light.name, [hop]) == [1]
    return light


def kept(broker: Broker, ids: str, stage: Stage = "light") -> str:
    pictures = open_pictures(broker).get((each, stage) for each in ids)
    assert all(data is None or data == each.encode() * PICTURE for each, data in zip(ids, pictures, strict=True))
    return "".join(each for each, data in zip(ids, pictures, strict=True) if data)


def test_a_hop_leaves_its_picture_where_the_setting_says(keeping: Broker, place: str) -> None:
    light, heavy = drawn(keeping, "a", escalate=True), hire(keeping, "heavy")
    assert heavy.end(heavy.one()) == 1
    observer = Observer(keeping)
    assert observer.images([("a", "light"), ("a", "heavy"), ("b", "light")]) == [b"a" * PICTURE, b"heavy", None]
    assert bool(keeping.client.exists(keeping.keys.image("a", "light"))) is (place == "")
    if place.startswith("unix"):
        elsewhere = Broker(keeping.settings.model_copy(update={"redis_url": place, "pictures_at": ""}))
        for stage, longest_s in (("light", 600 + ALLOWANCE_S), ("heavy", 600)):
            assert 0 < elsewhere.client.pttl(elsewhere.keys.image("a", cast(Stage, stage))) <= 1000 * longest_s
        elsewhere.close()
    assert keeping.client.exists(keeping.keys.pictures) == (place == "")
    assert light.take() == []


def test_pictures_over_the_budget_go_the_oldest_first(keeping: Broker) -> None:
    drawn(keeping, *"abcde")
    assert kept(keeping, "abcde") == "abcde", "until the keeper looks"
    age(keeping, "abcde")
    assert keeping.expire_pictures() == 2
    assert kept(keeping, "abcde") == "cde"
    assert keeping.expire_pictures() == 0


def age(broker: Broker, ids: str) -> None:
    """Files made in the same moment differ by a minute; Redis knows the order in which it got them."""
    pictures = open_pictures(broker)
    if isinstance(pictures, FolderPictures):
        for place, each in enumerate(ids):
            made = time.time() - 60 * (len(ids) - place)
            # Read once, a moment later: few file systems note every further reading.
            os.utime(pictures._file((each, "light")), (made + 1, made))


def test_what_was_fetched_lately_outlives_what_was_made_later(keeping: Broker) -> None:
    drawn(keeping, *"abcde")
    age(keeping, "abcde")
    if not isinstance(open_pictures(keeping), FolderPictures):
        time.sleep(4.0)  # Redis counts in seconds when a key was read last
    assert Observer(keeping).image("a", "light")
    assert keeping.expire_pictures() == 2
    assert kept(keeping, "abcde") == "ade"


def test_a_picture_of_an_open_prompt_is_never_dropped_for_its_bytes(keeping: Broker) -> None:
    drawn(keeping, *"abc", escalate=True)
    drawn(keeping, *"xyz")
    age(keeping, "abcxyz")
    keeping.expire_pictures()
    assert kept(keeping, "abcxyz") == "abc", "the three open ones fill the budget"
    heavy = hire(keeping, "heavy")
    for entry in heavy.take(3):
        heavy.end(entry)
    drawn(keeping, "d")
    assert keeping.expire_pictures() == 1
    assert kept(keeping, "abcd") == "bcd", "closed, the oldest goes"


def test_pictures_whose_time_is_over_are_gone_and_leave_the_accounts(keeping: Broker, place: str) -> None:
    short = Broker(keeping.settings.model_copy(update={"picture_ttl_s": 0.3}))
    drawn(short, "a", "b")
    time.sleep(0.4)
    assert kept(short, "ab") == ""
    assert short.expire_pictures() == 2
    if place == "":
        assert int(cast(bytes, short.client.get(short.keys.picture_bytes))) == 0
        assert not short.client.exists(short.keys.pictures)
    short.close()


def test_a_picture_lives_as_long_as_its_prompt_is_open_and_its_own_time_on_top(keeping: Broker) -> None:
    short = Broker(keeping.settings.model_copy(update={"picture_ttl_s": 0.2}))
    drawn(short, "o", escalate=True)
    drawn(short, "c")
    time.sleep(0.3)
    short.expire_pictures()
    assert kept(short, "oc") == "o"
    short.close()


def test_the_answer_of_last_resort_outlives_a_time_shorter_than_the_allowance(keeping: Broker) -> None:
    short = Broker(keeping.settings.model_copy(update={"picture_ttl_s": 1.5}))
    publish(short, "u", allowance_s=2.2)
    light = hire(short)
    hop = Hop(light.drawn(light.one(), 0.25), None, "escalate", b"u" * PICTURE)
    assert short.commit("light", light.name, [hop]) == [1]
    keeper = Keeper(short.settings, {"light": 0.1, "heavy": 2.0}, logger)
    until(lambda: keeper.step() and "u" in ends(short), "the keeper answers")
    keeper.leave()
    assert ends(short)["u"] == ("light", "deadline")
    assert kept(short, "u") == "u"
    until(lambda: kept(short, "u") == "", "it goes in the end")
    short.close()


def test_many_pictures_that_must_stay_hide_none_that_must_go(keeping: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.pictures.AT_ONCE", 2)
    drawn(keeping, *"abcd", escalate=True)  # older than all, open, and already too many
    drawn(keeping, *"xyz")
    age(keeping, "abcdxyz")
    assert keeping.expire_pictures() == 3
    assert kept(keeping, "abcdxyz") == "abcd"


def test_a_cancelled_prompts_picture_is_not_kept(keeping: Broker) -> None:
    publish(keeping)
    light = hire(keeping)
    entry = light.one()
    keeping.cancel("p")
    assert light.end(entry) == 0
    assert Observer(keeping).image("p", "light") is None


def test_a_picture_made_twice_counts_once(keeping: Broker, place: str) -> None:
    pictures = open_pictures(keeping)
    pictures.put({("a", "light"): b"1" * 100})
    pictures.put({("a", "light"): b"2" * 100})
    assert pictures.get([("a", "light")]) == [b"2" * 100]
    if place == "":
        assert int(cast(bytes, keeping.client.get(keeping.keys.picture_bytes))) == 100
    pictures.drop([("a", "light"), ("nobody", "heavy")])
    assert pictures.get([("a", "light")]) == [None]


def test_the_keeper_keeps_to_the_budget_and_goes_on_where_the_place_is_away(keeping: Broker) -> None:
    drawn(keeping, *"abcdef")
    keeper = Keeper(keeping.settings, {"light": 0.1, "heavy": 2.0}, logger)
    keeper.step()
    assert len(kept(keeping, "abcdef")) == 3
    keeper.leave()
    away = keeping.settings.model_copy(update={"pictures_at": "unix:///nowhere/redis.sock"})
    keeper = Keeper(away, {"light": 0.1, "heavy": 2.0}, logger)
    publish(keeping, "late", allowance_s=0.0)
    keeper.step()
    assert ends(keeping)["late"] == ("dropped", "deadline")
    keeper.leave()


def test_where_pictures_cannot_be_put_the_prompt_stays_in_hand(oldest_server: EmbeddedRedis) -> None:
    for place in ("unix:///nowhere/redis.sock", "/proc/nowhere"):
        broker = Broker(Settings(redis_url=oldest_server.url, deployment="away", pictures_at=place))
        broker.check()
        publish(broker)
        light = hire(broker)
        entry = light.one()
        with pytest.raises(Unreachable):
            light.end(entry)
        assert light.beat(entry).entries == {entry.place}
        assert not ends(broker)
        broker.client.flushdb()
        broker.close()


@pytest.mark.parametrize("prompt_id", ["../../etc/passwd", ".", "a/b", "ü" * 200, "x" * 200, "%2e%2e", "a@heavy"])
def test_no_id_leads_out_of_the_folder_or_to_anothers_picture(tmp_path: Path, prompt_id: str) -> None:
    pictures = FolderPictures(tmp_path / "pictures", Settings())
    pictures.put({(prompt_id, "light"): b"mine", ("a", "heavy"): b"another's"})
    assert pictures.get([(prompt_id, "light"), (prompt_id, "heavy"), ("a", "heavy")]) == [b"mine", None, b"another's"]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert all(path.resolve().is_relative_to(tmp_path / "pictures") for path in files)


@pytest.mark.parametrize("limit_mib", [0, 100])
def test_the_budget_is_a_quarter_of_the_memory_limit(oldest_server: EmbeddedRedis, limit_mib: int) -> None:
    broker = Broker(Settings(redis_url=oldest_server.url, deployment="quarter"))
    try:
        broker.client.config_set("maxmemory", limit_mib * 2**20)
        pictures: Any = open_pictures(broker)
        assert pictures._budget() == (limit_mib // 4 or 256) * 2**20
    finally:
        broker.client.config_set("maxmemory", 0)
        broker.close()


@pytest.mark.parametrize("name", ["pictures", "picture_bytes"])
def test_an_error_in_the_accounts_leaves_the_prompt_where_it_was(broker: Broker, name: str) -> None:
    publish(broker)
    light = hire(broker)
    entry = light.one()
    key: str = getattr(broker.keys, name)
    broker.client.lpush(key, "of another type")
    with pytest.raises(CommandRefused, match="WRONGTYPE"):
        light.end(entry)
    broker.client.delete(key)
    assert light.end(entry) == 1
    assert totals(broker)["light"] == 1


def test_a_count_that_is_no_number_leaves_no_settled_prompt_behind(broker: Broker) -> None:
    publish(broker)
    light = hire(broker)
    entry = light.one()
    broker.client.set(broker.keys.picture_bytes, "no number")
    assert light.end(entry) == 1
    assert totals(broker)["light"] == 1
    assert broker.client.xlen(broker.keys.streams["light"][1]) == 0
    for spoilt in ("no number", "1.5", "9" * 40):
        broker.client.set(broker.keys.picture_bytes, spoilt)
        assert broker.expire_pictures() == 0
        assert broker.client.get(broker.keys.picture_bytes) == b"5", "counted anew"


def test_the_budget_holds_on_every_server(broker: Broker) -> None:
    small = Broker(broker.settings.model_copy(update={"picture_budget_mib": BUDGET}))
    drawn(small, *"abcde")
    assert small.expire_pictures() == 2
    assert kept(small, "abcde") == "cde"
    assert int(cast(bytes, small.client.get(small.keys.picture_bytes))) == 3 * PICTURE
    small.close()


def test_a_folder_remembers_every_fetch_whatever_its_file_system_does(tmp_path: Path) -> None:
    pictures = FolderPictures(tmp_path, Settings())
    pictures.put({("a", "light"): b"webp"})
    seen: list[float] = []
    for _ in range(3):
        time.sleep(0.02)
        pictures.get([("a", "light")])
        seen.append(pictures._file(("a", "light")).stat().st_atime)
    assert seen[0] < seen[1] < seen[2]
