"""Trains, measures and publishes the tiny cascade: `python -m models.train_tiny`.

Killed at any moment, the same command goes on where it stopped, to the same result. About an hour and a half on two
idle cores; the stages `decoder` and `attributes` need one thread each and may be run beside another in a second
terminal.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from models.tiny_training.measure import measure
from models.tiny_training.publish import publish
from models.tiny_training.report import report
from models.tiny_training.stages import TRAINING, Run

STAGES = {**TRAINING, "measure": measure, "report": report, "publish": publish}
_LOG = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    run = Run(options.seed, options.samples, options.work, options.out)
    for name in STAGES if options.stage == "all" else [options.stage]:
        _stage(name, run)


def _stage(name: str, run: Run) -> None:
    begun = time.monotonic()
    _LOG.info("%s begins", name)
    STAGES[name](run)
    _LOG.info("%s took %.0f s", name, time.monotonic() - begun)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models.train_tiny", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=384_000, help="scenes that the denoiser sees")
    parser.add_argument("--out", type=Path, default=Path("models/tiny"), help="folder of the weights and the report")
    parser.add_argument("--work", type=Path, default=Path("logs/train_tiny"), help="folder of the checkpoints")
    parser.add_argument("--stage", choices=["all", *STAGES], default="all")
    return parser


if __name__ == "__main__":
    main()
