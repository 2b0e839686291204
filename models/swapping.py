"""A model that can leave its device and come back: its weights have a copy in host memory.

    host   [piece][piece][piece]...     page-locked on a machine with a GPU; it stays
              │ asynchronous, on a stream of its own
    device [     one block     ]        let go by `park`, taken again by `unpark`

Of two such processes on one slot one is unparked at a time. The tensors that a pipeline holds are views of the block,
made once: letting the block go frees it whole, so that nothing is left in pieces. Weights do not change while they
serve, so that nothing is copied back. Compiled graphs that remember addresses (CUDA graphs) must be recorded again
after `unpark`, for the block may lie elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from models.backend import Abandoned, Drawn, OutOfMemory, Picture, never
from models.diffusion import DiffusionBackend, choose_device, open_diffusion
from shared.catalog import Cascade
from shared.errors import ModelError
from shared.messages import Job
from shared.schema import Stage

# Of the host copy and of an upload: a power of two, as torch rounds page-locked memory up to one; small enough that
# a copy, where it does hold the interpreter, holds it for milliseconds: the thread of the lease must get its turn.
PIECE: Final = 32 * 2**20
ALIGNED: Final = 256  # bytes, as torch's own allocations on a GPU are


class _Place(NamedTuple):
    """Where a tensor lies in the block."""

    offset: int
    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def end(self) -> int:
        """First byte after it that another may take."""
        numbers = 1 + sum((each - 1) * step for each, step in zip(self.size, self.stride, strict=True))
        return self.offset + -(-numbers * self.dtype.itemsize // ALIGNED) * ALIGNED

    def within(self, block: Tensor) -> Tensor:
        """The tensor as a view of the block."""
        return block[self.offset : self.end].view(self.dtype).as_strided(self.size, self.stride)


class Weights:
    """The weights of some networks, in host memory and, while they are loaded, on a device.

    They begin in host memory alone. What the networks held before is freed.
    """

    def __init__(self, networks: Sequence[nn.Module], device: torch.device, piece: int = PIECE) -> None:
        self._device = device
        self._piece = piece
        self._tensors = list(_tensors_of(networks))
        self._places = _laid_out(self._tensors)
        self.nbytes = max((place.end for place in self._places.values()), default=0)
        pinned = device.type == "cuda"
        sizes = [after - before for before, after in pairwise([*range(0, self.nbytes, piece), self.nbytes])]
        self._sizes = sizes
        self._host: list[Tensor] = []
        self._block: Tensor | None = None
        for tensor in self._tensors:
            self._keep(tensor.data, self._places[id(tensor)].offset)
            tensor.data = torch.empty(0, dtype=tensor.dtype)
        if pinned:
            torch.cuda.empty_cache()  # of networks that were there before
        self._stream = torch.cuda.Stream(device) if pinned else None  # type: ignore[no-untyped-call]

    @property
    def loaded(self) -> bool:
        """Whether they are on the device."""
        return self._block is not None and self._block.untyped_storage().nbytes() > 0

    def load(self) -> None:
        """Take the block and fill it; raises torch.OutOfMemoryError or MemoryError, and then nothing is taken."""
        if self._block is None:
            self._block = torch.empty(self.nbytes, dtype=torch.uint8, device=self._device)
            for tensor in self._tensors:
                tensor.data = self._places[id(tensor)].within(self._block)
        elif not self.loaded:
            self._block.untyped_storage().resize_(self.nbytes)
        self._upload(self._block)

    def unload(self) -> None:
        """Let the block go, and on a GPU all memory that torch keeps for later."""
        if self._block is None:
            return
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # what is still being drawn reads the block
        self._block.untyped_storage().resize_(0)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _upload(self, block: Tensor) -> None:
        if self._stream is None:
            self._copy(block)
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._device))  # the block's memory may just be coming free
        with torch.cuda.stream(self._stream):
            self._copy(block)
        self._stream.synchronize()  # it waits without the interpreter's lock

    def _copy(self, block: Tensor) -> None:
        for place, piece in enumerate(self._host):
            start = place * self._piece
            block[start : start + len(piece)].copy_(piece, non_blocking=True)

    def _keep(self, tensor: Tensor, offset: int) -> None:
        """Copy a tensor's bytes into the host's pieces."""
        rest = _dense(tensor)
        flat = rest.as_strided((rest.numel(),), (1,)).view(torch.uint8)
        while len(flat):
            piece, start = divmod(offset, self._piece)
            while piece >= len(self._host):  # one by one: what was copied before is free by then
                pinned = self._device.type == "cuda"
                size = self._sizes[len(self._host)]
                self._host.append(torch.empty(size, dtype=torch.uint8, pin_memory=pinned))
            now = flat[: self._piece - start]
            self._host[piece][start : start + len(now)].copy_(now)
            flat, offset = flat[len(now) :], offset + len(now)


def _tensors_of(networks: Sequence[nn.Module]) -> Iterator[Tensor]:
    """Every parameter and buffer once, however many names it has."""
    seen: set[int] = set()
    for network in networks:
        for tensor in (*network.parameters(), *network.buffers()):
            if id(tensor) not in seen and tensor.numel():
                seen.add(id(tensor))
                yield tensor


def _laid_out(tensors: Sequence[Tensor]) -> Mapping[int, _Place]:
    """One place after the other by the tensor's identity; tensors that are views of the same numbers share one."""
    places: dict[int, _Place] = {}
    shared: dict[tuple[int, torch.dtype, tuple[int, ...], tuple[int, ...]], _Place] = {}
    end = 0
    for tensor in tensors:
        dense = _dense(tensor.data)
        layout = (tensor.dtype, tuple(dense.size()), tuple(dense.stride()))
        key = (tensor.data_ptr(), *layout)
        if key not in shared:
            shared[key] = _Place(end, *layout)
            end = shared[key].end
        places[id(tensor)] = shared[key]
    return places


