"""What `speed` of `deploy.bench` can be asked: which switches, and how much is measured. Nothing here imports torch."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Final

from models.switches import CHANGED, UNCHANGED
from shared.schema import STAGES

TOGETHER: Final = "all that keep the picture"


@dataclass(frozen=True)
class Plan:
    """How much is measured: rounds of each pair, prompts for the distance in decibels, pictures for Frechet's."""

    rounds: int = 5
    prompts: int = 64
    pictures: int = 256
    chosen: tuple[str, ...] = ()  # switches; empty: each alone, and together


def cases() -> dict[str, str]:
    """What is measured, and the switches that it stands for: each alone, then some together; compiled ones last."""
    alone = {name: name for name in (*UNCHANGED[:-1], *CHANGED)}
    both = {"guidance_until and cached_features": "guidance_until,cached_features"}
    return {"default": "default", **alone, **both, UNCHANGED[-1]: UNCHANGED[-1], TOGETHER: "all"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """What only `speed` asks."""
    group = parser.add_argument_group("speed")
    group.add_argument("--cascade", default="tiny", help="whose models are measured")
    group.add_argument("--stage", choices=STAGES, help="default: both")
    group.add_argument("--gpu", help='GPU type; "cpu" uses none; default: the cascade\'s')
    group.add_argument("--switches", nargs="*", choices=list(cases()), default=[], help="default: all, and together")
    group.add_argument("--rounds", type=int, default=Plan.rounds, help="pairs of plain and ours, of which the median")
    group.add_argument("--pictures", type=int, default=Plan.pictures, help="pictures for a Frechet distance")
