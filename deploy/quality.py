"""`python -m deploy.quality`: the quality curve of a cascade, with a pipeline on this machine for as long as it draws.

All slots draw light pictures first, then all of them heavy ones, at the batch that draws fastest. The rest is
analysis.quality's; so are its options.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from rich.console import Console
from rich.progress import Progress

from analysis.quality import Inquiry, add_options
from analysis.quality_drawing import Commission, missing
from deploy.demo import slots_that_fit
from deploy.results import end_on_sigterm
from deploy.runner import Run, deployment
from models.bars import bars
from shared.catalog import Cascade, load_cascade
from shared.config import Settings, load, parser
from shared.process import guarded
from shared.schema import STAGES, Stage

HANG_S: Final = 600.0  # nobody waits: a slow machine's batch is no fault


def pinned(cascade: Cascade, stage: Stage, slots: int, folder: Path) -> Path:
    """A file with the plan that lets all slots draw for one stage."""
    plan = {
        "light_workers": slots if stage == "light" else 0,
        "heavy_workers": slots if stage == "heavy" else 0,
        **{f"{each}_batch": _fastest(cascade, each) for each in STAGES},
        "threshold": 0.0,
        "heavy_direct": float(stage == "heavy"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stage}.json"
    path.write_text(json.dumps(plan))
    return path.resolve()


def _fastest(cascade: Cascade, stage: Stage) -> int:
    """The profiled batch size that draws most prompts a second."""
    return max(cascade.batches(stage), key=lambda batch: batch / cascade.service_s(stage, batch))


def draw(inquiry: Inquiry, settings: Settings, seeds: int, console: Console) -> None:
    """Draw what is missing, stage by stage; a stage of which nothing is missing starts nothing."""
    cascade = load_cascade(settings.cascade)
    for stage in STAGES:
        if not missing(inquiry.folder, stage, len(inquiry.prompts), seeds):
            continue
        plan = pinned(cascade, stage, settings.slots, inquiry.folder / "plans")
        run = Run(inquiry.folder, settings.model_copy(update={"pinned": plan}), plan, nice=5)
        with deployment(run) as running:
            running.wait_ready(lambda said: console.print(said, highlight=False, soft_wrap=True))
            with Progress(console=console, transient=True) as shown:
                Commission(running.broker, stage, inquiry.prompts, seeds, inquiry.folder).draw(bars(shown))


def main(arguments: Sequence[str] | None = None) -> int:
    """Start what draws, measure, and leave nothing running."""
    options = parser(__doc__ or "", ("cascade", "slots", "gpu", "resident"))
    add_options(options)
    given = options.parse_args(arguments)
    end_on_sigterm()
    if given.slots is None:
        given.slots = slots_that_fit()
    settings = load(given).model_copy(
        update={"policy": "pinned", "node": "quality", "deployment": "quality", "hang_s": HANG_S}
    )
    console = Console()
    torch.set_num_threads(1)
    inquiry = Inquiry(load_cascade(settings.cascade), given)
    draw(inquiry, settings, given.seeds, console)
    with Progress(console=console, transient=True) as shown:
        page = inquiry.measure(bars(shown))
    console.print(page, markup=False, highlight=False, soft_wrap=True)
    console.print(f"tables and figures: {inquiry.folder}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    guarded(main)
