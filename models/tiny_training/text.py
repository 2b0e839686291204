"""Pre-training of the text encoder: read the caption, say what stands in each of the nine cells.

Two minutes of this save the denoiser from learning to read and to draw at once.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from models.scenes import GROUNDS, caption
from models.tiny_training import networks
from models.tiny_training.data import ATTRIBUTES, CELLS, Layout, generator, layout, training_scenes
from models.tiny_training.loop import Course, Trainer

COURSE = Course("text", steps=750, flat=2 / 3, checkpoint_every=250)
_BATCH = 128


class LayoutHead(nn.Module):
    """Logits for the ground and for colour, shape and size of each cell, from features (batch, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ground = nn.Linear(width, len(GROUNDS))
        self.cells = nn.ModuleDict({name: nn.Linear(width, CELLS * len(words)) for name, words in ATTRIBUTES.items()})

    def forward(self, features: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Ground (batch, 3); per attribute (batch, 9, classes)."""
        return self.ground(features), {
            name: head(features).unflatten(1, (CELLS, -1)) for name, head in self.cells.items()
        }


def layout_loss(logits: tuple[Tensor, dict[str, Tensor]], truth: Layout) -> Tensor:
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
    module = nn.ModuleDict({"encoder": networks.text_encoder(len(words)), "head": LayoutHead(128)})

    def loss(step: int) -> Tensor:
        scenes = training_scenes(generator(seed, course.name, step), batch)
        pooled = module["encoder"](tokenise([caption(scene) for scene in scenes])).pooler_output
        return layout_loss(module["head"](pooled), layout(scenes))

    return Trainer(course, module, work).run(loss)
