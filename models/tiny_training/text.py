"""Pre-training of the text encoder: read the caption, say what stands in each of the nine cells.

Two minutes of this save the denoiser from learning to read and to draw at once.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from models.caption_discriminator import LayoutReader, Reading
from models.scenes import GROUNDS, caption
from models.tiny_training import networks
from models.tiny_training.data import ATTRIBUTES, Layout, generator, layout, training_scenes
from models.tiny_training.loop import DEVICE, Course, Trainer

COURSE = Course("text", steps=750, flat=2 / 3, checkpoint_every=250)
_BATCH = 128


def layout_reader(width: int) -> LayoutReader:
    """Logits for the ground and for the colours, shape and size of each cell, from features (batch, width)."""
    return LayoutReader(width, len(GROUNDS), {name: len(words) for name, words in ATTRIBUTES.items()})


def layout_loss(logits: Reading, truth: Layout) -> Tensor:
    ground, cells = logits
    loss = cross_entropy(ground, truth.ground)
    for name, rows in cells.items():
        loss = loss + cross_entropy(rows.flatten(0, 1), truth.cells[name].flatten())
    return loss


def train(seed: int, work: Path, course: Course = COURSE, batch: int = _BATCH) -> dict[str, Tensor]:
    """Averaged weights of the encoder (`encoder.`) and of the head that is thrown away (`head.`)."""
    torch.manual_seed(seed)
    words = networks.tokenizer()
    tokenise = networks.word_table(words)
    module = nn.ModuleDict({"encoder": networks.text_encoder(len(words)), "head": layout_reader(128)}).to(DEVICE)

    def loss(step: int) -> Tensor:
        scenes = training_scenes(generator(seed, course.name, step), batch)
        pooled = module["encoder"](tokenise([caption(scene) for scene in scenes]).to(DEVICE)).pooler_output
        return layout_loss(module["head"](pooled), layout(scenes).to(DEVICE))

    return Trainer(course, module, work).run(loss)
