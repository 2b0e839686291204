"""The gateway's desk: offers gather, and events reach whoever waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from services.gateway import following, intake
from services.gateway.desk import Desk
from services.gateway.following import Event
from services.gateway.streams import with_beats
from shared.broker import Broker
from shared.catalog import load_cascade
from shared.config import Settings
from shared.connection import Away, CommandRefused, Unreachable
from shared.embedded import EmbeddedRedis
from shared.errors import MalformedEntry
from shared.exchange import Publication, Receipt
from shared.lookup import Lookup
from shared.messages import REQUEST
from tests.gates import gate_of
from tests.helpers import a_plan, ends, hire, job, publish, put_plan, totals
from tests.servers import folder

CASCADE = load_cascade("tiny")
PATIENCE_S = 30.0
T = TypeVar("T")


def patiently(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, PATIENCE_S))


@asynccontextmanager
async def desk_over(broker: Broker) -> AsyncIterator[Desk]:
    desk = Desk(gate_of(broker), CASCADE)
    await desk.start()
    try:
        yield desk
    finally:
        await desk.stop()


async def heard(desk: Desk, prompt_id: str) -> list[str]:
    return [event.kind for event in [each async for each in desk.follow(prompt_id)]]


async def followed_by(desk: Desk, count: int) -> None:
    while desk.followers < count:
        await asyncio.sleep(0.005)


def test_offers_that_gather_go_in_few_calls_and_each_hears_its_own_answer(broker: Broker) -> None:
    async def offer() -> None:
        async with desk_over(broker) as desk:
            publish(broker, "p7")
            receipts = await asyncio.gather(*(desk.publish(job(f"p{number}"), 20.0) for number in range(200)))
            assert [each.id for each in receipts] == [f"p{number}" for number in range(200)]
            assert {each.id for each in receipts if each.status != "published"} == {"p7"}

    patiently(offer())
    stamps = {broker.client.hget(broker.keys.prompt(f"p{number}"), "published") for number in range(200)}
    assert len(stamps) < 50, "each was offered alone"


def test_a_prompt_that_breaks_a_limit_or_a_record_costs_its_neighbours_nothing(broker: Broker) -> None:
    spoilt = broker.keys.prompt("spoilt")
    broker.client.set(spoilt, "of another type")

    async def offer() -> list[Any]:
        async with desk_over(broker) as desk:
            offers = [desk.publish(job(each), 20.0) for each in ("a", "spoilt", "b")]
            return await asyncio.gather(*offers, desk.publish(job("empty", " "), 20.0), return_exceptions=True)

    first, refused, second, malformed = patiently(offer())
    broker.client.delete(spoilt)
    assert (first.status, second.status) == ("published", "published")
    assert isinstance(refused, CommandRefused)
    assert isinstance(malformed, MalformedEntry)


def test_too_many_offers_on_their_way_are_refused_unseen(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MOST_WAITING", 3)

    async def offer() -> list[str]:
        async with desk_over(broker) as desk:
            receipts = await asyncio.gather(*(desk.publish(job(str(number)), 20.0) for number in range(5)))
            after = await desk.publish(job("after"), 20.0)
            return [each.why or each.status for each in (*receipts, after)]

    assert patiently(offer()) == ["published"] * 3 + ["busy"] * 2 + ["published"]


def test_for_a_client_that_left_nothing_is_published_or_left_open_unless_it_may_come_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, may_go_on = threading.Event(), threading.Event()

    async def offer() -> None:
        async with desk_over(broker) as desk:
            publish_now = desk.broker.publish

            def slowly(publications: Sequence[Publication]) -> list[Receipt]:
                reached.set()
                assert may_go_on.wait(PATIENCE_S)
                return publish_now(publications)

            monkeypatch.setattr(desk.broker, "publish", slowly)
            offers = [asyncio.create_task(desk.publish(job("on its way"), 20.0))]
            assert await asyncio.to_thread(reached.wait, PATIENCE_S)
            offers.append(asyncio.create_task(desk.publish(job("not yet"), 20.0)))
            await asyncio.sleep(0)
            for each in offers:
                each.cancel()
            await asyncio.gather(*offers, return_exceptions=True)
            may_go_on.set()
            await desk.publish(job("who stays"), 20.0)
            reached.clear(), may_go_on.clear()
            keyed = asyncio.create_task(desk.publish(job("keyed", extra={REQUEST: b"a fingerprint"}), 20.0))
            assert await asyncio.to_thread(reached.wait, PATIENCE_S)
            keyed.cancel()
            may_go_on.set()
            await asyncio.gather(keyed, return_exceptions=True)

    patiently(offer())
    states = {each: broker.client.hget(broker.keys.prompt(each), "state") for each in ("who stays", "keyed")}
    assert states == {"who stays": b"open", "keyed": b"open"}
    assert ends(broker) == {"on its way": ("cancelled", "asked")}
    assert totals(broker)["published"] == 3, "and one was never offered"


def test_what_the_door_counted_is_not_counted_again_when_the_line_breaks_after_it(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_plan(broker, a_plan(light_service_s=100.0, light_batch=1))

    async def offer() -> None:
        async with desk_over(broker) as desk:
            publish_now = desk.broker.publish

            def breaks(publications: Sequence[Publication]) -> list[Receipt]:
                publish_now(publications)
                raise Unreachable[0]("the line broke")

            monkeypatch.setattr(desk.broker, "publish", breaks)
            with pytest.raises(Unreachable):
                await desk.publish(job("late"), 5.0)

    patiently(offer())
    found = totals(broker)
    assert (found["offered"], found["refused"]) == (1, 1)


def test_a_server_that_says_not_now_is_asked_again(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def offer() -> str:
        async with desk_over(broker) as desk:
            publish_now = desk.broker.publish

            def once(_: Sequence[Publication]) -> list[Receipt]:
                monkeypatch.setattr(desk.broker, "publish", publish_now)
                raise Away("READONLY You can't write against a read only replica.")

            monkeypatch.setattr(desk.broker, "publish", once)
            return (await desk.publish(job("p"), 20.0)).status

    assert patiently(offer()) == "published"


def test_the_plan_in_force_sends_hard_prompts_straight_to_heavy_unless_they_ask_for_light(broker: Broker) -> None:
    put_plan(broker, a_plan(heavy_direct=1.0))

    async def offer() -> None:
        async with desk_over(broker) as desk:
            await desk.publish(job("auto"), 20.0)
            await desk.publish(job("low", route="light"), 20.0)

    patiently(offer())
    looks = [Lookup(broker).look(each) for each in ("auto", "low")]
    assert [look.stage for look in looks if look] == ["heavy", "light"]


def test_who_waits_and_who_comes_later_hear_the_same_once_each(broker: Broker) -> None:
    async def follow() -> None:
        light, heavy = hire(broker), hire(broker, "heavy")
        async with desk_over(broker) as desk:
            await desk.publish(job("p"), 20.0)
            early = [asyncio.create_task(heard(desk, "p")) for _ in range(3)]
            await followed_by(desk, 3)
            light.escalate(light.one())
            between = asyncio.create_task(heard(desk, "p"))
            await followed_by(desk, 4)
            heavy.end(heavy.one(), why="cascade")
            stories = [*await asyncio.gather(*early, between), await heard(desk, "p")]
            assert stories == [["light", "settled"]] * 5
            assert desk.followers == 0
            assert not desk._follower._waiting, "nothing is kept of those who have gone"

    patiently(follow())


def test_what_is_told_twice_is_heard_once(broker: Broker) -> None:
    async def follow() -> list[str]:
        light = hire(broker)
        async with desk_over(broker) as desk:
            await desk.publish(job("p"), 20.0)
            light.escalate(light.one())
            coming = desk.follow("p")
            kinds: list[str] = [(await anext(coming)).kind]  # by the look; the event comes on top
            desk._follower._tell([Event("light", "p", 0.25), Event("light", "p", 0.25)])
            await desk.cancel("p")
            return kinds + [event.kind async for event in coming]

    assert patiently(follow()) == ["light", "settled"]


def test_events_tell_score_end_and_reason(broker: Broker) -> None:
    async def follow() -> list[Event]:
        light = hire(broker)
        async with desk_over(broker) as desk:
            await desk.publish(job("p"), 20.0)
            coming = desk.follow("p")
            first = asyncio.ensure_future(anext(coming))
            await followed_by(desk, 1)
            light.escalate(light.one(), score=0.125)
            found = [await first]
            await desk.cancel("p")
            return found + [event async for event in coming]

    assert patiently(follow()) == [
        Event("light", "p", 0.125),
        Event("settled", "p", None, "cancelled", "asked"),
    ]


def test_a_lost_event_costs_no_more_than_the_next_look(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_AGAIN_S", 0.02)
    monkeypatch.setattr(following, "LONGEST_WAIT_S", 0.02)

    async def follow() -> list[str]:
        light = hire(broker)
        async with desk_over(broker) as desk:
            monkeypatch.setattr(desk._follower, "_tell", lambda _events: None)
            await desk.publish(job("p"), 20.0)
            waiting = asyncio.create_task(heard(desk, "p"))
            await followed_by(desk, 1)
            light.end(light.one())
            return await waiting

    assert patiently(follow()) == ["settled"]


def test_nobody_waits_for_what_nobody_knows_or_once_streams_are_ended(broker: Broker) -> None:
    async def follow() -> None:
        async with desk_over(broker) as desk:
            assert await heard(desk, "unknown") == []
            await desk.publish(job("p"), 20.0)
            waiting = asyncio.create_task(heard(desk, "p"))
            await followed_by(desk, 1)
            desk.end_streams()
            assert await asyncio.wait_for(waiting, 10.0) == [], "long before its deadline"
            assert await heard(desk, "p") == []

    patiently(follow())


def test_who_is_cut_off_leaves_nothing_behind(broker: Broker) -> None:
    async def follow() -> None:
        async with desk_over(broker) as desk:
            await desk.publish(job("p"), 20.0)
            waiting = asyncio.create_task(heard(desk, "p"))
            await followed_by(desk, 1)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert not desk._follower._waiting

    patiently(follow())


def test_a_desk_outlives_its_redis() -> None:
    async def outlive() -> None:
        with folder() as where, EmbeddedRedis(where, durability="always") as server:
            broker = Broker(Settings(redis_url=server.url, deployment="outlives", node="test"))
            broker.check()
            light = hire(broker)
            async with desk_over(broker) as desk:
                await desk.publish(job("p"), 20.0)
                waiting = asyncio.create_task(heard(desk, "p"))
                await followed_by(desk, 1)
                await asyncio.to_thread(server.stop)
                with pytest.raises(Unreachable):
                    await desk.publish(job("q"), 20.0)
                await asyncio.to_thread(server.start)
                light = hire(broker)
                light.end(light.one())
                assert await waiting == ["settled"]
                assert (await desk.publish(job("q"), 20.0)).status == "published"
            assert ends(broker) == {"p": ("light", "confident")}
            broker.close()

    patiently(outlive())


def test_a_stream_gives_a_sign_of_life_while_nothing_happens() -> None:
    async def slow() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0.2)
        yield 2

    async def collect() -> list[int | None]:
        return [each async for each in with_beats(slow(), beat_s=0.05)]

    found = patiently(collect())
    assert found[0] == 1 and found[-1] == 2
    assert None in found[1:-1]
