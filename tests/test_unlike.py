"""What prompts ask of a model beside their words, and batches of prompts that do not ask the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from models.diffusion import DiffusionBackend
from shared.asked import alike, asked_of, objection
from shared.broker import Broker
from shared.catalog import Cascade
from shared.messages import Entry, Job
from shared.model import Model
from tests import easel
from tests.easel import CASCADE, Easel, plan_for, working
from tests.helpers import ends, hire, job, outcomes, publish

LIGHT, HEAVY = CASCADE.models["light"], CASCADE.models["heavy"]


def wider() -> Cascade:
    """The tiny cascade with models that may be asked for more than their own."""
    light = replace(LIGHT, steps_allowed=(1, 2, 4))
    heavy = replace(HEAVY, sizes=("64x64", "96x64"), steps_allowed=(10, 20), guidance_allowed=(2.0, 3.5))
    return replace(CASCADE, models={"light": light, "heavy": heavy})


@contextmanager
def widened(light: Model | None = None) -> Iterator[None]:
    kept, easel.CASCADE = easel.CASCADE, wider()
    if light:
        easel.CASCADE = replace(wider(), models={**wider().models, "light": light})
    yield
    easel.CASCADE = kept


def test_of_an_unlike_batch_the_rest_is_anothers_at_once_and_in_order(broker: Broker) -> None:
    plan_for(broker)
    publish(broker, "a", "c", parameters={"steps": 4})
    publish(broker, "b", allowance_s=20.0, parameters={"steps": 1})  # more urgent, and can wait
    publish(broker, "d", parameters={"steps": 1})
    other, drawing = hire(broker), Easel("light")
    taken: list[Entry] = []
    drawing.before = lambda: taken.extend(other.take(4))
    with widened(), working(broker, drawing) as worker:
        worker.step()
        assert drawing.batches == [["a", "c"]]
        assert [(entry.job.id, entry.job.parameters) for entry in taken] == [("b", {"steps": 1}), ("d", {"steps": 1})]
        assert [other.end(entry) for entry in taken] == [1, 1], "they are whole, and the other's alone"
    assert ends(broker) == dict.fromkeys("abcd", ("light", "confident"))
    assert {each.id: each.visits[0].batch for each in outcomes(broker) if each.id in "ac"} == {"a": 2, "c": 2}


def test_of_those_that_cannot_wait_for_one_more_batch_the_most_urgent_chooses() -> None:
    def entry(name: str, steps: int, deadline: float) -> Entry:
        return Entry(1, name, Job(name, "a cat", 0.0, deadline, parameters={"steps": steps}))

    def chosen(patient_until: float) -> list[str]:
        together, _ = alike(batch, partial(asked_of, wider().models["light"]), lambda job: job.deadline > patient_until)
        return [each.entry_id for each in together]

    batch = [entry("a", 4, 50.0), entry("b", 1, 9.0), entry("c", 4, 60.0), entry("d", 2, 8.0), entry("e", 1, 70.0)]
    assert [chosen(patient_until) for patient_until in (0.0, 8.5, 9.5, 99.0)] == [["a", "c"], ["d"], ["d"], ["d"]]
    assert alike([], partial(asked_of, LIGHT), lambda _job: True) == ([], [])


def test_those_that_ask_for_something_rare_are_drawn_however_many_others_keep_coming(broker: Broker) -> None:
    plan_for(broker)
    publish(broker, *"xyz", allowance_s=600.0, parameters={"steps": 4})
    with widened(), working(broker, drawing := Easel("light")) as worker:
        for turn in range(4):
            publish(broker, *(f"{turn}{number}" for number in range(4)), allowance_s=20.0, parameters={"steps": 1})
            worker.step()
    assert ["x", "y", "z"] in drawing.batches
    assert max(map(len, drawing.batches)) == 4, "and the others come in batches again"


def test_one_worker_alone_draws_all_kinds_one_after_the_other(broker: Broker) -> None:
    plan_for(broker, "heavy")
    publish(broker, "large", route="heavy", parameters={"size": "96x64"})
    publish(broker, "plain", "other", route="heavy")
    publish(broker, "strict", route="heavy", parameters={"guidance": 3.5})
    publish(broker, "same", route="heavy", parameters={"size": "64x64", "steps": 20, "guidance": 2.0})
    light = replace(LIGHT, sizes=("64x64", "96x64"))
    with widened(light), working(broker, drawing := Easel("heavy")) as worker:
        for _ in range(4):
            worker.step()
    assert drawing.batches == [["large"], ["plain", "other", "same"], ["strict"]]


@pytest.mark.parametrize(
    ("route", "asked", "refused"),
    [
        ("cascade", {"steps": 10}, None),
        ("cascade", {"steps": 4, "guidance": 3.5}, None),
        ("light", {"steps": 10}, ("steps", "steps 10 is not among those of this cascade: 1, 2, 4")),
        ("heavy", {"steps": 4}, ("steps", "steps 4 is not among those of this cascade: 10, 20")),
        ("cascade", {"guidance": 9}, ("guidance", "guidance 9 is not among those of this cascade: 0, 2, 3.5")),
        ("cascade", {"size": "100x100"}, ("size", "size 100x100 is not among those of this cascade: 64x64")),
    ],
)
def test_what_no_model_of_the_route_draws_is_refused(
    route: Any, asked: dict[str, Any], refused: tuple[str, str] | None
) -> None:
    assert objection(wider(), job(route=route, parameters=asked)) == refused


class Asking:
    """A pipeline that keeps what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], int, float, int | None]] = []

    def __call__(self, prompt: list[str], num_inference_steps: int, guidance_scale: float, **more: Any) -> Any:
        self.calls.append((prompt, num_inference_steps, guidance_scale, more.get("width")))
        return (torch.zeros(len(prompt), 3, 8, 8),)


def test_a_model_draws_as_asked_where_its_row_allows_it_and_by_itself_otherwise() -> None:
    model = Model("m", "m", steps=3, guidance=1.5, size=8, memory_gib=0.1, steps_allowed=(3, 5))
    pipeline = Asking()
    asked: list[dict[str, Any]] = [{"steps": 5}, {}, {"steps": 4, "guidance": 9.0}, {"steps": 5}, {"size": "16x8"}]
    jobs = [Job(str(place), str(place), 0.0, 0.0, parameters=each) for place, each in enumerate(asked)]
    assert len(DiffusionBackend(model, "heavy", pipeline).draw(jobs)) == 5
    assert pipeline.calls == [(["0", "3"], 5, 1.5, None), (["1", "2"], 3, 1.5, None), (["4"], 3, 1.5, 16)]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"steps_allowed": (5,)}, "3, the model's own, is missing"),
        ({"steps_allowed": (3, 151)}, "less than or equal to 150"),
        ({"guidance_allowed": (1.5, -1.0)}, "greater than or equal to 0"),
    ],
)
def test_a_row_that_allows_what_cannot_be_is_wrong(row: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Model("m", "m", steps=3, guidance=1.5, size=8, memory_gib=0.1, **row)
