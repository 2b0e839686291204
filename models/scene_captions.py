"""Writes captions of scenes, one a line, as prompts: `python -m models.scene_captions --count 500 --seed 1 > FILE`.

Held-out ones, which the tiny cascade was never trained on; what another cascade draws of them is a scene likewise.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from models.scenes import caption, held_out_scenes

SEED = 1


def captions(count: int, seed: int) -> list[str]:
    """So many different captions, the same ones for the same seed."""
    return [caption(scene) for scene in held_out_scenes(count, seed)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write them to standard output."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=500, help="default: %(default)s")
    options.add_argument("--seed", type=int, default=SEED, help="default: %(default)s")
    given = options.parse_args(arguments)
    sys.stdout.write("".join(f"{line}\n" for line in captions(given.count, given.seed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
