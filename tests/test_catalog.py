"""The tables under models/: the published figures stand in them, and a wrong row is named."""

from __future__ import annotations

import csv
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.diffusion import load_pipeline
from shared.catalog import TABLES, catalogs, load_cascade, load_model
from shared.errors import ModelError, SettingsError
from shared.measured import read_curves, read_profiles

# Seconds per batch of 1, 2, 4, 8, 16, 32 on an A100-80G, FID at a heavy share of 0, 0.1, ... 1, deadline: DiffServe
# artifact 7f2e4d7 (profiling/*.csv, plotting/plot_results.py).
SECONDS = {
    "sd-turbo": [0.100, 0.150, 0.220, 0.410, 0.770, 1.560],
    "sdxs-512": [0.050, 0.060, 0.080, 0.130, 0.240, 0.480],
    "sd-v1-5": [1.780, 2.160, 3.680, 6.790, 12.880, 25.350],
    "sdxl-lightning": [0.550, 0.980, 1.850, 3.580, 7.100],
    "sdxl-base": [6.100, 10.650, 20.920, 40.230, 79.110],
}
CASCADES = {
    "sdturbo": ("sd-turbo", "sd-v1-5", 5.0),
    "sdxs": ("sdxs-512", "sd-v1-5", 5.0),
    "sdxlltn": ("sdxl-lightning", "sdxl-base", 15.0),
}
FID = {
    "sdturbo": [22.77, 20.17, 18.86, 17.95, 17.26, 16.95, 16.79, 16.98, 17.33, 17.85, 18.55],
    "sdxs": [24.86, 22.34, 20.54, 19.23, 18.21, 17.58, 17.13, 16.97, 17.08, 17.68, 18.55],
    "sdxlltn": [33.27, 31.01, 29.27, 27.53, 26.34, 25.33, 24.42, 23.67, 23.27, 23.14, 23.31],
}


@pytest.mark.parametrize("name", CASCADES)
def test_the_published_figures_stand_under_the_models_own_names(name: str) -> None:
    cascade, (light, heavy, deadline_s) = load_cascade(name), CASCADES[name]
    assert (cascade.models["light"].name, cascade.models["heavy"].name) == (light, heavy)
    assert (cascade.deadline_s, cascade.gpu, cascade.discriminator_s) == (deadline_s, "a100-80g", 0.02)
    for model, profile in ((light, cascade.profile("light")), (heavy, cascade.profile("heavy"))):
        assert list(profile.p50_s.values()) == SECONDS[model]
        assert profile.batches == (1, 2, 4, 8, 16, 32)[: len(SECONDS[model])]
    assert cascade.curve().points == tuple((share / 10, fid) for share, fid in enumerate(FID[name]))
    assert "published" in cascade.curve().source and not cascade.curve().assumed
    lot = cascade.curve("lot")
    assert lot.assumed and lot.at(0.25) == pytest.approx(0.75 * FID[name][0] + 0.25 * FID[name][-1])


PROFILES = [
    ("1,0.1,0.1\n2,0.2,zero\n", ":3: p95_s is no number: 'zero'"),
    ("1,0.1,0.1\n2,nan,0.2\n", ":3: p50_s is no number: 'nan'"),
    ("1,0.1,0.1\n2,-1,0.2\n", ":3: p50_s must be positive, not -1"),
    ("1,0.1,0.1\n2,,0.2\n", ":3: no p50_s"),
    ("1,0.1,0.1\n4,0.3,0.3\n2,0.2,0.2\n", ":4: batch 2 comes after 4"),
    ("1,0.1,0.1\n1.5,0.2,0.2\n", ":3: batch must be a whole number of at least 1, not 1.5"),
    ("2,0.2,0.2\n4,0.3,0.3\n", ":2: batch 1 of GPU 'cpu' is missing"),
]


