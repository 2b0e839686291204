"""Preparing a cascade: what can be had comes, what is missing is said with what to do, nothing broken is kept."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models import prepare, references
from models.references import Archive, check_archive, take_pictures
from models.scenes import WORDS, is_held_out
from shared.catalog import TABLES
from shared.errors import ModelError
from tests.fetching import PIN, ROWS, pipeline_files

SCENES = TABLES.parent / "datasets" / "scenes.txt"


def pictures(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.jpg")
    return folder


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-60])
    return path


def test_real_pictures_are_taken_and_a_broken_one_is_named_before_any_is_kept(tmp_path: Path) -> None:
    given, into = pictures(tmp_path / "mine"), tmp_path / "reference"
    assert take_pictures(given, into) == into / "mine"
    assert {path.name for path in (into / "mine").iterdir()} == {"0.jpg", "1.jpg", "2.jpg"}
    broken = cut(pictures(tmp_path / "others") / "1.jpg")
    with pytest.raises(ModelError, match=f"{broken} is no picture, or a broken one"):
        take_pictures(broken.parent, into)
    assert not (into / "others").exists()
    with pytest.raises(ModelError, match="holds no pictures"):
        take_pictures(tmp_path, into)


def test_an_archive_is_unpacked_if_it_is_the_published_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, archive = pictures(tmp_path / "pictures"), tmp_path / "val2017.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in folder.iterdir():
            packed.write(path, f"val2017/{path.name}")
        packed.write(folder / "0.jpg", "../outside.jpg")
        packed.writestr("val2017/readme.txt", "no picture")
    with pytest.raises(ModelError, match=f"not the {references.COCO.size:,} of"):
        take_pictures(archive, tmp_path)
    other = Archive("http://here", archive.stat().st_size, "0" * 32, "")
    with pytest.raises(ModelError, match=r"MD5 .*download it again"):
        check_archive(archive, other)
    md5 = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(references, "COCO", replace(other, md5=md5))
    target = take_pictures(archive, tmp_path / "reference")
    assert {path.name for path in target.iterdir()} == {"0.jpg", "1.jpg", "2.jpg", "outside.jpg"}
    assert not (tmp_path / "outside.jpg").exists() and target == tmp_path / "reference" / "val2017"


def test_a_cascade_is_prepared_as_far_as_it_can_be_and_the_rest_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.toml").write_text(ROWS)
    by_hand, judge = tmp_path / "downloads" / "turbo", tmp_path / "judge"
    for path, content in pipeline_files().items():
        (by_hand / path).parent.mkdir(parents=True, exist_ok=True)
        (by_hand / path).write_bytes(content)
    shutil.copytree(TABLES / "tiny" / "discriminator", judge)
    for name, value in (("CASCADE_CATALOG", tmp_path / "own.toml"), ("COLUMNS", "300"), ("CASCADE_DATA", tmp_path)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(prepare, "fetch_traces", lambda: None)
    monkeypatch.setattr(prepare, "REFERENCES", tmp_path / "reference")
    monkeypatch.setattr(prepare, "take_pictures", lambda given: take_pictures(given, tmp_path / "reference"))
    options = ["--cascade", "ours", "--from", str(by_hand.parent), "--discriminator", str(judge)]
    options += ["--reference", str(pictures(tmp_path / "real"))]
    assert prepare.main(options) == 1, "something is missing"
    lines = {line.split("│")[2].strip(): line for line in capsys.readouterr().out.splitlines() if line.count("│") == 5}
    assert {what for what, line in lines.items() if "there" in line.split("│")[3]} >= {
        *("turbo", "discriminator", "real pictures")
    }
    assert "no faster_unet.safetensors of them/faster in" in lines["sharing-unet"]
    assert "Apache-2.0" in lines["turbo"] and "fewer than 1000" in lines["real pictures"]
    assert (tmp_path / "weights/discriminator-ours/model.safetensors").is_file()
    assert PIN in (tmp_path / "weights/turbo/fetched.json").read_text()


def test_the_committed_prompts_are_captions_of_held_out_scenes() -> None:
    lines = SCENES.read_text().splitlines()
    assert len(lines) == len(set(lines)) == 500
    assert all(set(line.split()) <= set(WORDS) and is_held_out(line) for line in lines)
