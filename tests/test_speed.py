"""What stays true when pictures are drawn faster: the same pictures, each its prompt's own, nothing compiled late."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
import torch._dynamo.utils
import torch._inductor.config
from torch import nn

from models.compiled import Compiled, filled, keep_compiled_in, warming_up
from models.libraries import modules_of
from models.prompts import PromptCache
from models.schedule import HostSchedule, host_schedule
from models.speed import Quick, keep_wide
from models.swapping import Weights
from models.switches import UNCHANGED
from tests.small_pipelines import CAPTIONS, GUIDANCE, KINDS, STEPS, drawn, psnr, quick

IN_PIPELINE = [name for name in UNCHANGED if name not in {"threaded_encoding", "compile"}]
ALL_KINDS = {kind: [name for name in IN_PIPELINE if (kind, name) != ("third", "fused_projections")] for kind in KINDS}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("kind", KINDS)
def test_switches_that_keep_the_picture_do_alone_and_together(kind: str) -> None:
    plain = drawn(KINDS[kind](), range(3))
    for switches in (*([name] for name in ALL_KINDS[kind]), ALL_KINDS[kind]):
        made = quick(kind, *switches)
        assert sorted(made.applied) == sorted(switches)
        assert psnr(drawn(made, range(3)), plain) > 60, switches


def test_a_fused_attention_that_would_be_another_is_passed_over_with_the_reason() -> None:
    made = quick("third", "fused_projections", "cached_features")
    assert made.applied == []
    assert "normalises queries" in made.passed_over["fused_projections"]
    assert "only for a UNet" in made.passed_over["cached_features"]
    assert psnr(drawn(made, [0]), drawn(KINDS["third"](), [0])) == 120


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_kept_embeddings_are_the_pipelines_own_and_no_prompt_is_encoded_twice(kind: str) -> None:
    pipeline = KINDS[kind]()
    cache = PromptCache(pipeline)
    encoded: list[int] = []
    pipeline.text_encoder.register_forward_pre_hook(lambda _, given: encoded.append(len(given[0])))
    cache.arguments([CAPTIONS[1]], guided=True)
    told = cache.arguments([CAPTIONS[0], CAPTIONS[1], CAPTIONS[0]], guided=True)
    assert encoded[0] == encoded[-1] == 1, "the second prompt was new, and stood twice in its batch"
    before = len(encoded)
    cache.arguments(CAPTIONS[:2], guided=True)
    assert len(encoded) == before
    more = {"xl": {"prompt_2": None}, "third": {"prompt_2": None, "prompt_3": None}}.get(kind, {})
    prompts = [CAPTIONS[0], CAPTIONS[1], CAPTIONS[0]]
    own = pipeline.encode_prompt(
        prompt=prompts, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True, **more
    )
    names = ["prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"]
    assert sorted(told) == sorted(names[: len(own)])
    for name, expected in zip(names, own, strict=False):
        torch.testing.assert_close(told[name], expected, atol=1e-5, rtol=1e-4)


def test_kept_embeddings_stay_within_their_budget_and_the_latest_stay() -> None:
    pipeline = KINDS["tiny"]()
    one = sum(each.nbytes for each in PromptCache(pipeline).arguments(CAPTIONS[:1], guided=False).values())
    cache = PromptCache(pipeline, budget=2 * one)
    for caption in CAPTIONS:
        cache.arguments([caption], guided=False)
    assert list(cache._known) == CAPTIONS[-2:]
    assert len(cache.arguments(CAPTIONS, guided=False)["prompt_embeds"]) == len(CAPTIONS)


SCHEDULERS = [
    diffusers.DDIMScheduler(steps_offset=1),
    diffusers.PNDMScheduler(skip_prk_steps=True, steps_offset=1),
    diffusers.EulerDiscreteScheduler(timestep_spacing="trailing"),
    diffusers.FlowMatchEulerDiscreteScheduler(),
]


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda scheduler: type(scheduler).__name__)
def test_no_step_asks_the_device_for_a_number(scheduler: Any) -> None:
    # A meta tensor holds no number: whoever asks for one gets an error where a GPU would be waited for.
    schedule = HostSchedule(scheduler)
    for _ in range(2):
        schedule.set_timesteps(STEPS, device="meta")
        latents = torch.empty(2, 4, 8, 8, device="meta")
        for timestep in schedule.timesteps:
            assert timestep.is_meta
            scaled = (
                schedule.scale_model_input(latents, timestep) if hasattr(scheduler, "scale_model_input") else latents
            )
            latents = schedule.step(scaled, timestep, latents, return_dict=False)[0]
        assert latents.is_meta


def test_plain_diffusers_does_ask_in_each_step() -> None:
    scheduler = diffusers.DDIMScheduler(steps_offset=1)
    scheduler.set_timesteps(STEPS, device="meta")
    latents = torch.empty(2, 4, 8, 8, device="meta")
    with pytest.raises((RuntimeError, NotImplementedError)):
        scheduler.step(latents, scheduler.timesteps[0], latents)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_no_step_of_a_whole_drawing_does(kind: str) -> None:
    pipeline = KINDS[kind]()
    words = PromptCache(pipeline).arguments(CAPTIONS[:2], guided=True)
    host_schedule(pipeline)
    latents = pipeline.to("meta")(
        **{name: each.to("meta") for name, each in words.items()},
        generator=[torch.Generator().manual_seed(place) for place in range(2)],
        num_inference_steps=STEPS, guidance_scale=GUIDANCE, output_type="latent", return_dict=False,
    )[0]  # fmt: skip
    assert latents.is_meta


def test_a_decoder_that_is_kept_wide_draws_as_one_that_is_widened_for_each_batch() -> None:
    pipeline = KINDS["xl"]().to(torch.float16)
    before = drawn(pipeline, [0]).float()
    assert pipeline.vae.dtype == torch.float16
    keep_wide(pipeline)
    places = {each.data_ptr() for each in pipeline.vae.parameters()}
    assert psnr(drawn(pipeline, [0]).float(), before) > 50
    assert {each.data_ptr() for each in pipeline.vae.parameters()} == places


def test_a_decoder_that_is_kept_wide_leaves_its_device_whole_after_it_has_drawn() -> None:
    pipeline = KINDS["xl"]().to(torch.float16)
    keep_wide(pipeline)
    weights = Weights(networks := modules_of(pipeline), torch.device("cpu"))
    weights.load()
    drawn(pipeline, [0])
    weights.unload()
    tensors = [each for network in networks for each in (*network.parameters(), *network.buffers())]
    assert sum(each.untyped_storage().nbytes() for each in tensors) == 0


class Counting:
    """A backend of torch.compile that runs what it is given and counts."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, graph: Any, _inputs: Any) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            self.runs += 1
            return graph.forward(*given)

        return run


