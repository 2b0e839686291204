"""Quality against the share of prompts drawn heavy, for each way of choosing them, with intervals.

Pictures are drawn once by both models for the same prompts and seeds; everything here is arithmetic on what is known
of them. A selector is a number for each picture: the lowest go heavy first.

    discriminator   the score of the light picture
    lot             chance: the control that every selector must beat
    oracle          knows for which prompts the heavy picture is worth more; only where single pictures are judged
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.bars import Say, unsaid
from models.measures import Bools, Estimate, Floats, kernel_distance, normal, percentiles

SHARES: Final = tuple(i / 10 for i in range(11))
LOT, ORACLE = "lot", "oracle"
RESAMPLES: Final = 1000  # of a mean
LOTS: Final = 5  # whose distances are averaged; a mean over all lots has a formula
BLOCKS: Final = 10
_SMALLEST_BLOCK: Final = 20
Distance = Callable[[Floats, Floats], float]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Stage:
    """One model's pictures: `worth` (seeds, prompts), what each is worth by itself, and `features` (.., width)."""

    worth: Floats | None = None
    features: Floats | None = None


@dataclass(frozen=True)
class Drawn:
    """Both models' pictures for the same prompts and seeds; `scores` by selector, (seeds, prompts) each.

    `real`: features of real pictures (pictures, width), where distances are asked for; `paired`: row i is of prompt i.
    """

    scores: Mapping[str, Floats]
    light: Stage
    heavy: Stage
    real: Floats | None = None
    paired: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Seeds and prompts."""
        seeds, prompts = next(iter(self.scores.values())).shape
        return seeds, prompts


@dataclass(frozen=True)
class Point:
    """What comes out at a heavy share; `ahead`: how far in front of the lot, positive where it is better."""

    selector: str
    metric: str
    share: float
    found: Estimate
    ahead: Estimate


def worth_curves(drawn: Drawn, seed: int, resamples: int = RESAMPLES) -> list[Point]:
    """Mean worth at each share. Prompts are resampled with all their seeds, and chosen from anew each time.

    The lot's is the straight line between the ends: the mean over all lots.
    """
    light, heavy = drawn.light.worth, drawn.heavy.worth
    if light is None or heavy is None:
        return []
    selectors = _selectors(drawn, seed)
    prompts = light.shape[1]
    chosen = _resampled(prompts, resamples, seed)
    by_lot = np.stack([_straight(light[:, some].mean(), heavy[:, some].mean()) for some in chosen])
    points: list[Point] = []
    for name, keys in selectors.items():
        tables = by_lot if name == LOT else np.stack([_mixed(keys[:, s], light[:, s], heavy[:, s]) for s in chosen])
        points += _points(name, "worth", tables, tables - by_lot, percentiles)
    return points


def distance_curves(drawn: Drawn, distance: Distance, seed: int, resamples: int, say: Say = unsaid) -> list[Point]:
    """Frechet distance at each share, the mean over seeds, against all real pictures.

    A bootstrap's distances are too large, for its doubles narrow the cloud of features: only their spread is used,
    for a normal interval.
    """
    if drawn.real is None or drawn.light.features is None:
        return []
    prompts = drawn.shape[1]
    chosen = _resampled(prompts, resamples, seed)
    tables: dict[str, list[Floats]] = {}
    for number, some in enumerate(chosen):
        for name, row in _distances(drawn, some, distance, seed).items():
            tables.setdefault(name, []).append(row)
        say("distances", number + 1, len(chosen))
    by_lot = np.stack(tables[LOT])
    return [
        point
        for name, rows in tables.items()
        for point in _points(name, "fid", np.stack(rows), by_lot - np.stack(rows), _spread)
    ]


def kernel_curves(drawn: Drawn, seed: int) -> list[Point]:
    """KID at each share: the mean over disjoint blocks of prompts, which stays unbiased, and its normal interval."""
    blocks = min(BLOCKS, drawn.shape[1] // _SMALLEST_BLOCK)
    if drawn.real is None or drawn.light.features is None or blocks < 2:
        return []
    rng = np.random.default_rng([seed, 2])
    prompts = np.array_split(rng.permutation(drawn.shape[1]), blocks)
    others = np.array_split(drawn.real[rng.permutation(len(drawn.real))], blocks)
    real = [drawn.real[some] for some in prompts] if drawn.paired else others
    tables: dict[str, list[Floats]] = {}
    for some, truth in zip(prompts, real, strict=True):
        for name, row in _distances(drawn, some, partial(kernel_distance, paired=drawn.paired), seed, truth).items():
            tables.setdefault(name, []).append(row)
    rows = {name: np.stack(table) for name, table in tables.items()}
    return [
        point
        for name, table in rows.items()
        for point in _points(name, "kid", table, rows[LOT] - table, _between_blocks, whole=True)
    ]


def chosen_heavy(keys: Floats, share: float) -> Bools:
    """Which prompts go heavy, by row: the share with the lowest keys."""
    count = round(share * keys.shape[-1])
    order = np.argsort(keys, axis=-1, kind="stable")
    chosen = np.zeros(keys.shape, dtype=bool)
    np.put_along_axis(chosen, order[..., :count], True, axis=-1)
    return chosen


def _resampled(prompts: int, resamples: int, seed: int) -> list[Places]:
    """All prompts as they are, and then as many drawn with replacement, again and again."""
    rng = np.random.default_rng([seed, prompts])
    return [np.arange(prompts), *[rng.integers(prompts, size=prompts) for _ in range(resamples)]]


def _selectors(drawn: Drawn, seed: int) -> dict[str, Floats]:
    """Keys by selector, (seeds, prompts); the oracle's ties are broken by chance."""
    rng = np.random.default_rng([seed, 3])
    found = {**drawn.scores, LOT: rng.random(drawn.shape)}
    if drawn.light.worth is not None and drawn.heavy.worth is not None:
        # Far below any difference of worth that matters.
        found[ORACLE] = drawn.light.worth - drawn.heavy.worth + 1e-9 * rng.random(drawn.shape)
    return found