def _dense(tensor: Tensor) -> Tensor:
    """The tensor itself where its numbers lie without gaps, in any order of dimensions; else a copy without."""
    dimensions = sorted(zip(tensor.stride(), tensor.size(), strict=True))
    expected = 1
    for stride, size in dimensions:
        if size > 1 and stride != expected:
            return tensor.contiguous()
        expected *= size
    return tensor


class SwappingBackend:
    """A DiffusionBackend whose weights leave the device while its slot is another's.

    It begins parked. A warm-up that is asked for while it is parked is made up for when it is unparked.
    """

    def __init__(self, backend: DiffusionBackend, weights: Weights) -> None:
        self.stage: Stage = backend.stage
        self._backend = backend
        self._weights = weights
        self._owed: Sequence[int] = ()

    @property
    def parked(self) -> bool:
        """Whether its weights are in host memory alone."""
        return not self._weights.loaded

    def park(self) -> None:
        """Let the device's memory go; does nothing where that was done."""
        if not self.parked:
            self._weights.unload()

    def unpark(self) -> None:
        """Bring the weights to the device; raises OutOfMemory, and ModelError where a warm-up was owed and fails."""
        if not self.parked:
            return
        try:
            self._weights.load()
        except (torch.OutOfMemoryError, MemoryError) as wrong:
            self._weights.unload()
            raise OutOfMemory(
                f"no memory for the {self._weights.nbytes / 2**30:.2f} GiB of weights: {wrong}"
            ) from wrong
        if self._owed:
            self._backend.warm_up(self._owed)
            self._owed = ()

    def warm_up(self, batches: Sequence[int]) -> None:
        """Draw once at each batch size, now or when it is unparked; raises ModelError."""
        if self.parked:
            self._owed = tuple(batches)
        else:
            self._backend.warm_up(batches)

    def draw(self, jobs: Sequence[Job], abandoned: Abandoned = never) -> list[Picture]:
        """As the backend does; raises ModelError while it is parked, for there is nothing to draw with."""
        self._ask_for_weights()
        return self._backend.draw(jobs, abandoned)

    def draw_ahead(self, jobs: Sequence[Job], abandoned: Abandoned = never) -> Sequence[Drawn]:
        """As the backend does; raises ModelError while it is parked."""
        self._ask_for_weights()
        return self._backend.draw_ahead(jobs, abandoned)

    def _ask_for_weights(self) -> None:
        if self.parked:
            raise ModelError("the model is parked: its weights are not on the device")


def open_swapping(cascade: Cascade, stage: Stage, gpu: str | None = None) -> SwappingBackend:
    """Load the stage's model into host memory, parked; raises ModelError."""
    backend = open_diffusion(cascade, stage, gpu, hosted=True)
    try:
        return SwappingBackend(backend, Weights(backend.networks, choose_device(gpu)))
    except (MemoryError, RuntimeError) as wrong:
        raise ModelError(
            f"{cascade.models[stage].name}: no page-locked host memory for its weights: {str(wrong).splitlines()[0]}; "
            "free memory, raise the limit of locked memory (ulimit -l), or set CASCADE_RESIDENT=false"
        ) from wrong