def compiled_with(made: Quick, backend: Any, *networks: nn.Module) -> Quick:
    made.compiled = Compiled(networks, torch.device("cpu"), backend)
    made.applied.append("compile")
    return made


def test_a_served_prompt_never_compiles_and_is_the_same_in_any_batch() -> None:
    plain = [drawn(KINDS["tiny"](), [place]) for place in range(5)]
    made, backend = quick("tiny", *IN_PIPELINE), Counting()
    compiled_with(made, backend, made.denoiser, made.pipeline.vae.decoder)
    with warming_up():
        drawn(made, range(4))
    assert made.compiled is not None
    assert made.compiled.sizes == {4}
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for batch, runs in ((1, 0), (3, STEPS + 1), (4, STEPS + 1), (5, 0)):
        before = backend.runs
        pictures = drawn(made, range(batch))
        assert len(pictures) == batch
        assert backend.runs - before == runs, (
            f"a batch of {batch}: three are filled up to four, other sizes run plainly"
        )
        assert psnr(pictures, torch.cat(plain[:batch])) > 60
    drawn(made, range(4), width=128, height=64)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


def test_what_cannot_be_compiled_is_drawn_plainly_and_says_why() -> None:
    def broken(_graph: Any, _inputs: Any) -> Any:
        raise ValueError("no such instruction")

    made = quick("tiny")
    compiled_with(made, broken, made.pipeline.vae.decoder)
    with warming_up():
        drawn(made, [0])
    assert made.compiled is None
    assert made.applied == []
    assert "no such instruction" in made.passed_over["compile"]
    assert psnr(drawn(made, [0]), drawn(KINDS["tiny"](), [0])) > 60


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr("models.speed.keep_compiled_in", lambda _folder, _logger: None)
    made = quick("tiny", "compile")
    assert made.compiled is None
    assert "no C++ compiler" in made.passed_over["compile"]


def test_what_was_compiled_is_kept_where_a_restart_does_not_empty_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    from torch._inductor.runtime.cache_dir_utils import cache_dir, default_cache_dir

    for before in (None, default_cache_dir()):
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
        if before:
            monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", before)
        keep_compiled_in(tmp_path / "kept", SimpleNamespace(warning=None))  # type: ignore[arg-type]
        assert cache_dir() == str(tmp_path / "kept")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "mine"))
    keep_compiled_in(tmp_path / "kept", SimpleNamespace(warning=None))  # type: ignore[arg-type]
    assert cache_dir() == str(tmp_path / "mine")


@pytest.mark.parametrize(
    ("batch", "compiled", "size"),
    [(3, [1, 2, 4], 4), (5, [4, 8], 5), (6, [4, 8, 16], 8), (4, [4], 4), (9, [8], 9), (1, [], 1), (1, [2], 1)],
)
def test_a_batch_is_filled_up_only_where_that_costs_less_than_compiling_gains(
    batch: int, compiled: list[int], size: int
) -> None:
    assert filled(batch, compiled) == size
