"""EfficientNet-V2-S (Tan & Le 2021) with the parameter names that published checkpoints carry.

transformers knows the first EfficientNet only. The published discriminators are of this one, with two classes.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

MODEL_TYPE: Final = "efficientnet-v2-s"
_FEATURES: Final = 1280
_EPSILON: Final = 1e-3


class _Stage(NamedTuple):
    fused: bool
    expansion: int
    stride: int
    channels: int
    blocks: int


_STAGES: Final = (
    _Stage(True, 1, 1, 24, 2),
    _Stage(True, 4, 2, 48, 4),
    _Stage(True, 4, 2, 64, 4),
    _Stage(False, 4, 2, 128, 6),
    _Stage(False, 6, 1, 160, 9),
    _Stage(False, 6, 2, 256, 15),
)


def _convolution(
    before: int, after: int, side: int = 1, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Module:
    layers: list[nn.Module] = [
        nn.Conv2d(before, after, side, stride, padding=side // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after, eps=_EPSILON),
    ]
    return nn.Sequential(*layers, *([nn.SiLU()] if act else []))


class _Squeeze(nn.Module):
    """Scales each channel by what all of them say of the whole picture (Hu et al. 2018)."""

    def __init__(self, channels: int, narrow: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, narrow, 1)
        self.fc2 = nn.Conv2d(narrow, channels, 1)

    def forward(self, planes: Tensor) -> Tensor:
        mean = planes.mean((2, 3), keepdim=True)
        scaled: Tensor = planes * torch.sigmoid(self.fc2(nn.functional.silu(self.fc1(mean))))
        return scaled


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int, stage: _Stage) -> None:
        super().__init__()
        wide = before * stage.expansion
        if stage.fused and stage.expansion == 1:
            layers = [_convolution(before, after, 3, stride)]
        elif stage.fused:
            layers = [_convolution(before, wide, 3, stride), _convolution(wide, after, act=False)]
        else:
            layers = [
                _convolution(before, wide),
                _convolution(wide, wide, 3, stride, groups=wide),
                _Squeeze(wide, before // 4),
                _convolution(wide, after, act=False),
            ]
        self.block = nn.Sequential(*layers)
        self._adds = stride == 1 and before == after

    def forward(self, planes: Tensor) -> Tensor:
        made: Tensor = self.block(planes)
        return made + planes if self._adds else made


class EfficientNetV2S(nn.Module):
    """Pictures (n, 3, side, side), normalised -> logits (n, classes)."""

    def __init__(self, classes: int = 2, dropout: float = 0.2) -> None:
        super().__init__()
        before = _STAGES[0].channels
        features = [_convolution(3, before, 3, 2)]
        for stage in _STAGES:
            blocks: list[nn.Module] = []
            for number in range(stage.blocks):
                blocks.append(_Block(before, stage.channels, stage.stride if number == 0 else 1, stage))
                before = stage.channels
            features.append(nn.Sequential(*blocks))
        self.features = nn.Sequential(*features, _convolution(before, _FEATURES))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(_FEATURES, classes))

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(pictures).mean((2, 3)))
        return logits
