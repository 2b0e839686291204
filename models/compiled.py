"""Denoiser and decoder compiled ahead, for the batch sizes that the plan may choose; never for a served prompt.

While a worker warms up, each size that it draws is compiled, on a GPU into CUDA graphs. From then on what was compiled
is used and nothing new is compiled: a batch of another size is filled up to the next compiled one where that costs
less than compiling gains, or drawn by the plain network.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from logging import Logger
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

WORTH: Final = 4 / 3  # most that a batch may grow by to reach a compiled size: about what compiling is to gain
CACHE: Final = "TORCHINDUCTOR_CACHE_DIR"
RECOMPILES: Final = 64  # dynamo stops at 8 by itself: sizes times guided and unguided are more

_warming: ContextVar[bool] = ContextVar("warming", default=False)


@contextmanager
def warming_up() -> Iterator[None]:
    """What is drawn within may be compiled."""
    token = _warming.set(True)
    try:
        yield
    finally:
        _warming.reset(token)


def filled(batch: int, compiled: Sequence[int]) -> int:
    """The compiled size that a batch is filled up to; its own size where none is worth it."""
    fitting = [size for size in compiled if batch <= size <= batch * WORTH]
    return min(fitting, default=batch)


def lacking(device: torch.device) -> str | None:
    """What compiling would need and this machine lacks; None where nothing is missing."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "torch finds no Triton for this GPU"
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "there is no C++ compiler (apt-get install g++)"
    return None


def keep_compiled_in(folder: Path, logger: Logger) -> None:
    """Let what is compiled outlive the process, in a folder, unless the environment names another."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as wrong:
        logger.warning("what is compiled is not kept", extra={"folder": str(folder), "reason": wrong.strerror})
        return
    # Inductor writes its own choice, a folder that a restart empties, into the environment once it is looked at.
    if os.environ.get(CACHE) in (None, default_cache_dir()):
        os.environ[CACHE] = str(folder)


class Compiled:
    """Networks whose forward is compiled for the sizes of warm-up.

    `backend`: torch.compile's; on a GPU Inductor also captures CUDA graphs.
    """

    def __init__(self, networks: Sequence[nn.Module], device: torch.device, backend: str = "inductor") -> None:
        torch._dynamo.config.recompile_limit = max(RECOMPILES, torch._dynamo.config.recompile_limit)
        self.sizes: set[int] = set()
        self._networks = networks
        for network in networks:
            network.forward = _graphed(network.forward, device, backend)

    @property
    def warming(self) -> bool:
        """Whether what is drawn now is compiled."""
        return _warming.get()

    @contextmanager
    def drawing(self, batch: int) -> Iterator[None]:
        """Around the drawing of a batch: compiles while warming up, and only then."""
        with torch.compiler.set_stance("default" if self.warming else "eager_on_recompile"):
            yield
        if self.warming:
            self.sizes.add(batch)

    def undone_by(self, wrong: Exception) -> bool:
        """Where compiling failed while warming up, let the networks run plainly again; whether it was that."""
        if not (self.warming and isinstance(wrong, torch._dynamo.exc.TorchDynamoException)):
            return False
        for network in self._networks:
            del network.forward
        return True


def _graphed(forward: Callable[..., Any], device: torch.device, backend: str) -> Callable[..., Any]:
    graphs = device.type == "cuda" and backend == "inductor"
    compiled = torch.compile(forward, dynamic=False, backend=backend, mode="reduce-overhead" if graphs else None)
    if not graphs:
        return compiled

    def run(*given: Any, **named: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        # A graph's next run overwrites its output, and some schedulers keep outputs over several steps.
        return tree_map(lambda kept: kept.clone() if isinstance(kept, Tensor) else kept, compiled(*given, **named))

    return run
