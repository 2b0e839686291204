"""Who should be drawn heavy: the selectors over several drawings of the same captions, with intervals.

A caption is one sample, however often it is drawn: intervals are bootstrapped over captions (Efron 1979), each with
all its drawings, and every resample is ranked anew, as another thousand prompts would be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.tiny_training.evaluation import SHARES, Floats, Opinion, Point, deferral_table

# What is compared, and with what: the discriminator that serves sees the caption, the plain one does not.
DIFFERENCES = (("discriminator", "lot"), ("plain", "lot"), ("discriminator", "plain"), ("oracle", "discriminator"))
_REPEATS = 1000
_SPREAD = (2.5, 97.5)


@dataclass(frozen=True)
class Trial:
    """One drawing of n captions: what the judge makes of both models' pictures, and each discriminator's scores."""

    light: Opinion
    heavy: Opinion
    scores: Mapping[str, Floats]

    @property
    def gain(self) -> NDArray[np.int64]:
        """1 where only heavy is right, -1 where only light is, int (n,)."""
        gained: NDArray[np.int64] = self.heavy.right.astype(np.int64) - self.light.right.astype(np.int64)
        return gained


def table(trials: Sequence[Trial], real: Floats, seed: int) -> list[Point]:
    """Each selector at each share, the mean over the trials."""
    tables = [_table(trial, real, seed) for trial in trials]
    return [
        replace(
            rows[0],
            fid=float(np.mean([row.fid for row in rows])),
            accuracy=float(np.mean([row.accuracy for row in rows])),
        )
        for rows in zip(*tables, strict=True)
    ]


def _table(trial: Trial, real: Floats, seed: int) -> list[Point]:
    points: list[Point] = []
    for name, scores in trial.scores.items():
        found = deferral_table(scores, trial.light, trial.heavy, real, seed)
        points += [replace(point, selector=name) for point in found if point.selector == "discriminator"]
    return points + [point for point in found if point.selector != "discriminator"]


def intervals(trials: Sequence[Trial], seed: int) -> list[dict[str, float | str]]:
    """Per pair of `DIFFERENCES` and share: the difference in accuracy and its 95 % interval."""
    rng = np.random.default_rng(seed)
    captions = len(trials[0].light.right)
    whole = curves(trials, np.arange(captions))
    drawn = [curves(trials, rng.integers(captions, size=captions)) for _ in range(_REPEATS)]
    rows: list[dict[str, float | str]] = []
    for ours, theirs in DIFFERENCES:
        apart = whole[ours] - whole[theirs]
        low, high = np.percentile([one[ours] - one[theirs] for one in drawn], _SPREAD, axis=0)
        rows += [
            {"selector": ours, "over": theirs, "heavy_share": share, "difference": float(apart[i]),
             "low": float(low[i]), "high": float(high[i])}
            for i, share in enumerate(SHARES)
        ]  # fmt: skip
    return rows


def curves(trials: Sequence[Trial], chosen: NDArray[np.int64]) -> dict[str, Floats]:
    """Accuracy by share (11,) of each selector on the chosen captions, the mean over the trials; of the lot, what it
    comes to on average.
    """
    found: dict[str, list[Floats]] = {}
    for trial in trials:
        gain, base = trial.gain[chosen], float(trial.light.right[chosen].mean())
        keys = {name: scores[chosen] for name, scores in trial.scores.items()} | {"oracle": -gain}
        for name, key in keys.items():
            found.setdefault(name, []).append(base + _gained(gain[np.argsort(key, kind="stable")]))
        found.setdefault("lot", []).append(base + np.array(SHARES) * gain.mean())
    return {name: np.mean(rows, axis=0) for name, rows in found.items()}


def _gained(ordered: NDArray[np.int64]) -> Floats:
    """What sending the first of them to heavy gains, by share, as a share of all."""
    total = np.concatenate([[0], np.cumsum(ordered)])
    return np.array([total[round(share * len(ordered))] / len(ordered) for share in SHARES])


def interval(right: Sequence[NDArray[np.bool_]], seed: int) -> tuple[float, float]:
    """The 95 % interval of the share that is right, over captions, each with all its drawings."""
    rng, each = np.random.default_rng(seed), np.mean(right, axis=0)
    means = [each[rng.integers(len(each), size=len(each))].mean() for _ in range(_REPEATS)]
    low, high = np.percentile(means, _SPREAD)
    return float(low), float(high)
