"""What nobody shall see is not drawn where words say so, and not stored where the checker does."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from torch.nn.functional import cosine_similarity

from models.backend import Picture
from models.diffusion import DiffusionBackend, open_diffusion
from models.faulty import FaultyBackend
from models.safety import SafetyChecker
from shared.broker import Broker
from shared.catalog import TABLES, unmeasured
from shared.errors import ModelError
from shared.letters import find_letter
from shared.messages import Job
from shared.model import Model
from shared.observer import Observer
from shared.schema import STAGES
from tests import easel
from tests.easel import CASCADE, Easel, plan_for, working
from tests.helpers import ends, hire, job, outcomes, publish, totals

SIDE, CONCEPTS = 32, 2
CPU = torch.device("cpu")
RED, BLUE = (torch.tensor(colour).reshape(1, 3, 1, 1).expand(1, 3, 48, 48) for colour in ((0.9, 0.1, 0), (0, 0.2, 0.8)))


@pytest.fixture(scope="module")
def red_is_unsafe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random checker with two concepts; the second is what it sees in a red picture."""
    folder = tmp_path_factory.mktemp("tables") / "checker"
    torch.manual_seed(1)
    sight = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPConfig(vision_config=sight | {"image_size": SIDE, "patch_size": 8}, projection_dim=8)
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIDE)
    network = StableDiffusionSafetyChecker(config).eval()

    def seen(picture: torch.Tensor) -> torch.Tensor:
        pixels = processor(list((picture * 255).byte().permute(0, 2, 3, 1).numpy()), return_tensors="pt").pixel_values
        with torch.no_grad():
            projected: torch.Tensor = network.visual_projection(network.vision_model(pixels)[1])
        return projected

    red, blue = seen(RED), seen(BLUE)
    alike = float(cosine_similarity(red, blue))
    assert alike < 0.99, "two pictures that look the same to the checker would test nothing"
    network.concept_embeds.data[:] = -red
    network.concept_embeds.data[1] = red
    network.special_care_embeds.data[:] = -red
    network.concept_embeds_weights.data[:] = (1 + alike) / 2
    network.special_care_embeds_weights.data[:] = 1.0
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


# --- the checker -----------------------------------------------------------------------------------------------


def test_a_picture_near_a_concept_is_flagged_and_another_is_not(red_is_unsafe: Path) -> None:
    checker = SafetyChecker("checker", red_is_unsafe.parent, CPU)
    pictures = torch.cat([BLUE, RED, BLUE])
    assert checker.flags(pictures) == [False, True, False]
    assert torch.equal(pictures, torch.cat([BLUE, RED, BLUE])), "the pictures themselves stay as they are"
    with pytest.raises(ModelError, match=r"cannot load the safety checker 'elsewhere'.*elsewhere"):
        SafetyChecker("elsewhere", red_is_unsafe.parent, CPU)


def test_weights_that_hold_no_concepts_are_no_checker(red_is_unsafe: Path) -> None:
    vision = transformers.CLIPModel(transformers.CLIPConfig.from_pretrained(red_is_unsafe))
    folder = red_is_unsafe.parent / "clip"
    vision.save_pretrained(folder)
    transformers.CLIPImageProcessor.from_pretrained(red_is_unsafe).save_pretrained(folder)
    with pytest.raises(ModelError, match="'clip' is no safety checker: its weights lack concept_embeds"):
        SafetyChecker("clip", red_is_unsafe.parent, CPU)


def test_a_flagged_picture_of_a_batch_has_no_data_and_its_mates_have(red_is_unsafe: Path) -> None:
    def pipeline(prompt: list[str], **_: object) -> tuple[torch.Tensor]:
        return (torch.cat([RED if "red" in each else BLUE for each in prompt]),)

    checker = SafetyChecker("checker", red_is_unsafe.parent, CPU)
    model = Model("stub", "stub", 1, 0.0, 48, 0.1)
    backend = DiffusionBackend(
        model, "light", pipeline, lambda pictures, _prompts: [0.5] * len(pictures), checker.flags
    )
    drawn = backend.draw([job("a", "blue"), job("b", "red"), job("c", "blue")])
    assert [(picture.flagged, bool(picture.data), picture.score) for picture in drawn] == [
        (False, True, 0.5),
        (True, False, 0.5),
        (False, True, 0.5),
    ]


def test_a_cascade_that_names_a_checker_has_it_on_both_stages(red_is_unsafe: Path) -> None:
    tables = red_is_unsafe.parent
    (tables / "tiny").symlink_to(TABLES / "tiny")
    strict = StableDiffusionSafetyChecker.from_pretrained(red_is_unsafe)
    strict.concept_embeds_weights.data[:] = -2.0  # below any likeness: everything is flagged
    strict.save_pretrained(tables / "strict")
    transformers.CLIPImageProcessor.from_pretrained(red_is_unsafe).save_pretrained(tables / "strict")
    named = replace(unmeasured("tiny"), safety_checker="strict", home=tables)
    for stage in STAGES:
        (picture,) = open_diffusion(named, stage, "cpu").draw([job("a", "big blue circle on white")])
        assert (picture.flagged, picture.data) == (True, b"")
    with pytest.raises(ModelError, match="safety checker 'none'"):
        open_diffusion(replace(named, safety_checker="none"), "heavy", "cpu")


