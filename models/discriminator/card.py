"""The model card of a trained discriminator: what it learnt from, how well it tells, and what it cannot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from models.discriminator.training import Recipe, Trained
from models.measures import area_with_interval, calibration_error, log_loss, reliability


def figures_of(trained: Trained, recipe: Recipe, about: str) -> dict[str, Any]:
    """Everything that was measured, on pictures that neither the weights nor the temperature have seen."""
    margins, real = trained.margins, trained.real
    scores = 1 / (1 + np.exp(-margins / trained.temperature))
    return {
        "recipe": asdict(recipe),
        "material": about,
        "step": trained.step,
        "held_out_loss": {str(step): round(loss, 5) for step, loss in trained.losses.items()},
        "temperature": round(trained.temperature, 4),
        "test": {
            "pictures": len(margins),
            "area": [round(each, 4) for each in area_with_interval(margins, real)],
            "log_loss": round(log_loss(margins, real, trained.temperature), 4),
            "log_loss_uncalibrated": round(log_loss(margins, real), 4),
            "calibration_error": round(calibration_error(reliability(scores, real)), 4),
        },
    }


def write_card(folder: Path, cascade: str, command: str, figures: Mapping[str, Any]) -> None:
    """Write `README.md` and `training.json` into the discriminator's folder."""
    test, recipe = dict(figures["test"]), figures["recipe"]
    area, low, high = test.pop("area")
    text = _CARD.format(
        cascade=cascade, command=command, material=figures["material"], network=recipe["network"],
        start=f"the weights in {recipe['start']}" if recipe["start"] else "nothing", step=figures["step"],
        temperature=figures["temperature"], area=area, low=low, high=high, **test,
    )  # fmt: skip
    (folder / "README.md").write_text(text)
    (folder / "training.json").write_text(json.dumps(figures, indent=1) + "\n")


_CARD = """---
library_name: transformers
pipeline_tag: image-classification
tags: [text-to-image-cascade, discriminator]
---

# Discriminator of the cascade {cascade}

Says P(real) of a light picture; a low one sends its prompt to the heavy model. After DiffServe (Ahmad et al., MLSys
2025). It does not see the prompt: a clean picture of the wrong thing passes.

    {command}

- network `{network}`, begun from {start}; {material}
- stopped at step {step}, the least held-out loss; temperature {temperature}, fitted on the same held-out pictures
- on {pictures} further pictures: area under the curve, real against fake, {area} (95 %: {low} to {high}); log loss
  {log_loss} ({log_loss_uncalibrated} before calibration); expected calibration error {calibration_error}

P(real) holds where real and fake are equally likely. The area says how well it tells real from fake, not whether it
picks the prompts that the heavy model draws better: `python -m models.discriminator evaluate` and
`python -m analysis.quality` measure that beside a random control.
"""
