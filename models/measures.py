"""Numbers about scores and features of pictures: distances of distributions, areas, calibration. Numpy only."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
LEVEL = 0.95
Z = 1.96  # of a normal interval at LEVEL


class Estimate(NamedTuple):
    """A figure and its interval at LEVEL."""

    value: float
    low: float
    high: float


def normal(value: float, error: float) -> Estimate:
    """The interval of an estimate with a normal error of that standard deviation."""
    return Estimate(value, value - Z * error, value + Z * error)


def percentiles(value: float, resampled: Floats) -> Estimate:
    """The percentile interval of a bootstrap (Efron 1979)."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


def frechet(ours: Floats, real: Floats) -> float:
    """Frechet distance of two Gaussians fitted to features (Heusel et al. 2017).

    |m1 - m2|^2 + tr(C1 + C2 - 2 sqrt(C1 C2)), where the trace of the root is that of sqrt(A C2 A) with A = sqrt(C1):
    symmetric, so no complex numbers arise.
    """
    apart = ours.mean(0) - real.mean(0)
    ours_spread, real_spread = np.cov(ours, rowvar=False), np.cov(real, rowvar=False)
    values, vectors = np.linalg.eigh(real_spread)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ ours_spread @ root).clip(0)).sum()
    return float(apart @ apart + np.trace(ours_spread) + np.trace(real_spread) - 2 * shared)


def distance(ours: Floats, real: Floats) -> float:
    """The Frechet distance in units of the mean variance of a real feature, so that no scale of the features enters."""
    return frechet(ours, real) / float(real.var(axis=0).mean())


def kernel_distance(ours: Floats, real: Floats, *, paired: bool = False) -> float:
    """KID: the unbiased squared MMD under the kernel (x y / d + 1)^3 (Binkowski et al. 2018); about 0 for like sets.

    `paired`: row i of both is of one prompt. Such a pair is more alike than two pictures of two sets are, and would
    drive the estimate below 0: as in the U-statistic of Gretton et al. (2012) it is left out.
    """
    width = ours.shape[1]

    def kernel(left: Floats, right: Floats) -> Floats:
        return np.asarray((left @ right.T / width + 1) ** 3)

    def apart(left: Floats, right: Floats) -> float:
        values = kernel(left, right)
        return float((values.sum() - np.trace(values)) / (len(left) * (len(left) - 1)))

    between = apart(ours, real) if paired else float(kernel(ours, real).mean())
    return apart(ours, ours) + apart(real, real) - 2 * between


def area_under_curve(scores: Floats, right: Bools) -> float:
    """The chance that a right picture scores above a wrong one (ROC AUC by ranks, ties halved)."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    hits, misses = int(right.sum()), int((~right).sum())
    return float((ranks[right].sum() - hits * (hits + 1) / 2) / (hits * misses)) if hits and misses else float("nan")


def area_with_interval(scores: Floats, right: Bools, seed: int = 0, resamples: int = 500) -> Estimate:
    """The area, with a bootstrap over right and wrong pictures apart."""
    rng = np.random.default_rng([seed, len(scores)])
    hits, misses = scores[right], scores[~right]
    truth = np.repeat([True, False], [len(hits), len(misses)])
    areas = [
        area_under_curve(np.concatenate([rng.choice(hits, len(hits)), rng.choice(misses, len(misses))]), truth)
        for _ in range(resamples)
    ]
    return percentiles(area_under_curve(scores, right), np.asarray(areas))


def roc(scores: Floats, right: Bools) -> tuple[Floats, Floats]:
    """False and true positive rates as the threshold falls, from (0, 0) to (1, 1); one point a distinct score."""
    values = np.unique(scores)[::-1]
    found = np.searchsorted(np.sort(scores[right]), values, side="left")
    wrong = np.searchsorted(np.sort(scores[~right]), values, side="left")
    true = 1 - found / max(1, int(right.sum()))
    false = 1 - wrong / max(1, int((~right).sum()))
    return np.concatenate([[0.0], false]), np.concatenate([[0.0], true])


def log_loss(margins: Floats, real: Bools, temperature: float = 1.0) -> float:
    """Mean negative log likelihood of P(real) = 1 / (1 + exp(-margin / temperature)); both classes weigh the same."""
    losses = np.logaddexp(0.0, np.where(real, -margins, margins) / temperature)
    return float((losses[real].mean() + losses[~real].mean()) / 2)


def fitted_temperature(margins: Floats, real: Bools) -> float:
    """The temperature of least log loss (Guo et al. 2017), from .05 to 20; the loss has one minimum in 1 / T."""
    return 1 / _golden(lambda sharpness: log_loss(margins, real, 1 / sharpness), 0.05, 20.0)


class Bin(NamedTuple):
    """Scores of one stretch: their mean, the share that is real, and how much of the weight lies here."""

    score: float
    real: float
    weight: float


def reliability(scores: Floats, real: Bools, bins: int = 10) -> list[Bin]:
    """Scores in equal stretches of [0, 1], both classes weighing the same; empty stretches are left out."""
    weights = np.where(real, 0.5 / max(1, int(real.sum())), 0.5 / max(1, int((~real).sum())))
    place = np.minimum((scores * bins).astype(int), bins - 1)
    found: list[Bin] = []
    for each in range(bins):
        here = place == each
        weight = float(weights[here].sum())
        if weight > 0:
            mean, share = float(weights[here] @ scores[here]), float(weights[here & real].sum())
            found.append(Bin(mean / weight, share / weight, weight))
    return found


def calibration_error(bins: list[Bin]) -> float:
    """Expected calibration error: the mean gap between what is said and what holds (Naeini et al. 2015)."""
    return sum(each.weight * abs(each.score - each.real) for each in bins)


def agreement(scores: Floats) -> float:
    """Mean Pearson correlation of the columns of (prompts, seeds): 1 where a score is a matter of the prompt alone."""
    apart = np.atleast_2d(np.corrcoef(scores, rowvar=False))
    pairs = apart[np.triu_indices_from(apart, k=1)]
    return float(pairs.mean()) if len(pairs) else math.nan


def _golden(loss: Callable[[float], float], low: float, high: float) -> float:
    """The place of the minimum of a function with one, by the golden section on a logarithmic scale."""
    ratio = (math.sqrt(5) - 1) / 2
    left, right = math.log(low), math.log(high)
    while right - left > 1e-7:
        inner, outer = right - ratio * (right - left), left + ratio * (right - left)
        if loss(math.exp(inner)) <= loss(math.exp(outer)):
            right = outer
        else:
            left = inner
    return math.exp((left + right) / 2)
