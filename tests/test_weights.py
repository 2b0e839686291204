"""Fetching weights, against a hub on this machine: what comes is what the row pins, whole, and loads."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.numpy import save

from models.diffusion import DiffusionBackend, load_pipeline
from models.holdings import chosen, holdings, lacking
from shared.catalog import TABLES, load_model
from shared.errors import ModelError
from shared.messages import Job
from tests.fetching import NOT_NEEDED, PART_PIN, PIN, RENAMED, ROOT, ROWS, UNET, Place, pipeline_files
from tests.hub import TOKEN, Hub


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return pipeline_files()


@pytest.fixture
def place(tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    (tmp_path / "own.toml").write_text(ROWS)
    monkeypatch.setenv("CASCADE_CATALOG", str(tmp_path / "own.toml"))
    hub = Hub()
    heavy = (TABLES / "tiny/heavy/unet/diffusion_pytorch_model.safetensors").read_bytes()
    hub.repositories = {
        "us/turbo": {PIN: dict(files)},
        "them/faster": {PART_PIN: {"faster_unet.safetensors": heavy, "faster.ckpt": b"a pickle"}},
    }
    for name, value in {"ENDPOINT": hub.url, "HF_HUB_OFFLINE": False, "HF_HUB_CACHE": str(tmp_path)}.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield Place(tmp_path, hub)
    hub.close()


def test_what_is_fetched_is_what_the_row_needs_and_both_models_draw_with_it(
    place: Place, files: dict[str, bytes]
) -> None:
    ended = place.run("--cascade", "ours")
    assert ended.returncode == 0, ended.stderr
    assert place.there("turbo") == (files.keys() - NOT_NEEDED.keys()) | {"fetched.json"}
    assert place.there("sharing") == place.there("turbo") - {UNET}, "of a part from elsewhere, the architecture alone"
    assert place.there("sharing-unet") == {"faster_unet.safetensors", "fetched.json"}
    encoders = [place.weights / name / RENAMED["text_encoder/model.safetensors"] for name in ("turbo", "sharing")]
    assert encoders[0].samefile(encoders[1]), "what two models share is on the disk once"
    for word in ("Apache-2.0 / openrail++", "aaaaaaaa", "us/turbo", "checksums right", "safety checker: no"):
        assert word in ended.stdout
    assert f"discriminator: none in {place.weights / 'discriminator-ours'}" in ended.stdout
    for name in ("turbo", "sharing"):
        model = load_model(name)
        assert all(held.place and not held.lacks for held in holdings(model))
        backend = DiffusionBackend(model, "heavy", load_pipeline(model, torch.device("cpu")))
        assert len(backend.draw([Job("a", "big red circle on white", 0.0, 9.0)])) == 1
    asked = len(place.hub.asked)
    place.fetch("--cascade", "ours")
    assert {path for path, _ in place.hub.asked[asked:]} <= {"model_index.json"}, "nothing comes twice"


def big(value: int) -> bytes:
    """A safetensors file of 24 MB: the hub's library writes ten at a time."""
    return bytes(save({"weight": np.full(24_000_000, value, np.uint8)}))


