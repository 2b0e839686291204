"""Trains, measures and publishes the tiny cascade: `python -m models.train_tiny`.

Killed at any moment, the same command goes on where it stopped, to the same result. Two and a half hours or so on two
idle cores; networks are trained on a GPU where there is one (not measured). The stages `decoder`, `edges` and
`attributes` need one thread each and may be run beside another in a second terminal.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from models.tiny_training.adopt import ADOPTED, adopt
from models.tiny_training.measure import measure
from models.tiny_training.publish import publish
from models.tiny_training.report import report
from models.tiny_training.stages import TRAINING, Run
from shared.process import guarded

STAGES = {**TRAINING, "measure": measure, "report": report, "publish": publish}
_LOG = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    samples = options.samples if options.start is None else adopt(options.work, options.start)
    run = Run(options.seed, samples, options.harder, options.work, options.out, options.start)
    left = [name for name in STAGES if run.start is None or name not in ADOPTED]
    for name in left if options.stage == "all" else [options.stage]:
        _stage(name, run)
    return 0


def _stage(name: str, run: Run) -> None:
    begun = time.monotonic()
    _LOG.info("%s begins", name)
    STAGES[name](run)
    _LOG.info("%s took %.0f s", name, time.monotonic() - begun)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models.train_tiny", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=384_000, help="scenes that the denoiser sees")
    parser.add_argument("--harder", type=int, default=153_600, help="scenes, half of them hard, that it sees after")
    parser.add_argument(
        "--start", type=Path, metavar="FOLDER", help="a published tiny cascade to go on from, in place of --samples"
    )
    parser.add_argument("--out", type=Path, default=Path("models/tiny"), help="folder of the weights and the report")
    parser.add_argument("--work", type=Path, default=Path("logs/train_tiny"), help="folder of the checkpoints")
    parser.add_argument("--stage", choices=["all", *STAGES], default="all")
    return parser


if __name__ == "__main__":
    guarded(main)
