"""The gateway's desk: events reach whoever waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.gateway import following
from services.gateway.desk import Desk
from services.gateway.following import Event
from services.gateway.streams import with_beats
from shared.broker import Broker
from shared.config import Settings
from shared.connection import Unreachable
from shared.embedded import EmbeddedRedis
from tests.gates import desk_over, patiently
from tests.helpers import ends, hire, job
from tests.servers import folder


async def heard(desk: Desk, prompt_id: str) -> list[str]:
    return [event.kind for event in [each async for each in desk.follow(prompt_id)]]


async def followed_by(desk: Desk, count: int) -> None:
    while desk.followers < count:
        await asyncio.sleep(0.005)


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
