"""Trains a discriminator on real and fake pictures, stops where the held-out loss does, and calibrates it.

Every random number comes from (seed, step), so a run killed anywhere goes on from its last checkpoint to the very
weights that it would have had.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import update_bn

from models.bars import Say
from models.discriminator.architectures import ARCHITECTURES, LABELS, begin_from
from models.discriminator.classifier import AT_ONCE, REAL, logits_of
from models.discriminator.examples import Squares, part_of
from models.measures import Bools, Floats, fitted_temperature, log_loss
from models.tiny_training import checkpoint
from models.tiny_training.data import generator
from models.tiny_training.discriminator import some
from models.tiny_training.loop import Course, Trainer, part
from models.tiny_training.sampling import as_tensor
from shared.errors import SettingsError
from shared.files import write_text

NAME: Final = "discriminator"
_REAL: Final = LABELS.index(REAL)
_SETTLING: Final = 8  # batches from which an average's batch norm takes its statistics
_BEST, _HISTORY, _RECIPE = "best", "held_out.json", "recipe.json"


@dataclass(frozen=True)
class Recipe:
    """How to train. `patience`: looks at the held-out loss, one every `look_every` steps, without a better one."""

    network: str
    seed: int = 0
    steps: int = 3000
    look_every: int = 100
    patience: int = 5
    average: float = 0.995
    start: str = ""

    def course(self) -> Course:
        """The steps as the training loop takes them; a checkpoint at each look."""
        rate = ARCHITECTURES[self.network].rate
        return Course(
            NAME, self.steps, rate, warm_steps=min(100, self.steps), average=self.average,
            checkpoint_every=self.look_every,
        )  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """The network at its best look, with the held-out loss by step, and its margins on the test pictures.

    A margin is the logit of `real` less that of `fake`.
    """

    network: nn.Module
    step: int
    losses: Mapping[int, float]
    temperature: float
    margins: Floats
    real: Bools


def train(recipe: Recipe, real: Squares, fake: Squares, work: Path, device: torch.device, say: Say) -> Trained:
    """Train to the end of the recipe, or to where the held-out loss rises; raises SettingsError.

    `real`, `fake`: (pictures, side, side, 3). A run that the folder `work` holds goes on.
    """
    torch.manual_seed(recipe.seed)
    network = ARCHITECTURES[recipe.network].build()
    if recipe.start:
        begin_from(network, Path(recipe.start))
    sides = {name: (part_of(real, name), part_of(fake, name)) for name in ("train", "held out", "test")}
    for name, (some_real, some_fake) in sides.items():
        if not len(some_real) or not len(some_fake):
            raise SettingsError(f"{name}: {len(some_real)} real and {len(some_fake)} fake pictures: give more")
    module = nn.ModuleDict({NAME: network.to(device)})
    trainer = Trainer(recipe.course(), module, work)
    watch = Watch(recipe, module, sides, work, say)
    if not watch.exhausted(trainer.step):
        trainer.run(lambda step: _loss(module, recipe, sides["train"], step), watch.look)
    network.load_state_dict(part(checkpoint.load(work / f"{_BEST}.safetensors")[0][_BEST], NAME))
    network.eval()
    temperature = fitted_temperature(*margins_of(network, *sides["held out"]))
    losses = watch.history
    step = min(losses, key=lambda each: (losses[each], each))
    return Trained(network, step, losses, temperature, *margins_of(network, *sides["test"]))


def claim(work: Path, asked: Mapping[str, Any]) -> None:
    """Make the folder this run's; raises SettingsError where another lies in it, whose checkpoint would go on."""
    said = json.dumps(asked, sort_keys=True, default=str)
    path = work / _RECIPE
    work.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_text() != said:
        there = json.loads(path.read_text())
        other = sorted(name for name in there.keys() | asked.keys() if there.get(name) != json.loads(said).get(name))
        raise SettingsError(f"{work} holds another run, of other {', '.join(other)}; name another folder")
    write_text(path, said)


def _loss(module: nn.ModuleDict, recipe: Recipe, pictures: tuple[Squares, Squares], step: int) -> Tensor:
    """Half of each batch is real, half fake, each mirrored by chance."""
    images = _batch(recipe, pictures, NAME, step).to(next(module.parameters()).device)
    labels = torch.tensor([_REAL, 1 - _REAL], device=images.device).repeat_interleave(len(images) // 2)
    module.train()
    return cross_entropy(logits_of(module[NAME](images)), labels, label_smoothing=0.02)


def _batch(recipe: Recipe, pictures: tuple[Squares, Squares], stream: str, step: int) -> Tensor:
    rng = generator(recipe.seed, stream, step)
    return torch.cat([some(each, rng, ARCHITECTURES[recipe.network].batch // 2) for each in pictures])


class Watch:
    """Looks at the held-out loss of the averaged weights, keeps the best of them, and says when to stop."""

    def __init__(
        self, recipe: Recipe, module: nn.ModuleDict, sides: Mapping[str, tuple[Squares, Squares]], work: Path, say: Say
    ) -> None:
        self._recipe, self._sides, self._work, self._say = recipe, sides, work, say
        self._copy = copy.deepcopy(module)
        self.history: dict[int, float] = {}
        if (work / _HISTORY).exists():
            self.history = {int(step): loss for step, loss in json.loads((work / _HISTORY).read_text()).items()}

    def look(self, trainer: Trainer) -> bool:
        """Note the loss at this step; true where training is to end. Called before the checkpoint is written."""
        self._copy.load_state_dict(trainer.average)
        self._settle()
        loss = log_loss(*margins_of(self._copy.eval()[NAME], *self._sides["held out"]))
        # A run killed between this and its checkpoint comes here again, with the same loss.
        known = {step: before for step, before in self.history.items() if step < trainer.step}
        if loss < min(known.values(), default=np.inf):
            words = {"step": str(trainer.step)}
            checkpoint.save(self._work / f"{_BEST}.safetensors", {_BEST: self._copy.state_dict()}, words)
        self.history = known | {trainer.step: loss}
        write_text(self._work / _HISTORY, json.dumps(self.history))
        self._say(f"trained, held-out loss {loss:.4f}", trainer.step, self._recipe.steps)
        return self.exhausted(trainer.step)

    def _settle(self) -> None:
        """Statistics of batch norm that belong to the averaged weights: an average of statistics does not."""
        device = next(self._copy.parameters()).device
        batches = [_batch(self._recipe, self._sides["train"], "batch norm", step) for step in range(_SETTLING)]
        update_bn(batches, self._copy[NAME], device)

    def exhausted(self, step: int) -> bool:
        """Whether as many looks up to this step as patience has brought nothing better than one before them."""
        losses = [loss for at, loss in sorted(self.history.items()) if at <= step]
        recent = losses[-self._recipe.patience :]
        return len(losses) > len(recent) and min(recent) >= min(losses[: -len(recent)])


def margins_of(network: nn.Module, real: Squares, fake: Squares) -> tuple[Floats, Bools]:
    """Margins of all pictures, real ones first, and which are real."""
    device = next(network.parameters()).device
    rows: list[Any] = []
    with torch.inference_mode():
        for pictures in (real, fake):
            for first in range(0, len(pictures), AT_ONCE):
                logits = logits_of(network(as_tensor(pictures[first : first + AT_ONCE]).to(device)))
                rows.append((logits[:, _REAL] - logits[:, 1 - _REAL]).double().cpu().numpy())
    return np.concatenate(rows), np.repeat([True, False], [len(real), len(fake)])
