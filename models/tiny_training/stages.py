"""The stages in order, as a table: what each reads lies in the work folder, and a finished stage is not run again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from models.scenes import HARD_KINDS, KINDS, Scene, caption, held_out_scenes
from models.tiny_training import (
    attributes,
    captioned,
    checkpoint,
    decoder,
    denoiser,
    discriminator,
    harder,
    loop,
    networks,
)
from models.tiny_training import text as text_course
from models.tiny_training.data import generator, latents, pictures, training_scenes
from models.tiny_training.evaluation import opine
from models.tiny_training.loop import finished, part, snapshot
from models.tiny_training.sampling import (
    HEAVY,
    LIGHT,
    Bools,
    Drawing,
    Pictures,
    as_pictures,
    draw_all,
    fingerprint,
    load_pipeline,
)

# Of so many held-out captions the first are measured: the mixture of kinds depends on how many are asked for.
HELD_OUT, MEASURED, HARD_MEASURED = 2000, 600, 200
# Light is to be right on two captions in three: enough to be trusted often, wrong often enough to be worth checking.
LIGHT_TARGET = 0.65
DRAWINGS = {"light": LIGHT, "heavy": HEAVY}
_TRIALS = 300
_REAL = 2000
_LIGHT_PICTURES = 6000
_HARD_SHARE = 4
_CALIBRATING = 1000
# Seeds of one trial of the held-out captions lie this far from those of the next.
_TRIAL_APART = 100_000


@dataclass(frozen=True)
class Run:
    """One training run: its seed, the samples that the denoiser's two courses see, and its two folders.

    `start`: the published cascade that stands for the first course, if one does.
    """

    seed: int
    samples: int
    harder: int
    work: Path
    out: Path
    start: Path | None = None

    def command(self, program: str) -> str:
        """What to type to have this run again."""
        begun = f"--samples {self.samples}" if self.start is None else f"--start {self.start}"
        return f"{program} --seed {self.seed} {begun} --harder {self.harder}"

    @property
    def built(self) -> Path:
        """Where the folders of the cascade wait until they are published."""
        return self.work / "built"

    @cached_property
    def held_out(self) -> list[Scene]:
        return held_out_scenes(HELD_OUT, self.seed)[:MEASURED]

    @cached_property
    def hard(self) -> list[Scene]:
        return held_out_scenes(HARD_MEASURED, self.seed, HARD_KINDS)

    @cached_property
    def judge(self) -> attributes.Judge:
        return attributes.load(self.built / "attributes")

    def draw(self, model: str, drawing: Drawing, scenes: Sequence[Scene], seed: int, name: str) -> Pictures:
        """Pictures by a built model for the scenes' captions: drawn once, kept while its weights stay the same."""
        captions = [caption(scene) for scene in scenes]
        keep = self.work / "pictures" / f"{name}-{fingerprint(self.built / model)}.npy"
        return draw_all(self.built / model, drawing, captions, seed, keep)

    def note(self, name: str, found: dict[str, Any]) -> None:
        (self.work / f"{name}.json").write_text(json.dumps(found, indent=1))


def train_text(run: Run) -> None:
    text_course.train(run.seed, run.work)


def train_decoder(run: Run) -> None:
    decoder.train(run.seed, run.work)


def train_edges(run: Run) -> None:
    decoder.train_edges(run.seed, run.work)


def train_attributes(run: Run) -> None:
    weights = part(attributes.train(run.seed, run.work), "judge")
    folder = run.built / "attributes"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.half().cpu() for name, value in weights.items()}, folder / attributes.WEIGHTS)


def train_denoiser(run: Run) -> None:
    denoiser.train(run.seed, run.work, denoiser.course_for(run.samples))


def train_harder(run: Run) -> None:
    harder.train(run.seed, run.work, run.harder)


def build_heavy(run: Run) -> None:
    """The end of the harder course; whether it still draws the published kinds as it should, the report says."""
    _assemble(run, run.work / f"{harder.NAME}.safetensors", "heavy")
    step = denoiser.SAMPLES_PER_STEP
    first, after = run.samples // step * step, run.harder // step * step
    legs = [leg * step for leg in loop.legs(checkpoint.load(run.work / f"{harder.NAME}.safetensors")[1])]
    run.note("heavy", {"samples": first + after, "harder": after, "legs": legs, "course": harder.NAME})


def build_light(run: Run) -> None:
    """The first snapshot to reach `LIGHT_TARGET`, or the last; judged on held-out captions drawn by another seed."""
    steps = sorted(int(path.stem.rpartition("-")[2]) for path in (run.work / "snapshots").glob("*.safetensors"))
    tried: dict[int, float] = {}
    for step in steps:
        tried[step * denoiser.SAMPLES_PER_STEP] = right = _light_accuracy(run, step)
        if right >= LIGHT_TARGET:
            break
    _assemble(run, snapshot(run.work, denoiser.NAME, step), "light")
    run.note("light", {"samples": step * denoiser.SAMPLES_PER_STEP, "tried": tried})


