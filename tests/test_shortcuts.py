"""What stays true of switches that change the picture: they leave out what they say, and each picture is its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.small_pipelines import KINDS, STEPS, drawn, psnr, quick


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_in_half_of_the_steps_halves_the_denoisers_batch_from_there(kind: str) -> None:
    made = quick(kind, "guidance_until=0.5")
    seen: list[int] = []
    made.denoiser.register_forward_pre_hook(
        lambda _, given, named: seen.append(len(named.get("hidden_states", given[0] if given else None))),
        with_kwargs=True,
    )
    first = drawn(made, range(2))
    assert seen == [4] * (STEPS // 2) + [2] * (STEPS - STEPS // 2)
    assert psnr(drawn(made, range(2)), first) > 60, "the next batch is guided anew"
    assert seen[STEPS : STEPS + 1] == [4]
    assert psnr(first, torch.cat([drawn(made, [place]) for place in range(2)])) > 60


@pytest.mark.parametrize("kind", ["tiny", "xl"])
def test_cached_features_skip_the_deep_blocks_in_every_other_step(kind: str) -> None:
    made = quick(kind, "cached_features=2")
    runs = {"deep": 0, "shallow": 0}
    unet: Any = made.denoiser
    count(unet.mid_block.resnets[0], runs, "deep")
    count(unet.up_blocks[-1].resnets[0], runs, "shallow")
    pictures = drawn(made, range(2))
    assert runs == {"deep": STEPS // 2, "shallow": STEPS}
    whole = drawn(KINDS[kind](), range(2))
    assert 15 < psnr(pictures, whole) < 110
    assert psnr(pictures, torch.cat([drawn(made, [place]) for place in range(2)])) > 60


def count(module: nn.Module, runs: dict[str, int], name: str) -> None:
    def ran(*_: Any) -> None:
        runs[name] += 1

    module.register_forward_hook(ran)


def test_features_of_a_guided_step_are_not_used_in_an_unguided_one() -> None:
    made = quick("tiny", "cached_features=2", "guidance_until=0.5")
    runs = {"deep": 0}
    denoiser: Any = made.denoiser
    count(denoiser.mid_block.resnets[0], runs, "deep")
    drawn(made, range(2))
    assert runs["deep"] == STEPS // 2 + 1, "the first step without guidance, the fourth, runs the deep blocks anew"


def test_coarse_weights_draw_nearly_the_same() -> None:
    made = quick("tiny", "int8", "fused_projections")
    kept = [each for each in made.denoiser.modules() if isinstance(each, nn.Linear)]
    assert not kept
    assert 20 < psnr(drawn(made, range(2)), drawn(KINDS["tiny"](), range(2))) < 110
