"""What a worker does when its model fails: the prompt pays that is to blame, and nobody else."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from models.backend import Abandoned, OutOfMemory, Picture, never
from shared.broker import Broker
from shared.errors import ModelError
from shared.letters import find_letter
from shared.messages import Job
from shared.observer import Observer
from shared.schema import CEILING_TTL_S, SUSPECT
from tests.easel import CASCADE, Easel, plan_for, poison, working
from tests.helpers import ends, hire, holders, outcomes, publish


def test_a_batch_too_large_for_the_memory_is_halved_and_no_later_one_is_as_large(broker: Broker) -> None:
    plan_for(broker)
    publish(broker, "a", "b", "c")
    easel = Easel("light")

    def crowded() -> None:
        if len(easel.batches[-1]) > 1:
            raise OutOfMemory("too many")

    easel.before = crowded
    with working(broker, easel) as worker:
        worker.step()
        assert easel.batches == [["a", "b", "c"], ["a"], ["b"], ["c"]], "within one turn, nobody handed back"
        publish(broker, "d", "e")
        worker.step()
        worker.step()
    assert easel.batches[4:] == [["d"], ["e"]]
    assert set(ends(broker).values()) == {("light", "confident")}
    assert not Observer(broker).rows(broker.keys.dead, "0", 10)
    model = CASCADE.models["light"].name
    assert broker.ceiling(model, CASCADE.gpu) == 1
    assert 0 < broker.client.pttl(broker.keys.ceiling(model, CASCADE.gpu)) <= CEILING_TTL_S * 1000
    with working(broker, fresh := Easel("light")) as worker:
        publish(broker, "f", "g")
        worker.step()
    assert fresh.batches == [["f"]], "another worker on such a GPU knows it from the start"


def test_a_ceiling_only_sinks_while_it_lives(broker: Broker) -> None:
    assert broker.ceiling("m", "g") is None
    assert [broker.lower_ceiling("m", "g", batch) for batch in (8, 2, 4, 0)] == [8, 2, 2, 1]
    assert (broker.ceiling("m", "g"), broker.ceiling("m", "other"), broker.ceiling("n", "g")) == (1, None, None)


def test_a_model_that_draws_nothing_any_more_costs_its_prompt_one_attempt_and_not_its_life(broker: Broker) -> None:
    plan_for(broker)
    publish(broker, "a", "b")

    class Broken(Easel):
        def warm_up(self, batches: Sequence[int]) -> None:  # noqa: ARG002
            raise RuntimeError("device lost")

        def draw(self, jobs: Sequence[Job], _abandoned: Abandoned = never) -> list[Picture]:  # noqa: ARG002
            raise RuntimeError("device lost")

    with working(broker, Broken("light")) as worker:
        worker.step()
        with pytest.raises(ModelError, match="draws nothing any more: device lost"):
            worker.step()
        worker.die()
    assert not ends(broker)
    assert set(holders(broker).values()) == {SUSPECT}
    attempts = [broker.client.hget(broker.keys.prompt(each), "attempts") for each in "ab"]
    assert attempts == [b"1", None]
    with working(broker, Easel("light")) as worker:
        worker.step()
        worker.step()
    assert set(ends(broker).values()) == {("light", "confident")}


def reasons(broker: Broker) -> list[str]:
    """What the dead letters say went wrong."""
    return [fields[b"reason"].decode() for _, fields in Observer(broker).rows(broker.keys.dead, "0", 10)]


def test_a_poisonous_prompt_fails_with_the_reason_and_its_mates_are_answered(broker: Broker) -> None:
    plan_for(broker)
    publish(broker, "a", "bad", "c")
    easel = Easel("light", poison("bad"))
    with working(broker, easel) as worker:
        for _ in range(4):
            worker.step()
    assert easel.batches == [["a", "bad", "c"], ["a"], ["bad"], ["c"]]
    assert ends(broker) == {
        "a": ("light", "confident"),
        "bad": ("failed", "error"),
        "c": ("light", "confident"),
    }
    assert reasons(broker) == ["ValueError: too ugly"]
    letter = find_letter(Observer(broker), "bad")
    assert (letter.attempts, letter.node, letter.worker) == (1, "test", "test-0-light-1")
    assert 'raise ValueError("too ugly")' in letter.traceback
    assert b"traceback" not in Observer(broker).rows(broker.keys.done, "0", 9)[-1][1], "outcomes stay small"


def test_a_heavy_failure_leaves_the_light_picture_as_the_answer(broker: Broker) -> None:
    plan_for(broker, "heavy")
    publish(broker, "bad")
    light = hire(broker)
    light.escalate(light.one())
    with working(broker, Easel("heavy", poison("bad"))) as worker:
        worker.step()
    assert ends(broker) == {"bad": ("light", "heavy_failed")}


def test_a_wrong_number_of_pictures_fails_nobody_but_the_cause(broker: Broker) -> None:
    plan_for(broker)
    publish(broker, "a", "b")

    class Forgetful(Easel):
        def draw(self, jobs: Sequence[Job], _abandoned: Abandoned = never) -> list[Picture]:
            return super().draw(jobs)[:1]

    with working(broker, Forgetful("light")) as worker:
        for _ in range(3):
            worker.step()
    assert ends(broker) == {"a": ("light", "confident"), "b": ("light", "confident")}


@pytest.mark.parametrize("score", [math.nan, math.inf, None])
def test_a_score_that_is_no_number_fails_its_prompt_alone(broker: Broker, score: float | None) -> None:
    plan_for(broker)
    publish(broker, "odd", "good")
    easel = Easel("light", lambda job: Picture(b"webp", score if job.id == "odd" else 0.9))
    with working(broker, easel) as worker:
        worker.step()
    assert ends(broker) == {"odd": ("failed", "error"), "good": ("light", "confident")}
    assert reasons(broker) == [f"score is {score}"]
    assert all(outcome.score in (None, 0.9) for outcome in outcomes(broker))


def test_a_discriminator_that_scores_nothing_any_more_costs_no_prompt_its_life(broker: Broker) -> None:
    plan_for(broker)
    publish(broker, "a", "b")

    class Unscoring(Easel):
        def warm_up(self, batches: Sequence[int]) -> None:  # noqa: ARG002
            raise ModelError("the discriminator gives no score")

    with working(broker, Unscoring("light", lambda _: Picture(b"webp", math.nan))) as worker:
        worker.step()
        with pytest.raises(ModelError, match="draws nothing any more"):
            worker.step()
        worker.die()
    assert not ends(broker)
    assert set(holders(broker).values()) == {SUSPECT}
    light = hire(broker)
    for entry in [light.one(), light.one()]:
        light.end(entry)
