"""The commands on the tiny cascade: from captions to a discriminator that a worker loads, and to its figures."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from models.discriminator import open_scorer
from models.discriminator.__main__ import main
from models.discriminator.drawing import prompt_of
from shared.errors import SettingsError


def test_the_tiny_cascade_gets_a_discriminator_and_its_figures(tmp_path: Path) -> None:
    out, work, figures = tmp_path / "scorer", tmp_path / "work", tmp_path / "figures"
    train = ["train", "--cascade", "tiny", "--generate", "120", "--steps", "4", "--look-every", "2"]
    main([*train, "--work", str(work), "--out", str(out)])
    said = json.loads((out / "training.json").read_text())
    assert said["material"].startswith("120 real pictures against ") and said["material"].endswith("wrong, of 120")
    assert said["held_out_loss"].keys() == {"2", "4"}
    assert "area under the curve" in (out / "README.md").read_text()
    assert len(open_scorer(out, torch.device("cpu"))(torch.rand(2, 3, 64, 64), ["", ""])) == 2
    pictures = sorted((work / "light").iterdir())
    assert len(pictures) == 120 and prompt_of(pictures[0])
    drawn = {picture: picture.stat().st_mtime_ns for picture in pictures}
    main([*train, "--work", str(work), "--out", str(out)])  # all is there: nothing is drawn or trained again
    assert drawn == {picture: picture.stat().st_mtime_ns for picture in pictures}
    with pytest.raises(SettingsError, match="holds another run"):
        main([*train, "--seed", "1", "--work", str(work), "--out", str(out)])

    main(["evaluate", "--cascade", "tiny", "--scorer", str(out), "--n", "8", "--seeds", "2", "--out", str(figures)])
    found = json.loads((figures / "figures.json").read_text())
    assert found["pictures"] == {"real": 8, "light": 16, "seeds": 2}
    assert -1 <= found["agreement_of_seeds"] <= 1
    assert found["right"]["heavy"] >= found["right"]["light"]
    with (figures / "deferral.csv").open() as file:
        table = {(row["selector"], row["heavy_share"]): float(row["right"]) for row in csv.DictReader(file)}
    assert table["oracle", "0.5"] >= table["discriminator", "0.5"]
    assert table["discriminator", "0.0"] == pytest.approx(found["right"]["light"])
    assert table["discriminator", "1.0"] == pytest.approx(found["right"]["heavy"])
    assert Image.open(figures / "evaluation.png").size[0] > 500