def test_the_sizes_asked_for_are_drawn_within_one_batch() -> None:
    tiny = unmeasured("tiny")
    wide = replace(tiny.models["light"], sizes=("64x64", "96x64"))
    backend = open_diffusion(replace(tiny, models={**tiny.models, "light": wide}), "light", "cpu")
    sizes = ("96x64", None, "64x64", "96x64")
    jobs = [job(f"p{i}", parameters={"size": size} if size else {}, seed=i) for i, size in enumerate(sizes)]
    drawn = backend.draw(jobs)
    assert [Image.open(io.BytesIO(picture.data)).size for picture in drawn] == [(96, 64), (64, 64), (64, 64), (96, 64)]
    assert [picture.score is not None for picture in drawn] == [True] * 4
    alone = backend.draw(jobs[3:])[0]
    assert alone.score == pytest.approx(drawn[3].score, abs=1e-3), "each kept its own place"


# --- the worker ------------------------------------------------------------------------------------------------


@contextmanager
def forbidding(*phrases: str) -> Iterator[None]:
    kept = easel.CASCADE
    easel.CASCADE = replace(CASCADE, blocked=phrases)
    yield
    easel.CASCADE = kept


def test_a_blocked_prompt_fails_before_anything_is_drawn_and_its_mates_are_drawn(broker: Broker) -> None:
    plan_for(broker)
    publish(broker, "bad", prompt="A scene of GORE", allowance_s=60)
    publish(broker, "good", "other")
    with forbidding("gore"), working(broker, drawn := Easel("light")) as worker:
        worker.step()
    assert drawn.batches == [["good", "other"]]
    assert ends(broker) == {
        "bad": ("failed", "unsafe"),
        "good": ("light", "confident"),
        "other": ("light", "confident"),
    }
    assert find_letter(Observer(broker), "bad").reason == "the prompt holds the blocked phrase 'gore'"
    assert totals(broker)["failed:unsafe"] == 1


def test_a_prompt_sent_straight_to_heavy_is_read_too_and_one_of_another_size_or_format_fails(broker: Broker) -> None:
    plan_for(broker, "heavy")
    publish(broker, "bad", route="heavy", prompt="gore")
    publish(broker, "large", route="heavy", parameters={"size": "4096x4096"})
    publish(broker, "odd", route="heavy", parameters={"picture_format": "gif"})
    publish(broker, "fine", route="heavy", parameters={"size": "64x64", "picture_format": "png"})
    with forbidding("gore"), working(broker, drawn := Easel("heavy")) as worker:
        worker.step()
    assert drawn.batches == [["fine"]]
    assert ends(broker) == {
        "bad": ("failed", "unsafe"),
        "large": ("failed", "size"),
        "odd": ("failed", "format"),
        "fine": ("heavy", "heavy"),
    }
    assert find_letter(Observer(broker), "odd").reason == "picture_format 'gif' is none of webp, png"
    told = find_letter(Observer(broker), "large").reason
    assert told == "size 4096x4096 is not among those of this cascade: 64x64"


def flagged(_: Job) -> Picture:
    return Picture(b"", 0.9, flagged=True)


def test_a_flagged_light_picture_ends_its_prompt_once_and_is_not_stored(broker: Broker, observer: Observer) -> None:
    plan_for(broker)
    publish(broker)
    drawn = Easel("light", flagged)
    with working(broker, drawn) as worker:
        worker.step()
    (ended,) = outcomes(broker)
    assert (ended.end, ended.why, len(ended.visits)) == ("failed", "unsafe", 1)
    assert observer.image("p", "light") is None
    letter = find_letter(observer, "p")
    assert letter.reason == "the safety checker flagged the light picture"
    assert (drawn.batches, observer.backlog()["light"].waiting) == ([["p"]], 0), "nothing is tried again"


def test_of_a_flagged_heavy_picture_the_light_one_is_the_answer(broker: Broker, observer: Observer) -> None:
    plan_for(broker, "heavy")
    publish(broker)
    publish(broker, "straight", route="heavy")
    light = hire(broker)
    light.escalate(light.one())
    with working(broker, Easel("heavy", flagged)) as worker:
        worker.step()
        worker.step()
    assert ends(broker) == {"p": ("light", "unsafe"), "straight": ("failed", "unsafe")}
    assert observer.images([("p", "heavy"), ("straight", "heavy")]) == [None, None]
    assert observer.image("p", "light") == b"light"


def test_the_faulty_backend_can_be_asked_for_a_picture_that_is_flagged() -> None:
    backend = FaultyBackend(CASCADE, "heavy", "cpu")
    drawn = backend.draw([job("bad", parameters={"fault": "unsafe"}), job("good")])
    assert [picture.flagged for picture in drawn] == [True, False]
