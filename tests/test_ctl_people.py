"""What the command line says of a deployment and of one prompt, on a real Redis with workers played by hand."""

from __future__ import annotations

import re
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from planner.policies import make_policy
from planner.viewing import next_plan
from services.ctl import prompts
from shared.broker import Broker
from shared.errors import CascadeError
from shared.exchange import Hop
from shared.lookup import Lookup
from shared.orders import drain
from shared.plans import View
from tests.asking import ctl
from tests.helpers import Hand, a_plan, ends, hire, publish, put_plan
from tests.planning import SDTURBO, fleet, view


def rows(text: str, first: str) -> list[list[str]]:
    """The cells of the table rows that begin with a word."""
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line]
    return [row for row in cells if row[0] == first]


def test_status_counts_what_waits_runs_and_has_ended(broker: Broker) -> None:
    put_plan(broker, replace(a_plan(), light_workers=3, assignment={"test:0": "light"}, why="because"))
    publish(broker, "a", "b", "c", "d")
    light = hire(broker)
    first, second = light.take(2)
    light.end(first)
    light.escalate(second)
    light.one()
    said = ctl(broker, "status", "--once")
    (stage,) = rows(said, "light")
    assert stage[1:] == ["1", "1", "3", "1", "0", "4"], "waiting, in flight, wanted, ready, loading, batch"
    (stage,) = rows(said, "heavy")
    assert stage[1:3] == ["1", "0"]
    (ended,) = rows(said, "in all")
    assert ended[1:] == ["4", "0", "1", "0", "0", "0", "0"]
    (rate,) = rows(said, "a second")
    assert rate[3] == f"{1 / 60:.2f}"
    assert "3 open" in said
    assert "of the 1 that ended in the last minute 100 % were on time" in said
    assert "because" in said
    (worker,) = rows(said, "test")
    assert worker[4] == "draws"
    broker.order(drain("test"), "ada")
    assert "by order: test is drained" in ctl(broker, "status")


def test_status_of_nothing_says_so(broker: Broker) -> None:
    said = ctl(broker, "status", "--once")
    for words in ("nothing ended", "no plan is in force", "no worker lives"):
        assert words in said


def test_the_plan_in_force_is_shown_and_explained(broker: Broker) -> None:
    with pytest.raises(CascadeError, match="no plan is in force"):
        ctl(broker, "plan")
    policy = make_policy("quality", SDTURBO, SDTURBO.deadline_s, "exhaustive")
    plan = next_plan(policy, view(30, fleet(4)))
    assert plan is not None
    assert broker.hold(broker.keys.leader("control"), "control")
    assert broker.put_plan(plan, View(0.0, (), (), pace={"heavy": 1.0}), "control")
    for slot in fleet(4):
        for stage in ("light", "heavy"):
            about = {"node": slot.node, "slot": str(slot.number), "gpu": slot.gpu, "stage": stage, "ready": "1"}
            broker.announce(stage, f"{slot.node}-{slot.number}-{stage}-1", about)
    said = ctl(broker, "plan")
    assert plan.why in said
    assert f"{plan.light_workers} light, {plan.heavy_workers} heavy" in said
    explained = ctl(Broker(broker.settings.model_copy(update={"cascade": "sdturbo"})), "plan", "--explain")
    assert "the number of slots binds: with one more slot a heavy share of" in explained
    assert f"light: {plan.light_workers} x {plan.light_batch} draw" in explained
    put_plan(broker, a_plan(version=2))
    assert "solves no program" in ctl(broker, "plan", "--explain")
    junk: dict[Any, Any] = {"version": "3", "mood": "blue"}
    entry_id: Any = broker.client.xadd(broker.keys.plans, junk)
    assert "the last 2 plans" in ctl(broker, "plan", "--history"), "what is no plan is passed over"
    broker.client.xdel(broker.keys.plans, entry_id)
    history = ctl(broker, "plan", "--history")
    assert "the last 2 plans" in history and plan.why[:20] in history
    assert "the last 1 plans" in ctl(broker, "plan", "--history", "1")


