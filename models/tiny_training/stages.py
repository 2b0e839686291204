"""The stages in order, as a table: what each reads lies in the work folder, and a finished stage is not run again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import save_file

from models.scenes import Scene, caption, held_out_scenes
from models.tiny_training import attributes, checkpoint, decoder, denoiser, discriminator, networks, text
from models.tiny_training.data import gaussian, generator, latents, pictures, training_scenes
from models.tiny_training.evaluation import opine
from models.tiny_training.loop import finished, part, snapshot
from models.tiny_training.sampling import (
    HEAVY,
    LIGHT,
    Drawing,
    Pictures,
    as_pictures,
    draw_all,
    fingerprint,
    load_pipeline,
)

HELD_OUT = 2000
# Light is to be right on two captions in three: enough to be trusted often, wrong often enough to be worth checking.
LIGHT_TARGET = 0.65
_TRIALS = 300
_REAL = 6000
_LIGHT_PICTURES = 8000


@dataclass(frozen=True)
class Run:
    """One training run: its seed, the samples that the denoiser sees, and its two folders."""

    seed: int
    samples: int
    work: Path
    out: Path

    @property
    def built(self) -> Path:
        """Where the folders of the cascade wait until they are published."""
        return self.work / "built"

    @cached_property
    def held_out(self) -> list[Scene]:
        return held_out_scenes(HELD_OUT, self.seed)

    @cached_property
    def judge(self) -> attributes.Judge:
        return attributes.load(self.built / "attributes")

    def draw(self, model: str, drawing: Drawing, scenes: Sequence[Scene], seed: int, name: str) -> Pictures:
        """Pictures by a built model for the scenes' captions: drawn once, kept while its weights stay the same."""
        captions = [caption(scene) for scene in scenes]
        keep = self.work / "pictures" / f"{name}-{fingerprint(self.built / model)}.npy"
        return draw_all(self.built / model, drawing, captions, seed, keep)


def train_text(run: Run) -> None:
    text.train(run.seed, run.work)


def train_decoder(run: Run) -> None:
    decoder.train(run.seed, run.work)


def train_attributes(run: Run) -> None:
    weights = part(attributes.train(run.seed, run.work), "judge")
    folder = run.built / "attributes"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.half() for name, value in weights.items()}, folder / attributes.WEIGHTS)


def train_denoiser(run: Run) -> None:
    denoiser.train(run.seed, run.work, denoiser.course_for(run.samples))


def build_heavy(run: Run) -> None:
    _assemble(run, run.work / f"{denoiser.NAME}.safetensors", "heavy")


def build_light(run: Run) -> None:
    """The first snapshot to reach `LIGHT_TARGET`, or the last; judged on held-out captions drawn by another seed."""
    steps = sorted(int(path.stem.rpartition("-")[2]) for path in (run.work / "snapshots").glob("*.safetensors"))
    # The first of as many as are measured later, for the mixture of kinds depends on how many are asked for.
    scenes = held_out_scenes(HELD_OUT, run.seed + 1)[:_TRIALS]
    tried: dict[int, float] = {}
    for step in steps:
        tried[step * denoiser.SAMPLES_PER_STEP] = right = _light_accuracy(run, step, scenes)
        if right >= LIGHT_TARGET:
            break
    note = {"samples": step * denoiser.SAMPLES_PER_STEP, "tried": tried}
    _assemble(run, snapshot(run.work, denoiser.NAME, step), "light")
    (run.work / "light.json").write_text(json.dumps(note, indent=1))


def train_discriminator(run: Run) -> None:
    rng = generator(run.seed, "discriminator scenes", 0)
    scenes = training_scenes(rng, _LIGHT_PICTURES)
    drawn = run.draw("light", LIGHT, scenes, run.seed + 1_000_000, "light-training")
    wrong = ~opine(run.judge, drawn, scenes).right
    weights = discriminator.train(run.seed, run.work, decoded(run, training_scenes(rng, _REAL)), drawn[wrong])
    network = networks.discriminator()
    network.load_state_dict(part(weights, "discriminator"))
    network.half().save_pretrained(run.built / "discriminator")
    networks.compute_in_single(run.built / "discriminator")
    networks.save_preprocessor(run.built / "discriminator")


def decoded(run: Run, scenes: Sequence[Scene], noise: float = 0.0, batch: int = 100) -> Pictures:
    """What the decoder makes of the scenes' own latents: the best that any denoiser could draw."""
    vae = load_pipeline(run.built / "light").vae
    rng = generator(run.seed, "decoded", len(scenes))
    drawn: list[torch.Tensor] = []
    with torch.inference_mode():
        for i in range(0, len(scenes), batch):
            exact = latents(pictures(scenes[i : i + batch]))
            drawn.append(vae.decode(exact + noise * gaussian(rng, *exact.shape)).sample)
    return as_pictures(torch.cat(drawn))


def draw_held_out(run: Run, model: str) -> Pictures:
    """The 2,000 held-out captions as the model draws them; both models start from the same noise."""
    return run.draw(model, {"light": LIGHT, "heavy": HEAVY}[model], run.held_out, run.seed, f"{model}-held-out")


def _light_accuracy(run: Run, step: int, scenes: Sequence[Scene]) -> float:
    name = f"trial-{step:06d}"
    _assemble(run, snapshot(run.work, denoiser.NAME, step), name)
    drawn = run.draw(name, LIGHT, scenes, run.seed, name)
    return float(opine(run.judge, drawn, scenes).right.mean())


def _assemble(run: Run, weights: Path, name: str) -> None:
    """A pipeline's folder from the denoiser's averaged weights and the decoder's."""
    average = checkpoint.load(weights)[0]["average"]
    words = networks.tokenizer()
    encoder, unet, vae = networks.text_encoder(len(words)), networks.denoiser(), networks.autoencoder()
    encoder.load_state_dict(part(average, "text"))
    unet.load_state_dict(part(average, "unet"))
    vae.load_state_dict(part(finished(run.work, decoder.COURSE.name), "vae"))
    networks.save_pipeline(run.built / name, words, encoder, unet, vae)


TRAINING: dict[str, Callable[[Run], None]] = {
    "text": train_text,
    "decoder": train_decoder,
    "attributes": train_attributes,
    "denoiser": train_denoiser,
    "light": build_light,
    "discriminator": train_discriminator,
    "heavy": build_heavy,
}