@pytest.mark.parametrize(("rows", "said"), PROFILES)
def test_a_wrong_row_of_a_profile_is_named(tmp_path: Path, rows: str, said: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text("model,gpu,batch,p50_s,p95_s\n" + "".join(f"m,cpu,{row}\n" for row in rows.splitlines()))
    with pytest.raises(SettingsError) as caught:
        read_profiles(path)
    assert str(caught.value).startswith(f"{path}{said}")


CURVES = [
    ("discriminator,0,9\ndiscriminator,0.2,8\ndiscriminator,0.1,7\n", ":4: heavy_share 0.1 comes after 0.2"),
    ("discriminator,0,9\ndiscriminator,0,8\n", ":3: heavy_share 0 comes after 0"),
    ("discriminator,0,9\ndiscriminator,1.1,8\n", ":3: heavy_share must lie between 0 and 1, not 1.1"),
    ("discriminator,0,inf\n", ":2: fid is no number: 'inf'"),
    ("discriminator,none,9\n", ":2: heavy_share is no number: 'none'"),
    ("\n\n,0,9\n", ":4: no selector"),
]


@pytest.mark.parametrize(("rows", "said"), CURVES)
def test_a_wrong_row_of_a_curve_is_named(tmp_path: Path, rows: str, said: str) -> None:
    path = tmp_path / "q.csv"
    path.write_text("selector,heavy_share,fid\n" + rows)
    with pytest.raises(SettingsError) as caught:
        read_curves(path)
    assert str(caught.value).startswith(f"{path}{said}")


def test_two_selectors_may_take_turns_in_a_table(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text("selector,heavy_share,fid\nlot,0,9\ndiscriminator,0,9\nlot,1,5\ndiscriminator,1,5\n")
    assert {key: curve.points for key, curve in read_curves(path).items()} == {
        ("lot", "fid"): ((0.0, 9.0), (1.0, 5.0)),
        ("discriminator", "fid"): ((0.0, 9.0), (1.0, 5.0)),
    }


def test_a_cascade_whose_own_gpu_has_no_profile_is_named_when_it_is_read(tmp_path: Path) -> None:
    for part in ("catalog.toml", "profiles/sd-turbo.csv", "profiles/sd-v1-5.csv", "quality/sdturbo.csv"):
        (tmp_path / part).parent.mkdir(exist_ok=True)
        shutil.copy(TABLES / part, tmp_path / part)
    assert load_cascade("sdturbo", tmp_path).batches("light") == (1, 2, 4, 8, 16, 32)
    catalogue = tmp_path / "catalog.toml"
    catalogue.write_text(catalogue.read_text().replace('gpu = "a100-80g"', 'gpu = "h100"'))
    with pytest.raises(SettingsError, match=r"sd-turbo.csv has no rows for GPU 'h100'; it knows a100-80g"):
        load_cascade("sdturbo", tmp_path)
    (tmp_path / "quality" / "sdturbo.csv").write_bytes(b"selector,heavy_share,fid\n\xff\xfe,0,1\n")
    with pytest.raises(SettingsError, match=r"sdturbo.csv: no table"):
        load_cascade("sdturbo", tmp_path)
    (tmp_path / "quality" / "sdturbo.csv").unlink()
    with pytest.raises(SettingsError, match=r"sdturbo.csv: No such file"):
        load_cascade("sdturbo", tmp_path)


OWN = """
[models.mine-light]
source = "{tiny}/light"
steps = 3
guidance = 0
size = 64
memory_gib = 0.5

[models.mine-light.parts.unet]
source = "someone/unet"
file = "unet.safetensors"

[models.tiny-heavy]
source = "{tiny}/heavy"
pipeline = "StableDiffusionPipeline"
scheduler = "EulerDiscreteScheduler"
scheduler_settings = {{ timestep_spacing = "leading" }}
steps = 5
guidance = 2.0
size = 64
memory_gib = 0.5

[cascades.mine]
light = "mine-light"
heavy = "tiny-heavy"
deadline_s = 7
gpu = "cpu"
metric = "accuracy"
discriminator = "{tiny}/discriminator"
discriminator_s = 0.0
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue of the user's, with tables beside it."""
    for kind, source, name in (
        ("profiles", "tiny-light", "mine-light"),
        ("profiles", "tiny-heavy", "tiny-heavy"),
        ("quality", "tiny", "mine"),
    ):
        (tmp_path / kind).mkdir(exist_ok=True)
        shutil.copy(TABLES / kind / f"{source}.csv", tmp_path / kind / f"{name}.csv")
    path = tmp_path / "own.toml"
    path.write_text(OWN.format(tiny=TABLES / "tiny"))
    monkeypatch.setenv("CASCADE_CATALOG", str(path))
    return path


def test_a_file_of_the_users_adds_rows_and_its_row_is_meant_where_two_have_one_name(own: Path) -> None:
    mine = load_cascade("mine")
    assert (mine.deadline_s, mine.home, mine.models["light"].home) == (7.0, own.parent, own.parent)
    assert (load_model("tiny-heavy").steps, load_model("tiny-light").steps) == (5, 2)
    assert mine.batches("light") == load_cascade("tiny").batches("light")
    with pytest.raises(SettingsError, match=r"no cascade 'nope' in .*own.toml or .*catalog.toml; there is mine, t"):
        load_cascade("nope")


def test_a_row_says_class_scheduler_and_whose_weights_a_part_has(own: Path) -> None:
    models, cpu = load_cascade("mine").models, torch.device("cpu")
    heavy: Any = load_pipeline(models["heavy"], cpu)
    assert type(heavy.scheduler).__name__ == "EulerDiscreteScheduler"
    assert heavy.scheduler.config.timestep_spacing == "leading"
    with pytest.raises(ModelError, match=r"cannot load mine-light .*someone/unet"):
        load_pipeline(models["light"], cpu)
    weights = own.parent / "weights" / "mine-light-unet"
    weights.mkdir(parents=True)
    shutil.copy(TABLES / "tiny/heavy/unet/diffusion_pytorch_model.safetensors", weights / "unet.safetensors")
    light: Any = load_pipeline(models["light"], cpu)
    pairs = list(zip(light.unet.parameters(), heavy.unet.parameters(), strict=True))
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs), "the part's weights, not the folder's own"
    with pytest.raises(ModelError, match="no NoScheduler"):
        load_pipeline(replace(models["heavy"], scheduler="NoScheduler"), cpu)
    with pytest.raises(ModelError, match="no NoPipeline"):
        load_pipeline(replace(models["heavy"], pipeline="NoPipeline"), cpu)


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("steps = 5", "steps = 0", "model 'tiny-heavy': steps: "),
        ("steps = 5", 'steps = "5"', "model 'tiny-heavy': steps: "),
        ("steps = 5\n", "", "model 'tiny-heavy': steps: "),
        ("size = 64\nmemory_gib = 0.5\n\n[cas", "size = 60\nmemory_gib = 0.5\n\n[cas", "model 'tiny-heavy': size: "),
        ("steps = 5", 'steps = 5\nsizes = ["64x64", "60x64"]', "60x64: both sides must be multiples of 8"),
        ("steps = 5", "steps = 5\nspeed = 9", "model 'tiny-heavy': speed: "),
        ("steps = 5", 'steps = 5\nrevision = "main"', "model 'tiny-heavy': revision: "),
        ('file = "unet.safetensors"', 'file = "unet.bin"', "model 'mine-light': parts.unet.file: "),
        ("deadline_s = 7", "deadline_s = -7", "cascade 'mine': deadline_s must be positive"),
        ('heavy = "tiny-heavy"', 'heavy = "none"', "no model 'none' in "),
        ('metric = "accuracy"\n', "", "cascade 'mine': no 'metric'"),
        ("[cascades.mine]", "[cascade.mine]", "[cascade] is no table of a catalogue"),
        ("[models.mine-light]", "[models.mine-light", "own.toml: "),
    ],
)
def test_a_wrong_row_of_a_catalogue_is_named(own: Path, right: str, wrong: str, said: str) -> None:
    text = own.read_text()
    assert right in text
    own.write_text(text.replace(right, wrong))
    with pytest.raises(SettingsError) as caught:
        load_cascade("mine")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_whatever_the_hub_has_is_pinned_to_a_commit() -> None:
    (catalog,) = catalogs()
    for name in catalog.models:
        model = load_model(name)
        assert model.fetched == bool(model.revision)
        assert all(part.revision for part in model.parts.values())
    assert all(load_cascade(name).curve().points for name in catalog.cascades)


PAIRS = {"lightning-turbo": "01", "lightning-medium": "02", "turbo-large": "13", "medium-large": "23"}


@pytest.mark.parametrize("name", PAIRS)
def test_the_curves_of_the_hadis_family_are_the_published_ones(name: str) -> None:
    path = Path(os.environ.get("CASCADE_DATA") or "none") / "hadis" / "hybrid.csv"
    if not path.is_file():
        pytest.skip("CASCADE_DATA names no folder with hadis/hybrid.csv")
    with path.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if float(row["router_ratio"]) == 0]
    points = tuple(
        (float(row["disc_ratio"]), float(row["fid"]))
        for row in rows
        if row["light_model"] + row["heavy_model"] == PAIRS[name]
    )
    assert len(points) == 11 and load_cascade(name).curve().points == points
