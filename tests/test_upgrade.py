"""Two versions of the messages side by side, in processes of their own trees: each prompt is answered exactly once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.runner import environment_of
from deploy.supervision import ROOT
from shared.broker import Broker
from shared.config import Settings
from shared.embedded import EmbeddedRedis
from shared.messages import Outcome
from shared.plans import Plan
from shared.schema import STAGES, VERSION, Stage, kept_for
from tests.conftest import fresh_deployment
from tests.helpers import a_plan, by_hand, ends, holders, outcomes, publish, put_plan
from tests.processes import LONG_S, service, settings_for, until, worker

pytestmark = pytest.mark.live

OURS, THEIRS = {"light": 0, "heavy": 1}, {"light": 2, "heavy": 3}  # slots
IDLE_CALLS = 60  # of scripts in two seconds, by four workers that have nothing to do; a hot loop makes thousands


@pytest.fixture
def here(oldest_server: EmbeddedRedis) -> Iterator[Broker]:
    yield from fresh_deployment(oldest_server)


def tree_of(folder: Path, version: str) -> Path:
    """A copy of this tree whose messages are of another version, with a field more that ours does not know."""
    for room in ("shared", "services"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    for room in ("planner", "models", "traces"):
        (folder / room).symlink_to(ROOT / room)
    for name, old, new in (
        ("schema", f'VERSION: Final = "{VERSION}"', f'VERSION: Final = "{version}"'),
        ("messages", '{"version": VERSION, ', '{"version": VERSION, "tone": "warm", '),
        ("plans", "    version: int = 0\n", '    version: int = 0\n    mood: str = "calm"\n'),
    ):
        file = folder / "shared" / f"{name}.py"
        text = file.read_text()
        assert old in text, f"{name}.py has changed: what makes its messages of another version?"
        file.write_text(text.replace(old, new))
    return folder


def plan_for(version: int, light: int, heavy: int) -> Plan:
    """Light on one slot, heavy on another; every light picture escalates."""
    assignment: dict[str, Stage] = {f"test:{light}": "light", f"test:{heavy}": "heavy"}
    return replace(a_plan(version=version, light_batch=2, heavy_batch=2, assignment=assignment), threshold=2.0)


class Cast:
    """Workers of both versions for both stages, and prompts from the doors of both."""

    def __init__(self, broker: Broker, tree: Path, stack: ExitStack) -> None:
        self.broker, self.tree, self._stack = broker, tree, stack
        self.settings = settings_for(broker, slots=4, deadline_s=None)

    def start(self, root: Path) -> None:
        slots = THEIRS if root == self.tree else OURS
        for stage in STAGES:
            self._stack.enter_context(worker(self.settings, stage, slots[stage], root=root))

    def submit(self, prompt: str, deadline_s: float = LONG_S) -> None:
        """A prompt through the other version's door."""
        command = [sys.executable, "-m", "services.ctl", "--deadline-s", str(deadline_s), "submit", prompt]
        environment = {**os.environ, **environment_of(self.settings)}
        subprocess.run(command, cwd=self.tree, env=environment, check=True, capture_output=True, timeout=120)

    def settled(self, count: int) -> list[Outcome]:
        until(lambda: len(outcomes(self.broker)) >= count, f"{count} prompts are settled")
        ends(self.broker)  # none twice
        return outcomes(self.broker)


def slots_of(outcome: Outcome) -> tuple[int, ...]:
    return tuple(int(visit.worker.rsplit("-", 3)[1]) for visit in outcome.visits)


def heard_by(broker: Broker, slots: set[int]) -> None:
    """Wait until who drew under the last plan has given up its slot."""

    def held() -> set[int]:
        return {slot for slot in range(4) if broker.client.exists(broker.keys.slot("test", slot))}

    until(lambda: held() == slots, "the plan is obeyed")


def raw_outcomes(broker: Broker) -> dict[str, dict[bytes, bytes]]:
    rows: Any = broker.client.xrange(broker.keys.done)
    return {fields[b"prompt"].decode(): fields for _, fields in rows}


def test_a_newer_minor_and_ours_serve_each_others_prompts(here: Broker, tmp_path: Path) -> None:
    with ExitStack() as stack:
        cast = Cast(here, tree_of(tmp_path / "newer", "1.1"), stack)
        cast.start(ROOT)
        cast.start(cast.tree)
        ways = ((OURS["light"], THEIRS["heavy"]), (THEIRS["light"], OURS["heavy"]))
        for number, (light, heavy) in enumerate(ways, start=1):
            put_plan(here, plan_for(number, light, heavy))
            heard_by(here, {light, heavy})
            cast.submit(f"from theirs {number}")
            publish(here, f"ours-{number}", prompt=f"from ours {number}", allowance_s=LONG_S, extra={b"hue": b"red"})
            done = cast.settled(2 * number)
            assert [each.end for each in done] == ["heavy"] * (2 * number)
            assert {slots_of(each) for each in done[-2:]} == {(light, heavy)}, "from one version to the other"
    told = raw_outcomes(here)
    assert len(told) == 4
    for prompt, fields in told.items():
        assert fields.get(b"tone") == b"warm", f"{prompt}: what ours does not know is passed on"
        assert (fields.get(b"hue") == b"red") == ("ours" in prompt), "and what theirs does not know"


