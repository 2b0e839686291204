"""A scheduler whose numbers stay on the host, so that no step waits for the GPU.

diffusers keeps the timesteps on the device and asks them questions (`if timestep >= 0`, an index into a table on the
host): each answer makes the host wait until the device has done all that it was told, in every step. The same
numbers are known on the host beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor


class HostSchedule:
    """A diffusers scheduler, called as before: pipelines see timesteps on the device, the scheduler the host's own.

    Steps must be taken in order, once each, as the pipelines do.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._on_device: Tensor | None = None
        self._taken = 0
        # Pipelines look at the signatures to see what a scheduler takes.
        self.set_timesteps = _named_as(scheduler.set_timesteps, self._set_timesteps)
        self.step = _named_as(scheduler.step, self._step)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    @property
    def timesteps(self) -> Tensor:
        """The timesteps on the pipeline's device."""
        found: Tensor = self._scheduler.timesteps if self._on_device is None else self._on_device
        return found

    def scale_model_input(self, sample: Tensor, _timestep: Tensor, *more: Any) -> Tensor:
        """As the scheduler does at the step that is due."""
        scaled: Tensor = self._scheduler.scale_model_input(sample, self._due(), *more)
        return scaled

    def _set_timesteps(self, *given: Any, device: str | torch.device | None = None, **more: Any) -> None:
        before = None if self._on_device is None else self._scheduler.timesteps
        self._scheduler.set_timesteps(*given, device="cpu", **more)
        host = self._scheduler.timesteps
        if before is None or self._moved(device) or not torch.equal(before, host):
            self._on_device = host.to(device)
        self._taken = 0

    def _moved(self, device: str | torch.device | None) -> bool:
        return self._on_device is None or self._on_device.device.type != torch.device(device or "cpu").type

    def _step(self, model_output: Tensor, _timestep: Tensor, sample: Tensor, *more: Any, **named: Any) -> Any:
        stepped = self._scheduler.step(model_output, self._due(), sample, *more, **named)
        self._taken += 1
        return stepped

    def _due(self) -> Tensor:
        due: Tensor = self._scheduler.timesteps[self._taken]
        return due


def _named_as(known: Callable[..., Any], acting: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(known)
    def call(*given: Any, **named: Any) -> Any:
        return acting(*given, **named)

    return call


def host_schedule(pipeline: Any) -> None:
    """Let a pipeline's scheduler keep its numbers on the host."""
    pipeline.scheduler = HostSchedule(pipeline.scheduler)
