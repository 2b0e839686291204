"""A model that does not fit is refused before anything of it is loaded."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models import diffusion, memory
from models.diffusion import load_pipeline, open_diffusion
from models.libraries import modules_of
from models.memory import free_bytes, weights_bytes
from shared.catalog import TABLES, unmeasured
from shared.errors import ModelError

TINY = unmeasured("tiny")
HEAVY = TINY.models["heavy"]
CPU = torch.device("cpu")


def test_the_headers_tell_what_the_loaded_weights_take() -> None:
    modules = modules_of(load_pipeline(HEAVY, CPU))
    loaded = sum(parameter.nbytes for module in modules for parameter in module.parameters())
    assert weights_bytes(HEAVY, torch.float32) == pytest.approx(loaded, rel=0.01)
    assert weights_bytes(HEAVY, torch.float16) == pytest.approx(loaded / 2, rel=0.01)


def test_of_several_variants_only_the_one_in_use_counts(tmp_path: Path) -> None:
    shutil.copytree(TABLES / "tiny/heavy", tmp_path / "tiny/heavy")
    unet = tmp_path / "tiny/heavy/unet"
    plain = replace(HEAVY, home=tmp_path)
    before = weights_bytes(plain, torch.float16)
    whole = (unet / "diffusion_pytorch_model.safetensors").stat().st_size
    for piece in (1, 2):
        part = {"w": torch.zeros(1000, dtype=torch.float16), "places": torch.zeros(10, dtype=torch.int64)}
        save_file(part, unet / f"diffusion_pytorch_model.fp16-0000{piece}-of-00002.safetensors")
    (tmp_path / "tiny/heavy/safety_checker").mkdir()
    save_file({"w": torch.zeros(10**6)}, tmp_path / "tiny/heavy/safety_checker/model.safetensors")
    assert weights_bytes(plain, torch.float16) == before
    variant = weights_bytes(replace(plain, variant="fp16"), torch.float16)
    assert before - variant + 2 * (2000 + 80) == pytest.approx(whole, rel=0.01)


def test_pieces_left_beside_a_whole_file_do_not_count(tmp_path: Path) -> None:
    """As the loader has it, and who fetches: the whole file is taken."""
    shutil.copytree(TABLES / "tiny/heavy", tmp_path / "tiny/heavy")
    plain = replace(HEAVY, home=tmp_path)
    before = weights_bytes(plain, torch.float32)
    for piece in (1, 2):
        file = tmp_path / f"tiny/heavy/unet/diffusion_pytorch_model-0000{piece}-of-00002.safetensors"
        save_file({"w": torch.zeros(10**6)}, file)
    assert weights_bytes(plain, torch.float32) == before


def test_of_a_folder_that_cannot_be_loaded_the_rows_own_figure_counts(tmp_path: Path) -> None:
    shutil.copytree(TABLES / "tiny/heavy", tmp_path / "tiny/heavy")
    (tmp_path / "tiny/heavy/unet/diffusion_pytorch_model.safetensors").unlink()
    assert weights_bytes(replace(HEAVY, home=tmp_path, memory_gib=1.5), torch.float32) == 1.5 * 2**30


def test_where_files_are_not_at_hand_the_rows_own_figure_counts(tmp_path: Path) -> None:
    assert weights_bytes(replace(HEAVY, home=tmp_path, memory_gib=1.5), torch.float32) == 1.5 * 2**30


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = weights_bytes(HEAVY, torch.float32)
    monkeypatch.setattr(diffusion, "pipeline_of", lambda *_: pytest.fail("it was loaded"))
    monkeypatch.setattr(memory, "free_bytes", lambda _device: needed - 1)
    with pytest.raises(ModelError, match=r"tiny-heavy needs 0\.0\d GiB .* has 0\.0\d GiB of memory free: end what"):
        open_diffusion(TINY, "heavy", "cpu")
    monkeypatch.undo()
    monkeypatch.setattr(memory, "free_bytes", lambda _device: needed)
    assert open_diffusion(TINY, "heavy", "cpu").stage == "heavy"


def test_a_containers_limit_counts_less_the_files_that_it_only_caches(tmp_path: Path) -> None:
    assert 2**20 < free_bytes(CPU) < 2**62
    assert memory._group_free(tmp_path) == float("inf")
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._group_free(tmp_path) == float("inf")
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 300\ninactive_file 500\n")
    assert memory._group_free(tmp_path) == 600
