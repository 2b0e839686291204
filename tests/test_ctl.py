"""The people's command, as people call it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from deploy.runner import environment_of
from deploy.supervision import ROOT
from shared.broker import Broker
from shared.errors import CascadeError
from shared.exchange import Hop
from shared.letters import RETRY_OF, find_letter, letters
from shared.observer import Observer
from shared.schema import DEATHS
from tests.helpers import by_hand, ends, hire, outcomes, publish

ALLOWANCE_S = 300.0


def ctl(broker: Broker, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **environment_of(broker.settings), "COLUMNS": "240"}
    command = [sys.executable, "-m", "services.ctl", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def fails(broker: Broker, prompt_id: str, **fields: Any) -> None:
    """A prompt that its model can't draw."""
    publish(broker, prompt_id, allowance_s=ALLOWANCE_S, **fields)
    light = hire(broker)
    entry = light.one()
    hop = Hop(entry, "failed", "error", reason="ValueError: too ugly", blamed=True, traceback="in line 7\n")
    assert broker.commit("light", light.name, [hop]) == [1]


def test_letters_are_listed_shown_and_thrown_away(broker: Broker) -> None:
    assert "no dead letters" in ctl(broker, "deadletters", "list").stdout
    fails(broker, "ugly[1]", prompt="a [bold] cat", seed=41)
    listed = ctl(broker, "deadletters", "list")
    assert listed.returncode == 0
    for said in ("ugly[1]", "error", "ValueError: too ugly", "a [bold] cat"):
        assert said in listed.stdout, "what looks like markup is shown as it is"
    shown = ctl(broker, "deadletters", "show", "ugly[1]")
    for said in ("a [bold] cat", "41", "in line 7", "ValueError: too ugly", "300.000"):
        assert said in shown.stdout
    assert ctl(broker, "deadletters", "purge").stdout == "1 dead letters thrown away\n"
    assert not letters(Observer(broker))


@pytest.mark.parametrize("verb", ["show", "retry"])
def test_an_id_that_nobody_knows_is_one_line_and_exit_code_2(broker: Broker, verb: str) -> None:
    fails(broker, "known")
    ended = ctl(broker, "deadletters", verb, "unknown")
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert "unknown" in ended.stderr


def test_a_retry_publishes_a_new_prompt_that_names_the_failed_one_and_does_so_once(broker: Broker) -> None:
    fails(broker, "p", seed=5, priority=2, parameters={"index": 3})
    for _ in range(2):
        assert ctl(broker, "deadletters", "retry", "p").returncode == 0
    light = hire(broker)
    (entry,) = light.take(9)
    again = entry.job
    assert again.id.startswith("p-retry-")
    assert (again.prompt, again.seed, again.priority, again.parameters) == ("a cat", 5, 2, {"index": 3})
    assert again.extra == {RETRY_OF: b"p"}
    assert again.deadline - again.published == pytest.approx(ALLOWANCE_S)
    light.end(entry)
    assert [(outcome.id, outcome.end) for outcome in outcomes(broker)] == [("p", "failed"), (again.id, "light")]


def test_a_prompt_that_kept_failing_can_be_retried_and_starts_with_a_clean_record(broker: Broker) -> None:
    publish(broker, "bad")
    for _ in range(DEATHS):
        dead = hire(broker)
        dead.one()
        dead.die()
        broker.reclaim()
    (receipt,) = broker.publish([find_letter(Observer(broker), "bad").again(ALLOWANCE_S)])
    assert receipt.status == "published"
    assert broker.client.hget(broker.keys.prompt(receipt.id), "attempts") is None
    light = hire(broker)
    light.end(light.one())
    assert sorted(ends(broker).values()) == [("failed", "poison"), ("light", "confident")]


def test_a_letter_of_an_escalated_prompt_is_sent_again_without_its_old_visits(broker: Broker) -> None:
    publish(broker, "p")
    light, heavy = hire(broker), hire(broker, "heavy")
    light.escalate(light.one())
    entry = heavy.one()
    hop = Hop(entry, "light", "heavy_failed", reason="ValueError: too ugly", blamed=True)
    broker.commit("heavy", heavy.name, [hop])
    letter = find_letter(Observer(broker), "p")
    assert [visit.stage for visit in letter.visits] == ["light"]
    assert letter.again(1.0).job.visits == ()


def test_what_was_no_prompt_is_shown_but_not_sent_again(broker: Broker) -> None:
    by_hand(broker, {"id": "odd", "prompt": b"\xff\xfe", "visits": "nonsense", "deadline": "soon", "attempts": "many"})
    light = hire(broker)
    (broken,) = light.claim().broken
    broker.fail("light", light.name, broken, ALLOWANCE_S)
    letter = find_letter(Observer(broker), "odd")
    assert (letter.why, letter.visits, letter.attempts) == ("malformed", (), 0)
    assert ctl(broker, "deadletters", "show", "odd").returncode == 0
    with pytest.raises(CascadeError, match="can't be sent again"):
        letter.again(ALLOWANCE_S)
