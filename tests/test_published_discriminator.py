"""A published discriminator is taken over whatever form its file has; a file that holds code is refused unread."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from models.discriminator import efficientnet_v2, open_scorer
from models.discriminator.__main__ import main
from models.discriminator.importing import Preparation, take_over
from models.features import features_from
from shared.errors import ModelError, SettingsError

CPU = torch.device("cpu")


class EfficientNet(nn.Module):
    """As the artifact wraps its network before it pickles the whole of it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


@pytest.fixture(scope="module")
def network() -> efficientnet_v2.EfficientNetV2S:
    torch.manual_seed(0)
    made = efficientnet_v2.EfficientNetV2S()
    assert sum(each.numel() for each in made.parameters()) == 21_458_488 - 998 * 1281  # torchvision's, with two classes
    return made.eval()


def pickled_whole(network: nn.Module, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save as a program does that has torchvision: the file names classes that are nowhere to be found here."""
    module = ModuleType("torchvision.models.efficientnet")
    with monkeypatch.context() as patch:
        for name in ("torchvision", "torchvision.models", module.__name__):
            patch.setitem(sys.modules, name, module)
        for kind in (efficientnet_v2._Block, efficientnet_v2._Squeeze, efficientnet_v2.EfficientNetV2S):
            patch.setattr(kind, "__module__", module.__name__)
            patch.setattr(module, kind.__name__, kind, raising=False)
        torch.save(EfficientNet(network), path)


@pytest.mark.parametrize("form", ["state dict", "wrapped", "whole module"])
def test_a_published_checkpoint_becomes_safetensors_that_score_alike(
    tmp_path: Path, network: efficientnet_v2.EfficientNetV2S, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = tmp_path / "sdturbo.pt", tmp_path / "scorer"
    if form == "whole module":
        pickled_whole(network, file, monkeypatch)
    else:
        weights = network.state_dict() if form == "state dict" else EfficientNet(network).state_dict()
        torch.save(weights if form == "state dict" else {"epoch": 3, "state_dict": weights}, file)
    take_over(file, folder, Preparation(side=64))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        prepared = (pictures - 0.507395516207) / 0.255128989415
        expected = network(prepared).softmax(-1)[:, 1]
    assert open_scorer(folder, CPU)(pictures, ["", ""]) == pytest.approx(expected.tolist(), abs=1e-5)


def test_an_import_into_a_named_folder_needs_no_cascade(
    tmp_path: Path, network: efficientnet_v2.EfficientNetV2S
) -> None:
    torch.save(network.state_dict(), tmp_path / "sdturbo.pt")
    (tmp_path / "scorer").mkdir()
    for _ in range(2):  # into an empty folder, and over a discriminator
        assert main(["import", str(tmp_path / "sdturbo.pt"), "--out", str(tmp_path / "scorer")]) == 0
        assert (tmp_path / "scorer" / "model.safetensors").is_file()


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("holding", "given", "said"),
    [
        ({"out/ours.pt": "x", "out/thesis.txt": "years"}, "out/ours.pt", r"holds .*ours\.pt, which would be deleted"),
        ({"out/a/ours.pt": "x", "out/config.json": '{"model_type": "efficientnet"}'}, "out/a/ours.pt", r"ours\.pt"),
        ({"out/thesis.txt": "years"}, "ours.pt", "out holds other things than a discriminator"),
        ({"out/config.json": '{"model_type": "bert"}'}, "ours.pt", "out holds other things than a discriminator"),
        ({"out/config.json": "not JSON"}, "ours.pt", "out holds other things than a discriminator"),
        ({"out": "a file"}, "ours.pt", "out is no folder"),
    ],
)
@pytest.mark.parametrize("before", [["import"], ["train", "--cascade", "tiny", "--generate", "4", "--prompts"]])
def test_a_folder_that_holds_anything_else_is_not_replaced(
    tmp_path: Path, holding: dict[str, str], given: str, said: str, before: list[str]
) -> None:
    for name, text in holding.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    there = content(tmp_path)
    work = ["--work", str(tmp_path / "work")] if before[0] == "train" else []
    with pytest.raises(SettingsError, match=said):
        main([*before, str(tmp_path / given), *work, "--out", str(tmp_path / "out")])
    assert content(tmp_path) == there


class Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_a_pickle_with_code_is_refused_and_its_code_never_runs(tmp_path: Path) -> None:
    mark, file = tmp_path / "was here", tmp_path / "bad.pt"
    torch.save({"state_dict": {"classifier.1.bias": Malicious(mark)}}, file)
    with pytest.raises(ModelError, match=r"bad\.pt: a pickle that would run posix\.mkdir: refused"):
        take_over(file, tmp_path / "out", Preparation())
    file.write_bytes(f"cposix\nmkdir\n(V{mark}\ntR.".encode())  # the same, pickled bare
    with pytest.raises(ModelError, match="cannot be read as weights only"):
        take_over(file, tmp_path / "out", Preparation())
    assert not mark.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a": torch.zeros(2)}, "not the weights of an EfficientNet-V2-S"),
        ({"classifier.1.bias": torch.zeros(2)}, "not the weights of an EfficientNet-V2-S"),
        ([1, 2], "holds list, no weights"),
    ],
)
def test_other_weights_are_named(tmp_path: Path, content: object, said: str) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=rf"other\.pt: .*{said}"):
        take_over(tmp_path / "other.pt", tmp_path / "out", Preparation())


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such file"):
        take_over(tmp_path / "absent.pt", tmp_path / "out", Preparation())


def test_a_folder_of_pickles_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "efficientnet"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"holds pytorch_model\.bin and no safetensors: pickles are not loaded"):
        open_scorer(tmp_path, CPU)


class Averages(nn.Module):
    """Answers as the published Inception file does."""

    def forward(self, pictures: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        means = pictures.float().mean((2, 3))
        return means if return_features else means[:, :1]


def test_features_come_from_a_torchscript_file_and_from_nothing_else(tmp_path: Path) -> None:
    torch.jit.script(Averages()).save(str(tmp_path / "inception.pt"))  # type: ignore[no-untyped-call]
    pictures = torch.randint(0, 256, (4, 3, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = features_from(tmp_path / "inception.pt", CPU)(pictures)
    assert found == pytest.approx(pictures.double().mean((2, 3)).numpy(), abs=1e-3)
    torch.save(Averages().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=r"weights\.pt: no TorchScript file"):
        features_from(tmp_path / "weights.pt", CPU)
