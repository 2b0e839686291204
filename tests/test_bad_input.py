"""What comes in from outside: adopted where it can be, failed with its bytes where it cannot."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from shared.broker import Broker
from shared.observer import Observer
from tests.helpers import ALLOWANCE_S, Hand, by_hand, ends, hire, holders, outcomes, publish, totals

MALFORMED: dict[str, dict[Any, Any]] = {
    "no prompt": {"id": "bad", "text": "a cat"},
    "empty prompt": {"id": "bad", "prompt": "  "},
    "a prompt of 10,000 characters": {"id": "bad", "prompt": "x" * 10_000},
    "bad utf-8": {"id": "bad", "prompt": b"\xff\xfe cat"},
    "bad utf-8 in the id": {"id": b"\xff", "prompt": "a cat"},
    "unknown major version": {"id": "bad", "prompt": "a cat", "version": "2.0"},
    "garbage in visits": {"id": "bad", "prompt": "a cat", "visits": b"\xc1\x00"},
    "visits of no visits": {"id": "bad", "prompt": "a cat", "visits": msgpack.packb([{"stage": "light"}])},
    "a visit of batch 0": {"id": "bad", "prompt": "a cat", "visits": msgpack.packb([("light", "w", 1.0, 2.0, 0)])},
    "a score that is text": {"id": "bad", "prompt": "a", "visits": msgpack.packb([("light", "w", 1.0, 2.0, 1, "x")])},
    "nested visits": {"id": "bad", "prompt": "a cat", "visits": b"\x91" * 5_000},
    "garbage in parameters": {"id": "bad", "prompt": "a cat", "parameters": b"\xc1"},
    "parameters that are no map": {"id": "bad", "prompt": "a cat", "parameters": msgpack.packb([1])},
    "a deadline that is no number": {"id": "bad", "prompt": "a cat", "deadline": "soon"},
    "a deadline that is not finite": {"id": "bad", "prompt": "a cat", "deadline": "nan"},
    "an infinite deadline": {"id": "bad", "prompt": "a cat", "deadline": "inf", "published": "1"},
    "a seed that is no number": {"id": "bad", "prompt": "a cat", "seed": "lucky"},
    "unknown route": {"id": "bad", "prompt": "a cat", "route": "scenic"},
    "thousands of fields": {"id": "bad", "prompt": "a cat"} | {f"field-{number}": "x" for number in range(5_000)},
}


def as_a_worker(hand: Hand, batch: int = 4) -> list[str]:
    """What a worker does with a claim: adopt, draw, settle; malformed ones end failed."""
    claim = hand.claim(batch)
    for broken in claim.broken:
        hand.broker.fail(hand.stage, hand.name, broken, ALLOWANCE_S)
    entries = [hand.broker.adopt(hand.stage, entry, ALLOWANCE_S) for entry in claim.entries]
    assert [hand.end(entry) for entry in entries] == [1] * len(entries)
    return [entry.job.id for entry in entries]


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_entry_fails_with_its_bytes_and_a_good_one_beside_it_is_served(
    broker: Broker, observer: Observer, name: str
) -> None:
    entry_id = by_hand(broker, MALFORMED[name])
    publish(broker, "good")
    assert as_a_worker(hire(broker)) == ["good"]
    (bad,) = [outcome for outcome in outcomes(broker) if outcome.id != "good"]
    assert (bad.end, bad.why) == ("failed", "malformed")
    assert bad.finished <= bad.deadline
    assert ends(broker)["good"] == ("light", "confident")
    ((_, letter),) = observer.rows(broker.keys.dead, "0", 10)
    assert letter[b"reason"]
    if "prompt" in MALFORMED[name]:
        prompt = MALFORMED[name]["prompt"]
        assert letter[b"prompt"] == (prompt if isinstance(prompt, bytes) else prompt.encode())[:4096]
    assert not holders(broker)
    assert entry_id not in [row[0].decode() for row in observer.rows(broker.keys.streams["light"][1], "0", 10)]
    assert totals(broker)["offered"] == 2


@pytest.mark.parametrize("stage", ["light", "heavy"])
def test_an_entry_with_only_a_prompt_is_adopted_and_adopted_twice_it_is_the_same(broker: Broker, stage: Any) -> None:
    entry_id = by_hand(broker, {"prompt": "a dog"}, stage, 2)
    hand = hire(broker, stage)
    entry = hand.one()
    first = broker.adopt(stage, entry, ALLOWANCE_S)
    assert broker.adopt(stage, entry, ALLOWANCE_S + 7) == first
    assert first.job.id == f"{stage}-2-{entry_id}"
    assert first.job.published == pytest.approx(int(entry_id.split("-")[0]) / 1000)
    assert first.job.deadline == pytest.approx(first.job.published + ALLOWANCE_S)
    assert broker.client.zscore(broker.keys.due, first.job.id) == pytest.approx(first.job.deadline)
    assert hand.end(first) == 1
    (outcome,) = outcomes(broker)
    assert (outcome.prompt, outcome.end, outcome.priority, outcome.deadline) == (
        "a dog",
        stage,
        outcome.priority,
        first.job.deadline,
    )
    assert totals(broker)["offered"] == 1


def test_an_entry_by_hand_with_id_and_times_is_adopted_when_it_is_settled(broker: Broker) -> None:
    now = broker.now()
    times = {"published": f"{now:.6f}", "deadline": f"{now + 9:.6f}"}
    for prompt_id in ("ends", "escalates"):
        by_hand(broker, {"id": prompt_id, "prompt": "a dog"} | times)
    light, heavy = hire(broker), hire(broker, "heavy")
    ending, escalating = light.take(2)
    assert [light.end(ending), light.escalate(escalating)] == [1, 1]
    assert heavy.end(heavy.one()) == 1
    assert {outcome.id: outcome.deadline for outcome in outcomes(broker)} == dict.fromkeys(
        ("ends", "escalates"), pytest.approx(now + 9, abs=1e-5)
    )
    assert totals(broker)["offered"] == 2


def test_an_id_written_by_hand_a_second_time_changes_nothing(broker: Broker) -> None:
    publish(broker, "p")
    by_hand(broker, {"id": "p", "prompt": "another"})
    light = hire(broker)
    first, second = light.take(2)
    assert [light.end(second), light.end(first)] == [0, 1]
    assert [outcome.prompt for outcome in outcomes(broker)] == ["a cat"]
    by_hand(broker, {"id": "p", "prompt": ""})
    assert as_a_worker(light) == []
    assert ends(broker) == {"p": ("light", "confident")}
    assert not holders(broker)


def test_unknown_fields_are_passed_on_to_the_heavy_stage_and_the_outcome(broker: Broker, observer: Observer) -> None:
    by_hand(broker, {"id": "p", "prompt": "a dog", "version": "1.7", "mood": b"\xff blue"})
    light, heavy = hire(broker), hire(broker, "heavy")
    light.escalate(broker.adopt("light", light.one(), ALLOWANCE_S))
    entry = heavy.one()
    assert dict(entry.job.extra) == {b"mood": b"\xff blue"}
    heavy.end(entry)
    ((_, fields),) = observer.rows(broker.keys.done, "0", 10)
    assert fields[b"mood"] == b"\xff blue"


def test_a_field_called_end_does_not_change_how_a_prompt_ended(broker: Broker) -> None:
    by_hand(broker, {"prompt": "a dog", "end": "heavy", "why": "because", "finished": "never"})
    as_a_worker(hire(broker))
    assert list(ends(broker).values()) == [("light", "confident")]