def test_a_newer_major_is_left_to_its_own_workers_and_ours_is_read_by_both(here: Broker, tmp_path: Path) -> None:
    with ExitStack() as stack:
        cast = Cast(here, tree_of(tmp_path / "newer", "2.0"), stack)
        cast.start(ROOT)
        put_plan(here, plan_for(1, OURS["light"], OURS["heavy"]))
        for number in range(3):
            cast.submit(f"theirs {number}")
        until(lambda: list(holders(here).values()) == [kept_for(2)] * 3, "ours keeps them for newer workers")
        publish(here, "ours", prompt="ours", allowance_s=LONG_S)
        (first,) = cast.settled(1)
        assert (first.prompt, first.end, slots_of(first)) == ("ours", "heavy", (OURS["light"], OURS["heavy"]))
        before = script_calls(here)
        time.sleep(2.0)
        assert script_calls(here) - before < IDLE_CALLS, "they are claimed and handed back again and again"
        cast.start(cast.tree)
        put_plan(here, plan_for(2, THEIRS["light"], OURS["heavy"]))
        heavy = here.keys.streams["heavy"][1]
        until(lambda: here.client.xlen(heavy) == 3, "the newer light worker draws them")
        until(lambda: list(holders(here).values()) == [kept_for(2)] * 3, "our heavy worker keeps them, too")
        publish(here, "old", prompt="ours again", allowance_s=LONG_S)
        put_plan(here, plan_for(3, OURS["light"], THEIRS["heavy"]))
        done = {each.prompt: each for each in cast.settled(5)}
    assert {each.end for each in done.values()} == {"heavy"}
    for number in range(3):
        assert slots_of(done[f"theirs {number}"]) == (THEIRS["light"], THEIRS["heavy"])


def test_a_plan_of_the_newer_version_is_obeyed_and_people_can_look_with_either(here: Broker, tmp_path: Path) -> None:
    with ExitStack() as stack:
        cast = Cast(here, tree_of(tmp_path / "newer", "1.1"), stack)
        cast.start(ROOT)
        cast.start(cast.tree)
        stack.enter_context(service(cast.settings, "control", root=cast.tree))
        until(lambda: here.client.hget(here.keys.plan, "mood") == b"calm", "their planner plans")
        until(lambda: (plan := here.plan()) is not None and len(plan.assignment) == 4, "for the workers of both")
        publish(here, "ours", prompt="from ours", allowance_s=LONG_S)
        cast.submit("from theirs")
        assert {each.prompt for each in cast.settled(2) if each.answered} == {"from ours", "from theirs"}
        environment = {**os.environ, **environment_of(cast.settings), "COLUMNS": "200"}
        for tree in (ROOT, cast.tree):
            for words in (["status", "--once"], ["plan"], ["watch", "ours"], ["deadletters", "list"]):
                command = [sys.executable, "-m", "services.ctl", *words]
                subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True, timeout=120)


def script_calls(broker: Broker) -> int:
    told: Any = broker.client.info("commandstats")
    return int(told["cmdstat_evalsha"]["calls"])


def test_without_newer_workers_the_keeper_answers_at_the_deadline(here: Broker, tmp_path: Path) -> None:
    with ExitStack() as stack:
        cast = Cast(here, tree_of(tmp_path / "newer", "2.0"), stack)
        cast.start(ROOT)
        stack.enter_context(service(cast.settings, "keeper"))
        put_plan(here, plan_for(1, OURS["light"], OURS["heavy"]))
        cast.submit("nobody reads it", 6.0)
        by_hand(here, {"version": "2.0", "prompt": "by hand"})
        done = {each.prompt: (each.end, each.why) for each in cast.settled(2)}
    assert done == {"nobody reads it": ("dropped", "deadline"), "by hand": ("dropped", "deadline")}


def test_an_escalated_prompt_keeps_its_light_picture_though_heavy_is_of_the_older_version(
    here: Broker, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        cast = Cast(here, tree_of(tmp_path / "newer", "2.0"), stack)
        cast.start(ROOT)
        cast.start(cast.tree)
        stack.enter_context(service(cast.settings, "keeper"))
        put_plan(here, plan_for(1, THEIRS["light"], OURS["heavy"]))
        publish(here, "p", allowance_s=6.0)
        (done,) = cast.settled(1)
    assert (done.end, done.why, slots_of(done)) == ("light", "deadline", (THEIRS["light"],))


def test_a_newer_entry_with_the_id_of_another_prompt_ends_at_once(here: Broker) -> None:
    with ExitStack() as stack:
        settings: Settings = settings_for(here)
        publish(here, "p", allowance_s=LONG_S)
        by_hand(here, {"version": "2.0", "prompt": "a cat", "id": "p"})
        put_plan(here, plan_for(1, 0, 1))
        stack.enter_context(worker(settings, "light", 0))
        until(lambda: here.client.xlen(here.keys.dead) == 1, "it is a dead letter")
        stack.enter_context(worker(settings, "heavy", 1))
        until(lambda: ends(here) == {"p": ("heavy", "cascade")}, "and that prompt is none the worse for it")