def test_a_fetch_that_was_killed_goes_on_where_it_ended(place: Place) -> None:
    place.hub.repositories["us/turbo"][PIN][UNET] = big(7)
    place.hub.stop_after[UNET] = 22_000_000
    command = subprocess.Popen(
        place.command("--model", "turbo"),
        cwd=ROOT,
        env=place.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    partials = place.weights / ".partial"
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size >= 20_000_000 for path in partials.glob("*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "under way" in place.refusal("--model", "turbo"), "meanwhile nobody else appends to it"
    ended = place.run("--model", "turbo")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), "which the command says in one line"
    command.kill()
    command.wait()
    assert lacking(load_model("turbo"), place.weights / "turbo")
    assert not (place.weights / "turbo" / UNET).exists()
    ended = place.run("--model", "turbo")
    assert ended.returncode == 0, ended.stderr
    (_, first), (_, second) = [asked for asked in place.hub.asked if asked[0] == UNET]
    assert (first, second) == ("", "bytes=20971520-")
    assert (place.weights / "turbo" / UNET).read_bytes() == big(7)
    assert not lacking(load_model("turbo"), place.weights / "turbo")


def test_bytes_that_are_not_the_hubs_are_not_kept(place: Place, files: dict[str, bytes]) -> None:
    place.hub.other_bytes[UNET] = bytes(len(files[UNET]))
    said = place.refusal("--model", "turbo")
    assert said.startswith(f"us/turbo/{UNET}: checksum ") and "not the hub's" in said
    assert not (place.weights / "turbo" / UNET).exists()
    place.hub.other_bytes.clear()
    place.fetch("--model", "turbo")
    (place.weights / "turbo" / UNET).write_bytes(bytes(len(files[UNET])))
    place.fetch("--model", "turbo")
    assert (place.weights / "turbo" / UNET).read_bytes() == files[UNET], "one that was spoilt later comes again"


def test_another_revision_replaces_what_differs_and_what_is_no_longer_meant(
    place: Place, files: dict[str, bytes]
) -> None:
    place.fetch("--model", "turbo")
    later, vae = "c" * 40, "vae/diffusion_pytorch_model.safetensors"
    moved = {path: content for path, content in files.items() if path != vae}
    moved["vae/diffusion_pytorch_model.fp16.safetensors"] = files[vae]
    moved["scheduler/scheduler_config.json"] = files["scheduler/scheduler_config.json"].replace(b"1000", b"2000")
    place.hub.repositories["us/turbo"][later] = moved
    (place.home / "own.toml").write_text(ROWS.replace(PIN, later))
    assert "holds revision aaaaaaaa, not cccccccc" in lacking(load_model("turbo"), place.weights / "turbo")
    before = len(place.hub.asked)
    place.fetch("--model", "turbo")
    came = {path for path, _ in place.hub.asked[before:]}
    assert came - {"model_index.json"} == {"scheduler/scheduler_config.json"}, "the decoder is here under another name"
    assert vae not in place.there("turbo")
    assert not lacking(load_model("turbo"), place.weights / "turbo")


def test_what_cannot_be_had_is_one_line_before_anything_large_comes(
    place: Place, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(change: str = "", by: str = "") -> str:
        (place.home / "own.toml").write_text(ROWS.replace(change, by) if change else ROWS)
        return place.refusal("--model", "turbo")

    assert "no model 'nobody' in" in place.refusal("--model", "nobody")
    assert f"us/turbo has no revision {'d' * 40}" in said(PIN, "d" * 40)
    assert "the hub has no model 'us/none'" in said("us/turbo", "us/none")
    assert "'a/b/c' is neither a folder beside the catalogue nor a hub id" in said("us/turbo", "a/b/c")
    assert "text_encoder has no weights of the variant 'fp8', and no plain ones" in said("fp16", "fp8")
    pickled = {path: content for path, content in files.items() if not path.startswith("unet/") or ".bin" in path}
    place.hub.repositories["us/turbo"]["e" * 40] = pickled
    assert "unet has its weights as a pickle only (diffusion_pytorch_model.bin)" in said(PIN, "e" * 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert "HF_HUB_OFFLINE is set" in said()
        patch.undo()
        patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
        assert "the hub at http://127.0.0.1:1 does not answer as it should" in said()
    place.hub.gated.add("us/turbo")
    assert "us/turbo is gated, and there is no token: set HF_TOKEN" in said()
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    assert "the token in HF_TOKEN has no leave" in said()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    place.hub.claimed[UNET] = 10**16
    no_room = said()
    assert "no room in" in no_room and "GiB are still to come" in no_room and "GiB are free" in no_room
    place.hub.claimed.clear()
    assert {path for path, _ in place.hub.asked} <= {"model_index.json"}
    assert not (place.weights / "turbo").exists()
    place.fetch("--model", "turbo")


def test_files_downloaded_by_hand_are_taken_and_a_spoilt_one_is_named(place: Place, files: dict[str, bytes]) -> None:
    by_hand = place.home / "downloads"
    for path, content in files.items():
        (by_hand / "turbo" / path).parent.mkdir(parents=True, exist_ok=True)
        (by_hand / "turbo" / path).write_bytes(content)
    assert "no faster_unet.safetensors of them/faster" in place.refusal("--model", "sharing", "--from", str(by_hand))
    unet = by_hand / "turbo" / UNET
    unet.write_bytes(files[UNET][:-9])
    assert f"{unet}: no safetensors file, or a cut one" in place.refusal("--model", "turbo", "--from", str(by_hand))
    unet.write_bytes(files[UNET])
    note = by_hand / "turbo" / ".cache/huggingface/download" / f"{UNET}.metadata"
    note.parent.mkdir(parents=True)
    note.write_text(f"{PIN}\n{'0' * 64}\n1.0\n")
    assert f"{unet}: SHA-256" in place.refusal("--model", "turbo", "--from", str(by_hand))
    note.write_text(f"{'f' * 40}\n{'0' * 64}\n1.0\n")
    assert "is of revision ffffffff" in place.refusal("--model", "turbo", "--from", str(by_hand))
    note.unlink()
    assert not place.weights.exists()
    place.fetch("--model", "turbo", "--from", str(by_hand))
    assert place.there("turbo") == (files.keys() - NOT_NEEDED.keys()) | {"fetched.json"}
    assert not place.hub.asked
    load_pipeline(load_model("turbo"), torch.device("cpu"))
    listed = place.fetch("--cascade", "ours", "--list")
    assert str(place.weights / "turbo") in listed and "sharing-unet" in listed and "missing: neither" in listed
    shutil.rmtree(place.weights / "turbo" / "vae")
    assert "there is no folder vae" in lacking(load_model("turbo"), place.weights / "turbo")


NAMES: list[tuple[list[str], str, Any]] = [
    (["model.safetensors", "model.fp16.safetensors"], "fp16", ["model.fp16.safetensors"]),
    (["model.safetensors", "model.fp16.safetensors"], "", ["model.safetensors"]),
    (["model.safetensors"], "fp16", ["model.safetensors"]),
    (["model.fp16.safetensors"], "", []),
    (["model-00001-of-00002.safetensors"], "", ModelError),
    (["model-00001-of-00001.safetensors", "model.safetensors.index.json"], "", ["both"]),
    (["model.fp16-00001-of-00001.safetensors", "model.safetensors.index.fp16.json", "model.safetensors.index.json"],
     "fp16", ["model.fp16-00001-of-00001.safetensors", "model.safetensors.index.fp16.json"]),
]  # fmt: skip


@pytest.mark.parametrize(("names", "variant", "taken"), NAMES)
def test_of_a_part_one_set_of_weights_is_taken(names: list[str], variant: str, taken: Any) -> None:
    if taken is ModelError:
        with pytest.raises(ModelError, match="1 of 2 shards"):
            chosen(names, variant, "us/turbo: unet")
    else:
        assert chosen(names, variant, "us/turbo: unet") == (names if taken == ["both"] else taken)
