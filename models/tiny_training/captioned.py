"""Trains the discriminator that sees the caption, calibrates it and saves the folder that serves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as entropy

from models.caption_discriminator import CONFIG, MODEL_TYPE, WEIGHTS, CaptionDiscriminator, CaptionNetwork, network_for
from models.scenes import GROUNDS, SIDE, WORDS, Scene, caption
from models.tiny_training import harder, networks
from models.tiny_training.data import ATTRIBUTES, generator, layout
from models.tiny_training.denoiser import TOKENISE
from models.tiny_training.loop import DEVICE, Course, Trainer, finished, part
from models.tiny_training.pairs import BATCH, pairs
from models.tiny_training.sampling import Bools, Pictures, as_tensor
from models.tiny_training.text import layout_loss

COURSE = Course("caption", steps=1000, rate=2e-3, average=0.995, checkpoint_every=100)
_LAYOUT = 0.5
_VALUES = {name: len(words) for name, words in ATTRIBUTES.items()}
_TEXT = ("vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers",
         "num_attention_heads", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")  # fmt: skip


def train(
    seed: int, work: Path, decoded: tuple[Pictures, Sequence[Scene]], light: tuple[Pictures, Sequence[Scene], Bools],
    course: Course = COURSE,
) -> CaptionNetwork:  # fmt: skip
    """The network with averaged weights, its text encoder the one that the harder course taught to read.

    Beside right and wrong it learns to read pictures whose scene is known: by right and wrong alone it finds no start.
    """
    torch.manual_seed(seed)
    network = network_for(_text_config(), len(GROUNDS), _VALUES)
    learned = finished(work, harder.NAME)
    network.text.load_state_dict(part(learned, "text"))
    network.asked.load_state_dict(part(learned, "reading"))
    network.text.requires_grad_(requires_grad=False)
    module = nn.ModuleDict({"caption": network}).to(DEVICE)

    def loss(step: int) -> Tensor:
        rng = generator(seed, course.name, step)
        given = pairs(rng, decoded, light)
        tokens = TOKENISE([caption(scene) for scene in given.told])
        logits, seen, asked = network.compared(given.images.to(DEVICE), tokens.to(DEVICE))
        reading = layout_loss(asked, layout(given.told).to(DEVICE))
        known = (seen[0][given.known], {name: cells[given.known] for name, cells in seen[1].items()})
        seeing = layout_loss(known, layout([given.shown[i] for i in given.known]).to(DEVICE))
        return entropy(logits, given.right.to(DEVICE)) + _LAYOUT * (reading + seeing)

    network.load_state_dict(part(Trainer(course, module, work).run(loss), "caption"))
    return network.cpu().eval()


def calibrated(
    network: CaptionNetwork, pictures: Pictures, captions: Sequence[str], right: Bools
) -> tuple[float, float]:
    """Scale and shift of the logit under which P(right) means what it says on these pictures (Platt 1999)."""
    with torch.inference_mode():
        rows = [
            network(as_tensor(pictures[i : i + BATCH]), TOKENISE(captions[i : i + BATCH]))
            for i in range(0, len(pictures), BATCH)
        ]
    logits, truth = torch.cat(rows).double(), torch.from_numpy(right).double()
    line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = entropy(line[0] * logits + line[1], truth)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    scale, shift = line.tolist()
    return scale, shift


def save(folder: Path, network: CaptionNetwork, calibration: tuple[float, float]) -> None:
    """Writes what `CaptionDiscriminator` reads, weights in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    words = networks.tokenizer()
    ids = {word: int(words.convert_tokens_to_ids(word + "</w>")) for word in WORDS}
    config = {
        "model_type": MODEL_TYPE, "image_size": SIDE, "words": ids, "text": _text_config(),
        "grounds": len(GROUNDS), "attributes": _VALUES,
        "tokens": {"most": networks.TOKENS, "start": words.bos_token_id, "end": words.eos_token_id},
        "calibration": dict(zip(("scale", "shift"), calibration, strict=True)),
    }  # fmt: skip
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n")
    save_file({name: value.half().contiguous() for name, value in network.state_dict().items()}, folder / WEIGHTS)


def scores(folder: Path, pictures: Pictures, captions: Sequence[str], batch: int = 100) -> NDArray[np.float64]:
    """P(right) of each picture, float64 (pictures,)."""
    judge = CaptionDiscriminator(folder, torch.device("cpu"))
    rows = [
        judge.score((as_tensor(pictures[i : i + batch]) + 1) / 2, captions[i : i + batch])
        for i in range(0, len(pictures), batch)
    ]
    return np.concatenate([np.asarray(row, np.float64) for row in rows])


def _text_config() -> dict[str, int]:
    config = networks.text_encoder(len(networks.tokenizer())).config
    return {name: int(getattr(config, name)) for name in _TEXT}
