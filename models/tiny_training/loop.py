"""The one training loop: schedule, step, average, checkpoint; every stage of the cascade runs through it."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.tiny_training import checkpoint
from shared.errors import SettingsError

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

Loss = Callable[[int], Tensor]


@dataclass(frozen=True)
class Course:
    """How long and how fast a stage trains. Rates are AdamW's; `slow` scales the rate of submodules by name."""

    name: str
    steps: int
    rate: float = 1e-3
    flat: float = 0.5
    warm_steps: int = 100
    decay: float = 0.01
    average: float = 0.998
    checkpoint_every: int = 300
    snapshots: range | None = None
    slow: Mapping[str, float] = field(default_factory=dict)

    def pace(self, step: int) -> float:
        """The rate's factor: a short ramp, full speed for the share `flat`, then a cosine down to 2 %."""
        ramp = min(1.0, (step + 1) / self.warm_steps)
        late = max(0.0, (step / self.steps - self.flat) / (1 - self.flat))
        return ramp * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(late, 1.0))))


class Trainer:
    """A module on a course, on the device where it lies.

    `run` starts at the last checkpoint in the work folder, if there is one; a course that has ended may be asked
    for again with more steps, never with fewer (SettingsError); `legs` tells the lengths it was asked for. Across
    `ranks` processes the gradients are averaged, so all of them hold the same weights; rank 0 writes.
    """

    def __init__(self, course: Course, module: nn.ModuleDict, work: Path, rank: int = 0, ranks: int = 1) -> None:
        self.course, self.module, self.work = course, module, work
        self.rank, self.ranks = rank, ranks
        self.optimiser = torch.optim.AdamW(
            [
                {"params": list(part.parameters()), "lr": course.rate * course.slow.get(name, 1.0)}
                for name, part in module.items()
            ],
            betas=(0.9, 0.99), weight_decay=course.decay, fused=True,
        )  # fmt: skip
        self._rates = [group["lr"] for group in self.optimiser.param_groups]
        self.average = {name: value.detach().clone() for name, value in module.state_dict().items()}
        self.step, self.legs = 0, [course.steps]
        if self.path.exists():
            self._restore()

    @property
    def path(self) -> Path:
        return self.work / f"{self.course.name}.safetensors"

    def run(self, loss: Loss, enough: Callable[[Trainer], bool] | None = None) -> dict[str, Tensor]:
        """Trains to the end of the course; returns the averaged weights.

        `enough` is asked before each checkpoint is written whether to end after it.
        """
        parent = os.getppid()
        begun, first, smooth = time.monotonic(), self.step, 0.0
        while self.step < self.course.steps:
            value = self._advance(loss)
            smooth = value if smooth == 0.0 else 0.98 * smooth + 0.02 * value
            if self.step % self.course.checkpoint_every == 0 or self.step == self.course.steps:
                ends = enough is not None and enough(self)
                self._keep(smooth, (self.step - first) / (time.monotonic() - begun))
                if ends:
                    break
            if self.ranks > 1 and os.getppid() != parent:
                raise SystemExit("the process that started this rank is gone")
        return self.average

    def _advance(self, loss: Loss) -> float:
        for group, rate in zip(self.optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * self.course.pace(self.step)
        value = loss(self.step)
        self.optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        parameters = [p for p in self.module.parameters() if p.grad is not None]
        if self.ranks > 1:
            _average_gradients(parameters, self.ranks)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimiser.step()
        self.step += 1
        self._follow()
        return float(value.detach())

    def _follow(self) -> None:
        """Moves the average towards the weights; slower as it ages, so that the first steps do not linger."""
        keep = min(self.course.average, self.step / (self.step + 10))
        for name, value in self.module.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - keep)
            else:
                self.average[name].copy_(value)

    def _keep(self, loss: float, steps_per_s: float) -> None:
        if self.rank != 0:
            return
        legs = ",".join(map(str, self.legs))
        words = {"step": str(self.step), "course": self.course.name, "legs": legs}
        snapshots = self.course.snapshots
        if snapshots is not None and self.step in snapshots:
            checkpoint.save(snapshot(self.work, self.course.name, self.step), {"average": self.average}, words)
        checkpoint.save(
            self.path,
            {"module": self.module.state_dict(), "average": self.average, **self._moments()},
            words,
        )
        line = {
            "course": self.course.name,
            "step": self.step,
            "loss": round(loss, 5),
            "steps_per_s": round(steps_per_s, 3),
        }
        with (self.work / "progress.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")

    def _moments(self) -> dict[str, dict[str, Tensor]]:
        state = self.optimiser.state
        named = [(name, state[p]) for name, p in self.module.named_parameters() if p in state]
        kinds = ("step", "exp_avg", "exp_avg_sq")
        return {f"adam.{kind}": {name: held[kind] for name, held in named} for kind in kinds}

    def _restore(self) -> None:
        groups, words = checkpoint.load(self.path)
        self.step = int(words["step"])
        if self.step > self.course.steps:
            raise SettingsError(
                f"{self.path}: {self.step} steps are behind it, more than the {self.course.steps} asked for"
            )
        before = legs(words)
        self.legs = before if before[-1:] == self.legs else before + self.legs
        self.module.load_state_dict(groups["module"])
        device = next(self.module.parameters()).device
        self.average = {name: value.to(device) for name, value in groups["average"].items()}
        for name, parameter in self.module.named_parameters():
            if name in groups.get("adam.step", {}):
                kinds = ("step", "exp_avg", "exp_avg_sq")
                self.optimiser.state[parameter] = {kind: groups[f"adam.{kind}"][name].to(device) for kind in kinds}


def legs(words: Mapping[str, str]) -> list[int]:
    """The lengths in steps that a checkpoint's course was asked for, one after the other."""
    return [int(steps) for steps in words.get("legs", "").split(",") if steps]


def snapshot(work: Path, course: str, step: int) -> Path:
    return work / "snapshots" / f"{course}-{step:06d}.safetensors"


def finished(work: Path, course: str) -> dict[str, Tensor]:
    """The averaged weights of the course's last checkpoint."""
    return checkpoint.load(work / f"{course}.safetensors")[0]["average"]


def part(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The weights of one member of the trained ModuleDict, under the names that the member itself uses."""
    prefix = name + "."
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def _average_gradients(parameters: list[nn.Parameter], ranks: int) -> None:
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= ranks
    offset = 0
    for gradient in gradients:
        gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
        offset += gradient.numel()