def _light_accuracy(run: Run, step: int) -> float:
    scenes, name = held_out_scenes(HELD_OUT, run.seed + 1)[:_TRIALS], f"trial-{step:06d}"
    _assemble(run, snapshot(run.work, denoiser.NAME, step), name)
    drawn = run.draw(name, LIGHT, scenes, run.seed, name)
    return float(opine(run.judge, drawn, scenes).right.mean())


def train_discriminator(run: Run) -> None:
    """The plain one, on the published kinds."""
    rng = generator(run.seed, "discriminator scenes", 0)
    scenes = training_scenes(rng, _LIGHT_PICTURES)
    drawn, right = _light(run, scenes, "light-training")
    weights = discriminator.train(run.seed, run.work, decoded(run, training_scenes(rng, _REAL)), drawn[~right])
    network = networks.discriminator()
    network.load_state_dict(part(weights, "discriminator"))
    network.half().save_pretrained(run.built / "discriminator")
    networks.compute_in_single(run.built / "discriminator")
    networks.save_preprocessor(run.built / "discriminator")


def train_caption(run: Run) -> None:
    """The one that sees the caption: the plain one's pictures, and hard ones; calibrated on pictures of its own."""
    rng = generator(run.seed, "discriminator scenes", 0)
    scenes = training_scenes(rng, _LIGHT_PICTURES)
    hard = training_scenes(rng, _LIGHT_PICTURES // _HARD_SHARE, HARD_KINDS)
    (drawn, right), (hard_drawn, hard_right) = _light(run, scenes, "light-training"), _light(run, hard, "light-hard")
    rest = len(scenes) - _CALIBRATING
    real = training_scenes(rng, _REAL, KINDS | HARD_KINDS)
    light = (
        np.concatenate([drawn[:rest], hard_drawn]),
        scenes[:rest] + hard,
        np.concatenate([right[:rest], hard_right]),
    )
    network = captioned.train(run.seed, run.work, (decoded(run, real), real), light)
    own = [caption(scene) for scene in scenes[rest:]]
    calibration = captioned.calibrated(network, drawn[rest:], own, right[rest:])
    captioned.save(run.built / "caption_discriminator", network, calibration)


def _light(run: Run, scenes: Sequence[Scene], name: str) -> tuple[Pictures, Bools]:
    """Light pictures of scenes that may be trained on, and which the judge calls right."""
    drawn = run.draw("light", LIGHT, scenes, run.seed + 1_000_000, name)
    return drawn, opine(run.judge, drawn, scenes).right


def decoded(run: Run, scenes: Sequence[Scene], batch: int = 100) -> Pictures:
    """What the decoder makes of the scenes' own latents: the best that any denoiser could draw."""
    vae = load_pipeline(run.built / "light").vae
    with torch.inference_mode():
        starts = range(0, len(scenes), batch)
        drawn = [vae.decode(latents(pictures(scenes[i : i + batch]))).sample for i in starts]
    return as_pictures(torch.cat(drawn))


def draw_held_out(run: Run, model: str, trial: int = 0, *, hard: bool = False) -> Pictures:
    """The held-out captions, published or hard, as the model draws them; both models start from the same noise."""
    scenes, name = (run.hard, "hard") if hard else (run.held_out, "held-out")
    seed = run.seed + _TRIAL_APART * trial
    return run.draw(model, DRAWINGS[model], scenes, seed, f"{model}-{name}-{trial}")


def _assemble(run: Run, weights: Path, name: str) -> None:
    """A pipeline's folder from the denoiser's averaged weights and the decoder's."""
    average = checkpoint.load(weights)[0]["average"]
    words = networks.tokenizer()
    encoder, unet, vae = networks.text_encoder(len(words)), networks.denoiser(), networks.autoencoder()
    encoder.load_state_dict(part(average, "text"))
    unet.load_state_dict(part(average, "unet"))
    vae.load_state_dict(part(finished(run.work, decoder.EDGES.name), "vae"))
    networks.save_pipeline(run.built / name, words, encoder, unet, vae)


TRAINING: dict[str, Callable[[Run], None]] = {
    "text": train_text,
    "decoder": train_decoder,
    "edges": train_edges,
    "attributes": train_attributes,
    "denoiser": train_denoiser,
    "harder": train_harder,
    "light": build_light,
    "discriminator": train_discriminator,
    "caption": train_caption,
    "heavy": build_heavy,
}
