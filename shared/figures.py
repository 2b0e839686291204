"""The figures of a stretch of time, for who watches a deployment: are deadlines met, why not, how good are answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from shared.catalog import Cascade
from shared.errors import SettingsError
from shared.ledger import Quality, Tally, quality
from shared.messages import End
from shared.plans import Plan
from shared.summary import selector


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of the last `seconds`: are we meeting deadlines, and why not.

    `on_time`: of the prompts that ended or were refused in these seconds the share that was no violation, None where
    there were none; `late`, `refused` and `ends` count prompts, `offered` those that came to the door; `why` counts
    ends by `<end>:<why>` and refusals by `refused:<why>`. `p50_s`, `p99_s`: latency of the answers. `quality` is None
    where the cascade has no curve or nothing was answered on time.
    """

    seconds: float
    offered: int
    refused: int
    late: int
    ends: Mapping[End, int]
    why: Mapping[str, int]
    on_time: float | None
    p50_s: float | None
    p99_s: float | None
    heavy_share: float | None
    quality: Quality | None

    @property
    def ended(self) -> int:
        """Prompts that ended or were refused."""
        return sum(self.ends.values()) + self.refused

    def per_s(self, end: End) -> float:
        """Prompts per second that ended so."""
        return self.rate(self.ends[end])

    def rate(self, count: int) -> float:
        """So many prompts, per second; none before the first look."""
        return count / self.seconds if self.seconds else 0.0


def figures(
    tally: Tally,
    seconds: float,
    *,
    offered: int = 0,
    refusals: Mapping[str, int] | None = None,
    plan: Plan | None = None,
    cascade: Cascade | None = None,
) -> Figures:
    """What the outcomes of these seconds and the refusals, by `refused:<why>`, amount to."""
    turned_away = refusals or {}
    refused = sum(turned_away.values())
    ledger = tally.ledger(sum(tally.ends.values()) + refused, refused)
    answered = ledger.ends["light"] + ledger.ends["heavy"]
    return Figures(
        seconds=seconds,
        offered=offered,
        refused=refused,
        late=ledger.late,
        ends=cast(Mapping[End, int], ledger.ends),
        why={**ledger.why, **turned_away},
        on_time=1 - ledger.violation if ledger.offered else None,
        p50_s=ledger.latency_s(50) if answered else None,
        p99_s=ledger.latency_s(99) if answered else None,
        heavy_share=ledger.heavy_share if answered else None,
        quality=_quality(tally, plan, cascade),
    )


def _quality(tally: Tally, plan: Plan | None, cascade: Cascade | None) -> Quality | None:
    if cascade is None or not tally.on_time:
        return None
    try:
        chosen = selector([plan] if plan else [])
        return quality(tally, cascade.curve(chosen), cascade.curve("lot"))
    except SettingsError:  # the cascade has no curve
        return None