def _mixed(keys: Floats, light: Floats, heavy: Floats) -> Floats:
    """Mean worth at each share, (shares,)."""
    order = np.argsort(keys, axis=-1, kind="stable")
    gains = np.take_along_axis(heavy - light, order, axis=-1).mean(axis=0)
    total = np.concatenate([[0.0], np.cumsum(gains)])
    prompts = keys.shape[-1]
    return np.asarray(light.mean() + np.array([total[round(share * prompts)] for share in SHARES]) / prompts)


def _straight(light: float, heavy: float) -> Floats:
    return np.array([light + (heavy - light) * share for share in SHARES])


def _distances(
    drawn: Drawn, some: Places, distance: Distance, seed: int, real: Floats | None = None
) -> dict[str, Floats]:
    """By selector, the distance at each share of the pictures of these prompts, the mean over seeds."""
    keys = {name: [values[:, some]] for name, values in _selectors(drawn, seed).items()}
    rng = np.random.default_rng([seed, 4])
    keys[LOT] += [rng.random(drawn.shape)[:, some] for _ in range(LOTS - 1)]
    truth = real if real is not None or drawn.real is None else drawn.real[some] if drawn.paired else drawn.real
    assert truth is not None
    ends = {share: _mean_distance(drawn, some, keys[LOT][:1], share, distance, truth) for share in (0.0, 1.0)}
    return {
        name: np.array(
            [ends[s] if s in ends else _mean_distance(drawn, some, each, s, distance, truth) for s in SHARES]
        )
        for name, each in keys.items()
    }


def _mean_distance(
    drawn: Drawn,
    some: Places,
    keys: Sequence[Floats],
    share: float,
    distance: Distance,
    real: Floats,
) -> float:
    light, heavy = drawn.light.features, drawn.heavy.features
    assert light is not None and heavy is not None
    return float(np.mean([distance(mixture, real) for mixture in _mixtures(light, heavy, some, keys, share)]))


def _mixtures(light: Floats, heavy: Floats, some: Places, keys: Sequence[Floats], share: float) -> Iterator[Floats]:
    for each in keys:
        deferred = chosen_heavy(each, share)
        for seed in range(len(light)):
            yield np.where(deferred[seed][:, None], heavy[seed][some], light[seed][some])


def _spread(value: float, resampled: Floats) -> Estimate:
    return normal(value, float(resampled.std(ddof=1))) if len(resampled) > 1 else Estimate(value, np.nan, np.nan)


def _between_blocks(value: float, blocks: Floats) -> Estimate:
    return normal(value, float(blocks.std(ddof=1) / np.sqrt(len(blocks))))


def _points(
    name: str,
    metric: str,
    tables: Floats,
    ahead: Floats,
    interval: Callable[[float, Floats], Estimate],
    *,
    whole: bool = False,
) -> list[Point]:
    """Points from (samples, shares): the first row is the estimate and the others its resamples, or, where `whole`,
    all rows are samples and their mean the estimate.
    """

    def estimate(values: Floats) -> Estimate:
        return interval(float(values.mean()), values) if whole else interval(float(values[0]), values[1:])

    return [
        Point(name, metric, share, estimate(tables[:, place]), estimate(ahead[:, place]))
        for place, share in enumerate(SHARES)
    ]
