"""Limits at every door: what is too long, too large or too odd is refused in clear words and not published."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgpack
import pytest
from rich.console import Console

from services.ctl import __main__ as ctl
from services.publisher import checked
from shared.broker import Broker
from shared.errors import CascadeError, MalformedEntry, SettingsError
from shared.exchange import Publication
from shared.observer import Observer
from shared.wire import ITEM_LIMIT, OFFER_LIMIT, PACKED_LIMIT, PROMPT_LIMIT, unpack
from tests.helpers import hire, job, outcomes, publish, totals

TOO_MUCH: Mapping[str, tuple[dict[str, Any], str]] = {
    "long": ({"prompt": "x" * (PROMPT_LIMIT + 1)}, "4001 characters, 4000 are allowed"),
    "empty": ({"prompt": " \n"}, "empty"),
    "bell": ({"prompt": "a \x07 cat"}, r"control character '\x07' at 2"),
    "escape": ({"prompt": "\x1b[31ma cat"}, r"'\x1b'"),
    "surrogate": ({"prompt": "a \ud800 cat"}, "utf-8"),
    "no id": ({"prompt_id": ""}, "no id"),
    "long id": ({"prompt_id": "x" * 201}, "201 characters, 200 are allowed"),
    "id of two lines": ({"prompt_id": "a\nb"}, "control character"),
    "class": ({"priority": 3}, "unknown class b'3'"),
    "seed": ({"seed": 10**40}, "41 digits, 30 are allowed"),
    "width": ({"parameters": {"width": 4096}}, "width is 4096; it must be from 64 to 2048"),
    "odd height": ({"parameters": {"height": 100}}, "height is 100; it must be a multiple of 8"),
    "steps": ({"parameters": {"steps": 0}}, "steps is 0; it must be from 1 to 150"),
    "steps in words": ({"parameters": {"steps": "many"}}, "steps is 'many'"),
    "true steps": ({"parameters": {"steps": True}}, "steps is True"),
    "guidance": ({"parameters": {"guidance": float("inf")}}, "guidance is inf"),
    "parameters": ({"parameters": {str(i): i for i in range(ITEM_LIMIT + 1)}}, "65 parameters, 64 are allowed"),
    "a parameter": ({"parameters": {"x": "y" * PACKED_LIMIT}}, "larger than 16384 bytes"),
    "message": ({"extra": {b"mood": b"x" * OFFER_LIMIT}}, "bytes, 49152 are allowed"),
    "fields": ({"extra": {str(i).encode(): b"" for i in range(300)}}, "303 fields, 256 are allowed"),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_what_breaks_a_limit_is_told_at_the_door_and_nothing_is_published(broker: Broker, name: str) -> None:
    fields, said = TOO_MUCH[name]
    offers = [Publication(job("fine"), 9.0), Publication(job(**fields), 9.0)]
    with pytest.raises(MalformedEntry) as told:
        broker.publish(offers)
    assert said in str(told.value)
    assert not totals(broker)
    assert broker.publish(offers[:1])[0].status == "published"


@pytest.mark.parametrize("allowance_s", [float("inf"), float("nan"), -1.0, 1e9])
def test_a_promise_must_be_a_time(broker: Broker, allowance_s: float) -> None:
    with pytest.raises(MalformedEntry, match="no time to be promised"):
        publish(broker, allowance_s=allowance_s)


def test_what_just_keeps_the_limits_goes_all_the_way(broker: Broker) -> None:
    fields: dict[str, Any] = {"prompt": "ü" * PROMPT_LIMIT, "seed": -(2**63), "priority": 2}
    parameters = {"width": 2048, "height": 64, "steps": 150, "guidance": 50, "x": "y" * 15_000}
    publish(broker, "x" * 200, parameters=parameters, **fields)
    light, heavy = hire(broker), hire(broker, "heavy")
    light.escalate(light.one())
    entry = heavy.one()
    assert dict(entry.job.parameters) == parameters
    heavy.end(entry)
    assert [(each.end, each.prompt) for each in outcomes(broker)] == [("heavy", fields["prompt"])]


@pytest.mark.parametrize(
    "data",
    [
        b"\xdd\xff\xff\xff\xff",  # four thousand million items
        b"\xdb\x7f\xff\xff\xffabc",
        b"\xc9\x7f\xff\xff\xff\x05abc",
        b"\xd6\xff\x00\x00\x00\x00",  # a time: an extension type
        b"\x81\x01\x02",  # a key that is no text
        b"\x91" * 9_000,
        msgpack.packb("x" * (PACKED_LIMIT + 1)),
    ],
)
def test_unpacking_believes_no_length_and_builds_plain_values_only(data: bytes) -> None:
    with pytest.raises((ValueError, msgpack.UnpackException)):
        unpack(data)


def test_a_dead_letter_of_a_huge_entry_is_small(broker: Broker) -> None:
    fields: Any = {f"field-{i}".encode(): b"x" * 30_000 for i in range(100)}
    broker.client.xadd(broker.keys.streams["light"][1], fields | {b"prompt": b"a cat"})
    light = hire(broker)
    (broken,) = light.claim().broken
    broker.fail("light", light.name, broken, 9.0)
    ((_, letter),) = Observer(broker).rows(broker.keys.dead, "0", 10)
    assert b"bytes, 65536 are allowed" in letter[b"reason"]
    assert 20_000 < sum(len(name) + len(value) for name, value in letter.items()) < 40_000


def test_a_publisher_names_the_line_of_a_prompt_that_no_door_would_take(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    with pytest.raises(SettingsError, match=r"prompts.txt:2: the prompt holds the control character '\\x00' at 1"):
        checked(["a cat", "a\0dog"], file)
    assert checked(["a cat", "a\tdog"], file) == ["a cat", "a\tdog"]
    trace, prompts = tmp_path / "trace.csv", tmp_path / "prompts.txt"
    trace.write_text("arrival_ms,prompt_index\n0,0\n")
    prompts.write_text("x" * (PROMPT_LIMIT + 1))
    command = [sys.executable, "-m", "services.publisher", "--trace", str(trace), "--prompts", str(prompts)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr.count("\n")) == (2, 1)
    assert "prompts.txt:1: the prompt has 4001 characters" in said.stderr


def test_cancel_at_the_command_line_says_what_it_did(broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    publish(broker, "p", "done")
    light = hire(broker)
    broker.cancel("done")

    def ask(prompt_id: str) -> str:
        given = ctl.options().parse_args(["cancel", prompt_id])
        given.action(broker, given, Console())
        return capsys.readouterr().out

    assert ask("p") == "p is cancelled\n"
    for prompt_id, said in (("p", "ended already: cancelled"), ("nobody", "nobody knows such a prompt")):
        with pytest.raises(CascadeError, match=said):
            ask(prompt_id)
    assert not light.take(4)
