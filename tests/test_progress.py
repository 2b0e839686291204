"""What a start and a run show of themselves: in place on a terminal, as lines elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from deploy.progress import LINE_EVERY_S, in_words, timed, workers_ready
from deploy.serve import SILENT, awaited
from services.gateway.app import lacking
from shared.config import Resident, Settings
from tests.helpers import a_plan

WORKERS = [
    {"stage": "light", "ready": "1"},
    {"stage": "light", "ready": "0"},
    {"stage": "heavy", "ready": "1", "error": "of the past"},
    {"stage": "heavy"},
]


@pytest.mark.parametrize(
    ("resident", "words"),
    [(True, "light 1 of 3, heavy 1 of 3"), ("host", "light 1 of 3, heavy 1 of 3"), (False, "either 2 of 3")],
)
def test_workers_are_ready_once_their_model_is_loaded(resident: Resident, words: str) -> None:
    assert in_words(workers_ready(WORKERS, Settings(slots=3, resident=resident))) == f"workers ready: {words}"


def test_a_start_waits_for_the_gateway_then_the_light_model_then_the_plan() -> None:
    assert awaited(f"{SILENT} (Connection refused)") == "the gateway"
    assert awaited("Redis at 127.0.0.1:6379 does not answer: Connection refused") == "Redis"
    nothing = lacking(None, [])
    assert awaited("; ".join(nothing)) == "the light model"
    plan = a_plan(assignment={"a:0": "heavy"})
    assert awaited("; ".join(lacking(plan, WORKERS[2:]))) == "the light model", "a heavy one that is loaded draws none"
    light = [{"stage": "light", "ready": "1", "node": "a", "slot": "0"}]
    assert awaited("; ".join(lacking(None, light))) == "the plan"
    assert awaited("; ".join(lacking(plan, light))) == "the plan"


def test_a_start_has_a_line_for_what_is_new_and_one_now_and_then() -> None:
    out, now = io.StringIO(), [100.0]
    with timed(Console(file=out, width=20), lambda: now[0]) as say:
        for seconds, words in (
            (0.0, "light 0 of 2"),
            (1.0, "light 0 of 2"),
            (2.0, "light :a: 1 of 2"),
            (2.0 + LINE_EVERY_S, "light :a: 1 of 2"),
        ):
            now[0] = 100.0 + seconds
            say(words)
    assert out.getvalue().splitlines() == [
        "   0 s  light 0 of 2",
        "   2 s  light :a: 1 of 2",
        f"{2 + LINE_EVERY_S:4.0f} s  light :a: 1 of 2",
    ]


def test_on_a_terminal_a_start_ends_with_what_it_said_last() -> None:
    out, now = io.StringIO(), [100.0]
    with timed(Console(file=out, width=80, force_terminal=True), lambda: now[0]) as say:
        say("light 0 of 2")
        now[0] = 107.0
        say("light 2 of 2")
    assert "   7 s  light 2 of 2" in out.getvalue().splitlines()[-2:][0]
