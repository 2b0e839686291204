"""A model that leaves its device and comes back draws the same pictures, and of a slot's two models one is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.backend import Abandoned, Backend, OutOfMemory, Parkable, Picture, never, open_backend
from models.memory import both_fit
from models.sleeping import SleepingSwapper
from models.swapping import SwappingBackend, Weights
from shared.broker import Broker
from shared.catalog import load_cascade, unmeasured
from shared.config import Settings
from shared.embedded import EmbeddedRedis
from shared.errors import ModelError, SettingsError
from shared.ledger import overlaps
from shared.measured import Profile
from shared.messages import Job
from shared.schema import STAGES, Stage
from tests.conftest import fresh_deployment
from tests.easel import CASCADE, Easel, plan_for, working
from tests.helpers import ends, job, outcomes, publish
from tests.processes import LONG_S, give_slots, until, worker

CPU = torch.device("cpu")
TINY = unmeasured("tiny")
JOBS = [Job(f"p{place}", text, 0.0, 0.0, seed=place) for place, text in enumerate(("big red ring on white", "a cat"))]


def opened(stage: Stage) -> SwappingBackend:
    made = open_backend("diffusers", TINY, stage, "cpu", "host")
    assert isinstance(made, SwappingBackend)
    return made


@cache
def staying(stage: Stage) -> Backend:
    return open_backend("diffusers", TINY, stage, "cpu")


def held(networks: Sequence[nn.Module]) -> int:
    """Bytes that the networks' tensors hold on their device, each storage once."""
    tensors = [tensor for network in networks for tensor in (*network.parameters(), *network.buffers())]
    return sum({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


@pytest.mark.parametrize("stage", STAGES)
def test_a_model_that_was_away_draws_the_same_and_holds_nothing_meanwhile(stage: Stage) -> None:
    expected = staying(stage).draw(JOBS)
    backend = opened(stage)
    networks = backend._backend.networks
    assert backend.parked
    assert held(networks) == 0, "nothing comes to the device before its turn"
    for _ in range(2):
        with pytest.raises(ModelError, match="parked"):
            backend.draw(JOBS)
        backend.unpark()
        block = held(networks)
        assert block == backend._weights.nbytes > 10**6
        assert backend.draw(JOBS) == expected
        backend.park()
        assert held(networks) == 0


def test_odd_layouts_shared_numbers_and_pieces_of_any_size_come_back_as_they_were() -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        made = nn.Module()
        made.conv = nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        made.wide = nn.Embedding(7, 5)
        made.tied = nn.Linear(5, 7, bias=False)
        made.tied.weight = made.wide.weight
        made.view = nn.Parameter(made.wide.weight.data)
        made.register_buffer("flags", torch.tensor([True, False, True]))
        made.register_buffer("one", torch.tensor(3.5, dtype=torch.float64))
        made.register_buffer("gaps", torch.arange(20)[::3])
        made.register_buffer("nothing", torch.empty(0))
        return made

    same, moved = network(), network()
    for piece in (64, 1000, 1 << 20):
        weights = Weights([moved, moved.conv], CPU, piece)  # type: ignore[list-item]
        assert weights.nbytes == 8 * 256, "shared numbers lie there once"
        weights.load()
        for expected, found in zip(same.state_dict().values(), moved.state_dict().values(), strict=True):
            assert torch.equal(expected, found)
            assert expected.stride() == found.stride() or expected.numel() == 7
        weights.unload()
        weights.load()
        assert all(map(torch.equal, same.state_dict().values(), moved.state_dict().values()))


def test_a_warm_up_is_made_up_for_when_the_model_comes_to_its_device() -> None:
    backend = opened("heavy")
    drawn: list[int] = []
    backend._backend.warm_up = lambda batches: drawn.extend(batches)  # type: ignore[method-assign]
    backend.warm_up([1, 2])
    assert not drawn
    backend.unpark()
    backend.park()
    backend.unpark()
    assert drawn == [1, 2]


# --- the worker ------------------------------------------------------------------------------------------------


class Parked(Easel):
    """A played model that waits in host memory; `room`: whether the device has memory for it."""

    parked = True
    room = True

    def park(self) -> None:
        self.parked = True

    def unpark(self) -> None:
        if not self.room:
            raise OutOfMemory("another is there")
        self.parked = False

    def draw(self, jobs: Sequence[Job], _abandoned: Abandoned = never) -> list[Picture]:
        assert not self.parked
        return super().draw(jobs)


def test_a_model_is_on_its_device_only_while_its_worker_holds_the_slot(broker: Broker) -> None:
    slot = broker.keys.slot("test", 0)
    model = Parked("light")
    assert isinstance(model, Parkable)
    publish(broker)
    plan_for(broker)
    with working(broker, model) as found:
        broker.hold(slot, "other")
        found.step()
        assert model.parked, "another draws there"
        broker.release(slot, "other")
        model.room = False
        found.step()
        assert (model.parked, model.batches) == (True, []), "its memory is not free yet"
        model.room = True
        found.step()
        assert (model.parked, model.batches) == (False, [["p"]])
        plan_for(broker, "heavy", 2)
        released = broker.release
        seen: list[bool] = []
        found._broker.release = lambda *given: seen.append(model.parked) or released(*given)  # type: ignore
        for _ in range(2):
            found.step()
        assert seen == [True], "it left the device before it gave the token up"
        plan_for(broker, "light", 3)
        found.step()
        found.step()
        assert not model.parked
    assert model.parked, "and so does a worker that ends"
    assert ends(broker) == {"p": ("light", "confident")}


def test_memory_that_never_comes_free_ends_the_worker(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.studio.MEMORY_PATIENCE_S", 0.0)
    plan_for(broker)
    model = Parked("light")
    model.room = False
    with working(broker, model) as found:
        found.step()
        with pytest.raises(OutOfMemory, match="another is there"):
            found.step()


@pytest.fixture
def alone(oldest_server: EmbeddedRedis) -> Iterator[Broker]:
    yield from fresh_deployment(oldest_server)


def has_ended(broker: Broker, count: int) -> bool:
    return len(ends(broker)) == count


@pytest.mark.live
def test_two_processes_of_a_slot_swap_their_models_and_draw_right_pictures(alone: Broker, tmp_path: Path) -> None:
    given = {"cascade": "tiny", "backend": "diffusers", "gpu": "cpu", "slots": 1, "resident": "host"}
    settings = alone.settings.model_copy(update={**given, "log_dir": tmp_path})
    turns: tuple[Stage, ...] = ("light", "heavy", "light")
    with worker(settings, "light"), worker(settings, "heavy"):
        for version, stage in enumerate(turns, start=1):
            give_slots(alone, stage, version=version, batch=1)
            publish(alone, f"p{version}", route=stage, prompt=JOBS[0].prompt, seed=version, allowance_s=LONG_S)
            until(partial(has_ended, alone, version), f"{stage} draws")
    assert {each.end for each in outcomes(alone)} == {"light", "heavy"}
    assert overlaps(outcomes(alone)) == []
    for each in outcomes(alone):
        stage = "light" if each.end == "light" else "heavy"
        (right,) = staying(stage).draw([job(each.id, JOBS[0].prompt, seed=each.seed)])
        assert alone.pictures.get([(each.id, stage)]) == [right.data]
    told = [line for path in tmp_path.glob("worker-*") for line in path.read_text().splitlines() if "parked" in line]
    assert len(told) >= 3 + 2, "each turn let one model go and brought the other"


# --- what may be chosen ------------------------------------------------------------------------------------------


def test_both_stay_only_where_the_measured_memory_of_both_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(*gib: float) -> Any:
        profiles = [
            Profile("m", "cpu", {1: 1.0}, {1: 1.0}, memory_gib={1: 0.1, 4: each} if each else {}) for each in gib
        ]
        return replace(TINY, profiles={stage: {"cpu": each} for stage, each in zip(STAGES, profiles, strict=True)})

    monkeypatch.setattr("models.memory.free_bytes", lambda _device: 8 * 2**30)
    assert both_fit(measured(3.0, 5.0), "cpu")
    assert not both_fit(measured(3.0, 5.1), "cpu")
    assert not both_fit(measured(3.0, 0.0), "cpu"), "what was not measured is not guessed"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (0, 18 * 2**30))
    assert both_fit(measured(3.0, 5.0), None, shares=2), "half of 18 GiB, less what torch itself takes twice"
    assert not both_fit(measured(3.0, 5.0), None, shares=3)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert not isinstance(open_backend("diffusers", measured(3.0, 5.0), "heavy", "cpu", "auto"), Parkable)
    assert isinstance(open_backend("diffusers", measured(3.0, 5.1), "heavy", "cpu", "auto"), Parkable)


def test_a_sleeping_model_takes_the_profiled_seconds_of_a_swap() -> None:
    slept: list[float] = []
    known = replace(load_cascade("sdturbo").profile("heavy"), swap_s=0.5)
    cascade = replace(CASCADE, profiles={stage: {"cpu": known} for stage in STAGES})
    sleeper = SleepingSwapper(cascade, "heavy", "cpu", sleep=slept.append)
    for _ in range(2):
        sleeper.unpark()
    sleeper.park()
    sleeper.unpark()
    assert slept == [0.5, 0.5]
    assert isinstance(open_backend("sleeping", cascade, "heavy", "cpu", "host"), SleepingSwapper)


@pytest.mark.parametrize(("given", "meant"), [("host", "host"), ("True", True), ("0", False), ("auto", "auto")])
def test_where_models_stay_is_one_of_four(given: str, meant: object) -> None:
    assert Settings.model_validate({"resident": given}).resident == meant


def test_another_word_is_a_settings_error() -> None:
    with pytest.raises((SettingsError, ValueError), match="must be true, false, host or auto"):
        Settings.model_validate({"resident": "maybe"})
