"""The harder course: the finished denoiser goes on with the hard kinds of captions, half and half with the old ones.

It starts from the averaged weights, with no memory of the optimiser's, so it may start from published ones too. The
text encoder reads the new phrases aloud meanwhile (what stands in each cell): by the denoiser's error alone it would
learn them late.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from models.tiny_training import denoiser, networks
from models.tiny_training.data import MIXTURE, layout
from models.tiny_training.loop import DEVICE, Course, finished, part
from models.tiny_training.text import layout_loss, layout_reader

NAME = "harder"
_READING = 0.02


def course_for(samples: int) -> Course:
    return Course(
        NAME, steps=samples // denoiser.SAMPLES_PER_STEP, rate=6e-4, flat=0.56, warm_steps=200, average=0.999,
        checkpoint_every=150, slow={"text": 0.4},
    )  # fmt: skip


def networks_for(seed: int, work: Path) -> nn.ModuleDict:
    """The denoiser and text encoder as their course left them, and a fresh head for reading."""
    torch.manual_seed(seed)
    learned = finished(work, denoiser.NAME)
    unet, text = networks.denoiser(), networks.text_encoder(len(networks.tokenizer()))
    unet.load_state_dict(part(learned, "unet"))
    text.load_state_dict(part(learned, "text"))
    return nn.ModuleDict({"unet": unet, "text": text, "reading": layout_reader(128)}).to(DEVICE)


def loss(module: nn.ModuleDict, seed: int, step: int, rank: int, batch: int) -> Tensor:
    """The denoiser's error, and a little of the reader's where there is something to read."""
    drawn = denoiser.noised(seed, NAME, step, rank, batch, MIXTURE)
    read = module["text"](denoiser.TOKENISE(drawn.texts).to(DEVICE))
    told = [i for i, text in enumerate(drawn.texts) if text]
    truth = layout([drawn.scenes[i] for i in told]).to(DEVICE)
    reading = layout_loss(module["reading"](read.pooler_output[told]), truth)
    return denoiser.velocity_error(module["unet"], drawn, read.last_hidden_state) + _READING * reading


def train(seed: int, work: Path, samples: int) -> None:
    denoiser.train(seed, work, course_for(samples), networks_for, loss)
