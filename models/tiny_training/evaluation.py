"""What the cascade is worth: attribute accuracy and Frechet distance as more and more goes to the heavy model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from models.measures import Bools, Floats, area_under_curve, distance, frechet
from models.scenes import HARD_KINDS, KINDS, Scene
from models.tiny_training.attributes import Judge, Verdict, judge
from models.tiny_training.data import layout
from models.tiny_training.sampling import Pictures, as_tensor

__all__ = ["Bools", "Floats", "area_under_curve", "deferral_table", "distance", "frechet"]

SHARES = tuple(i / 10 for i in range(11))
_LOTS = 20
_BATCH = 200


@dataclass(frozen=True)
class Opinion:
    """What the judge makes of n pictures: verdicts by attribute, bool (n,), and features (n, 128)."""

    verdicts: dict[str, Bools]
    features: Floats

    @property
    def right(self) -> Bools:
        return self.verdicts["right"]


@dataclass(frozen=True)
class Point:
    """One row of the table: a share of prompts sent to heavy by a selector, and what comes out."""

    selector: str
    heavy_share: float
    fid: float
    accuracy: float


def opine(network: Judge, pictures: Pictures, scenes: Sequence[Scene]) -> Opinion:
    """Judges pictures against the scenes that their captions describe."""
    verdicts: list[Verdict] = []
    features: list[Floats] = []
    with torch.inference_mode():
        for i in range(0, len(pictures), _BATCH):
            seen = network.features(as_tensor(pictures[i : i + _BATCH]))
            verdicts.append(judge(network.head(seen), layout(scenes[i : i + _BATCH])))
            features.append(seen.double().numpy())
    names = [*(f.name for f in fields(Verdict)), "right"]
    joined = {name: np.concatenate([getattr(v, name).numpy() for v in verdicts]) for name in names}
    return Opinion(joined, np.concatenate(features))


def by_kind(right: Bools, scenes: Sequence[Scene]) -> dict[str, float]:
    """The share that is all right within each kind of caption."""
    kinds = np.array([scene.kind for scene in scenes])
    return {kind: float(right[kinds == kind].mean()) for kind in KINDS | HARD_KINDS if (kinds == kind).any()}


Ranking = Callable[[np.random.Generator], NDArray[np.int64]]


def deferral_table(scores: Floats, light: Opinion, heavy: Opinion, real: Floats, seed: int) -> list[Point]:
    """Each selector at each share; `lot` is the mean over 20 lots, `oracle` knows what each model gets right."""
    gain = heavy.right.astype(int) - light.right.astype(int)
    rankings: dict[str, tuple[Ranking, int]] = {
        "discriminator": (lambda _: np.argsort(scores, kind="stable"), 1),
        "lot": (lambda rng: rng.permutation(len(scores)), _LOTS),
        "oracle": (lambda rng: _shuffled_argsort(-gain, rng), 1),
    }
    rng = np.random.default_rng(seed)
    points: list[Point] = []
    for selector, (ranking, repeats) in rankings.items():
        orders = [ranking(rng) for _ in range(repeats)]
        points += [_point(selector, share, orders, light, heavy, real) for share in SHARES]
    return points


def _point(
    selector: str, share: float, orders: Sequence[NDArray[np.int64]], light: Opinion, heavy: Opinion, real: Floats
) -> Point:
    right: list[float] = []
    apart: list[float] = []
    # At both ends every order gives the same mixture.
    for order in orders[: 1 if share in (0.0, 1.0) else None]:
        deferred = np.zeros(len(order), dtype=bool)
        deferred[order[: round(share * len(order))]] = True
        right.append(float(np.where(deferred, heavy.right, light.right).mean()))
        apart.append(distance(np.where(deferred[:, None], heavy.features, light.features), real))
    return Point(selector, share, float(np.mean(apart)), float(np.mean(right)))


def _shuffled_argsort(keys: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """An order by ascending key in which chance breaks the ties."""
    shuffle = rng.permutation(len(keys))
    return shuffle[np.argsort(keys[shuffle], kind="stable")]