@contextmanager
def drawing(broker: Broker, *turns: str) -> Iterator[None]:
    """Beside the test, hands that take the turns one after the other."""

    def work() -> None:
        hands: dict[str, Hand] = {"light": hire(broker), "heavy": hire(broker, "heavy")}
        for turn in turns:
            stage, verb = turn.split()
            while not (taken := hands[stage].take()):
                pass
            if verb == "fails":
                hop = Hop(taken[0], "failed", "error", reason="ValueError: too ugly", blamed=True)
                broker.commit("light", hands[stage].name, [hop])
            else:
                getattr(hands[stage], verb)(taken[0])

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join(timeout=30)


def test_a_prompt_is_submitted_watched_and_its_picture_kept(broker: Broker, tmp_path: Path) -> None:
    out = tmp_path / "pictures" / "cat.webp"
    with drawing(broker, "light escalate", "heavy end"):
        said = ctl(broker, "submit", "a [red] cat", "--seed", "7", "--priority", "0", "--out", str(out)).splitlines()
    prompt_id = said[0].split()[0]
    assert ends(broker) == {prompt_id: ("heavy", "confident")}
    assert re.fullmatch(r"heavy \(confident\) after [0-9.]+ s, score 0.2500", said[-2])
    assert out.read_bytes() == b"heavy"
    assert str(out) in said[-1]
    assert ctl(broker, "watch", prompt_id).splitlines() == [said[-2]]


def test_open_shows_the_picture(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(webbrowser, "open", shown.append)
    monkeypatch.chdir(tmp_path)
    with drawing(broker, "light end"):
        said = ctl(broker, "submit", "a cat", "--open")
    (address,) = shown
    assert Path(address.removeprefix("file://")).read_bytes() == b"light"
    assert said.split()[0] in address


def test_a_prompt_that_fails_says_why_and_has_no_picture(broker: Broker) -> None:
    with drawing(broker, "light fails"), pytest.raises(CascadeError, match="there is no picture"):
        ctl(broker, "submit", "a cat", "--out", "never.webp")
    ((prompt_id, _),) = ends(broker).items()
    assert "failed (error)" in ctl(broker, "watch", prompt_id)
    assert "ValueError: too ugly" in ctl(broker, "watch", prompt_id)


def test_where_a_prompt_is_is_said_in_words(broker: Broker) -> None:
    publish(broker, "a", "b")
    light = hire(broker)

    def words(prompt_id: str) -> str:
        found = Lookup(broker).look(prompt_id, place=True)
        assert found is not None
        return prompts.in_words(found)

    assert words("b") == "light: waits behind 1"
    light.escalate(light.one())
    assert words("a") == "light picture is there, score 0.2500; heavy: waits behind 0"
    hire(broker, "heavy").one()
    assert words("a") == "light picture is there, score 0.2500; heavy: is being drawn"


@pytest.mark.parametrize("verb", ["watch", "cancel"])
def test_an_id_that_nobody_knows_is_an_error(broker: Broker, verb: str) -> None:
    with pytest.raises(CascadeError, match="unknown"):
        ctl(broker, verb, "unknown")


def test_a_prompt_that_nobody_ends_is_not_watched_for_ever(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "AFTER_S", 0.0)
    publish(broker, "p", allowance_s=0.05)
    with pytest.raises(CascadeError, match="does the keeper run"):
        ctl(broker, "watch", "p")


def test_what_the_door_refuses_is_an_error_that_says_when_to_come_again(broker: Broker) -> None:
    put_plan(broker, replace(a_plan(), light_workers=1, light_batch=1, light_service_s=4.0))
    publish(broker, "before", allowance_s=600.0)
    with pytest.raises(CascadeError, match=r"refused \(deadline\): try again in"):
        ctl(broker, "submit", "a cat")
    put_plan(broker, replace(a_plan(), version=2, light_workers=1, light_batch=1, light_service_s=1e6))
    with pytest.raises(CascadeError, match=r"refused \(allowance\): no waiting helps"):
        ctl(broker, "submit", "a cat")
    with pytest.raises(CascadeError, match="empty"):
        ctl(broker, "submit", " ")


def test_the_plan_in_force_says_where_a_prompt_starts_unless_the_person_does(broker: Broker) -> None:
    put_plan(broker, replace(a_plan(), heavy_direct=1.0))
    ctl(broker, "submit", "a cat")
    assert hire(broker, "heavy").one().job.prompt == "a cat"
    ctl(broker, "submit", "a dog", "--route", "light")
    assert hire(broker).one().job.route == "light"
