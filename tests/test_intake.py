"""What is offered at the gateway's desk: many at once, each with its own answer, and nothing for who has left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from services.gateway import intake
from shared.broker import Broker
from shared.connection import Away, CommandRefused, Unreachable
from shared.errors import MalformedEntry
from shared.exchange import Publication, Receipt
from shared.lookup import Lookup
from shared.messages import REQUEST
from tests.gates import PATIENCE_S, desk_over, patiently
from tests.helpers import a_plan, ends, job, publish, put_plan, totals


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
            reached.clear()
            may_go_on.clear()
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
