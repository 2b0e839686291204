"""The report of `analysis.scale` as Markdown."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from analysis.scale_fleets import SOLVER, TYPES, Fleet
from analysis.scale_limits import (
    BITS_A_PIXEL,
    BUDGET_SHARE,
    LARGEST,
    PLAN_SLOTS,
    RESOURCES,
    SLOTS_A_NODE,
    SOFT,
    Costs,
    Host,
    Load,
    deployments_needed,
    ends,
)
from analysis.scale_words import AFTER, CLUSTER, ENDS, LIMITS, SIMULATED, SPREADING, said
from shared.catalog import Cascade
from shared.cluster import HASH_SLOTS, hash_slot
from shared.schema import Keys
from shared.summary import metric_figure, percent

GIB: Final = 2**30
NODES: Final = 3  # of the cluster that is shown
SPREAD: Final = (3, 12, 48)  # deployments whose spread over it is shown
FULL: Final = 0.5  # of a node that a deployment may take, when fleets are cut into several


@dataclass(frozen=True, slots=True)
class Row:
    """A fleet that draws as much as it can, and the share of each resource of one Redis that it takes."""

    cascade: Cascade
    load: Load
    taken: Mapping[str, float]

    @property
    def case(self) -> str:
        """What tells it from the other rows of its cascade and size."""
        share = f"{100 * self.load.heavy_share:.0f} % heavy" if self.load.heavy_share else "all light"
        return f"{share}, pictures {'elsewhere' if self.load.elsewhere else 'in the same Redis'}"


def report(
    rows: Sequence[Row], fleets: Sequence[Fleet], costs: Costs, host: Host, command: str, time_factor: float
) -> str:
    """The whole text."""
    head = ["# What one Redis carries, and where it ends", "", f"Made by `{command}` on {_machine()}.", ""]
    parts = [_measured(costs), _limits(rows, host), _ends(rows, costs, host), _cluster(rows, costs, host)]
    if fleets:
        parts.append(_simulated(fleets, time_factor))
    return "\n".join([*head, *(line for part in parts for line in part)]).rstrip() + "\n"


def _machine() -> str:
    return (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, load average {os.getloadavg()[0]:.1f} at its end"
    )


def _measured(costs: Costs) -> Iterator[str]:
    yield "## What things cost Redis"
    yield ""
    yield "Processor time of the server's own process, from `results/bench.csv` (`make bench BENCH='queue polling'`)."
    yield ""
    yield from _rows(
        ("what", "costs", "so a core carries, alone"),
        [
            (
                "a prompt, batches of 8, 40 % over both stages, without pictures",
                _us(costs.prompt_s),
                _per(costs.prompt_s, "/s"),
            ),
            (
                "the same, measured whole with its clients on the same two cores, batches of 32",
                "",
                f"{costs.whole_per_s:,.0f}/s",
            ),
            (
                "a MiB of pictures, kept, appended to the file and fetched",
                _us(costs.byte_s * 2**20),
                _per(costs.byte_s * 2**20, " MiB/s"),
            ),
            ("an idle slot with both processes, each second", _us(costs.slot_s), _per(costs.slot_s, " slots")),
            (
                "each pair of slots, each second: every agent looks at all",
                _us(costs.pair_s),
                f"{costs.pair_s**-0.5:,.0f} slots",
            ),
            ("memory that a prompt leaves: record and outcome", f"{costs.left_bytes:,.0f} bytes", ""),
        ],
    )
    yield ""


def _limits(rows: Sequence[Row], host: Host) -> Iterator[str]:
    memory, network = host.memory_bytes / GIB, host.network_bytes_per_s * 8 / 1e9
    yield "## What fleets draw, and what that takes of one Redis"
    yield ""
    first = rows[0].load
    yield said(
        LIMITS,
        memory=memory,
        network=network,
        plan_slots=PLAN_SLOTS,
        budget=BUDGET_SHARE,
        ttl_s=first.ttl_s,
        bits=BITS_A_PIXEL,
        keep_s=first.keep_s,
    )
    yield ""
    shown = [
        (
            *(row.cascade.name, f"{row.load.slots:,}", row.case, f"{row.load.prompts_per_s:,.1f}"),
            *(_share(row.taken[name]) for name in RESOURCES),
        )
        for row in rows
    ]
    yield from _rows(("cascade", "GPUs", "case", "prompts/s", *RESOURCES), shown)
    yield ""


def _ends(rows: Sequence[Row], costs: Costs, host: Host) -> Iterator[str]:
    yield "## Where it ends"
    yield ""
    yield said(ENDS)
    yield ""
    shown: list[tuple[str, ...]] = []
    for row in {(row.cascade.name, row.case): row for row in rows}.values():
        found = ends(row.cascade, row.load.heavy_share, costs, host, elsewhere=row.load.elsewhere)
        first = min((name for name in found if name != SOFT), key=found.__getitem__)
        cells = [_end(found[name], bold=name == first) for name in RESOURCES]
        shown.append((row.cascade.name, row.case, *cells))
    yield from _rows(("cascade", "case", *RESOURCES), shown)
    yield ""
    yield said(AFTER, plan_slots=PLAN_SLOTS)
    yield ""
    yield "![Shares of one Redis against the size of the fleet](scale.png)"
    yield ""


def _cluster(rows: Sequence[Row], costs: Costs, host: Host) -> Iterator[str]:
    yield "## Beyond: a Redis Cluster"
    yield ""
    yield said(CLUSTER)
    yield ""
    shown = [
        (row.cascade.name, f"{row.load.slots:,}", row.case, f"{deployments_needed(row.load, costs, host, FULL):,}")
        for row in rows
        if row.load.slots == max(each.load.slots for each in rows)
    ]
    yield f"Deployments into which a fleet is cut so that each takes at most {100 * FULL:.0f} % of a node:"
    yield ""
    yield from _rows(("cascade", "GPUs", "case", "deployments"), shown)
    yield ""
    spread = "; ".join(f"{count} deployments over {NODES} nodes as {_spread(count)}" for count in SPREAD)
    yield said(SPREADING, spread=spread)
    yield ""


def _spread(deployments: int) -> str:
    nodes = (hash_slot(Keys(f"pool-{n}").due) * NODES // HASH_SLOTS for n in range(deployments))
    held = Counter(nodes)
    return " + ".join(str(held[node]) for node in range(NODES))


def _simulated(fleets: Sequence[Fleet], time_factor: float) -> Iterator[str]:
    types = ", ".join(
        f"{100 * each.share:.0f} % {each.name} ({each.pace:g} times the A100's seconds)" for each in TYPES
    )
    traces = ", ".join(dict.fromkeys(f"{each.cascade} on {each.trace}" for each in fleets))
    yield "## Large fleets of mixed GPU types, simulated"
    yield ""
    yield said(SIMULATED, types=types, node=SLOTS_A_NODE, traces=traces, solver=SOLVER, time_factor=time_factor)
    yield ""
    heads = ("cascade", "GPUs", "policy", "prompts", "prompts/s, peak", "violation", "quality", "by lot", "heavy")
    yield from _rows((*heads, "solve p50 / p99", "processor"), [_fleet(each) for each in fleets])
    yield ""


def _fleet(each: Fleet) -> tuple[str, ...]:
    found, reached = each.found, each.found["quality"]
    value, control = (metric_figure(reached["metric"], reached[name]) for name in ("value", "control"))
    rates = f"{each.prompts_per_s:,.0f}, {each.peak_per_s:,.0f}"
    solve = f"{found['solve_ms_p50']:.0f} / {found['solve_ms_p99']:.0f} ms"
    head = (each.cascade, f"{each.gpus:,}", each.policy, f"{found['offered']:,}", rates, percent(found["violation"]))
    return (*head, value, control, percent(found["heavy_share"]), solve, f"{each.processor_s:.0f} s")


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:,.3g} us" if seconds < 1e-3 else f"{seconds * 1e3:,.3g} ms"


def _per(seconds: float, unit: str) -> str:
    return f"{1 / seconds:,.0f}{unit}"


def _share(share: float) -> str:
    if share > 1:
        return f"**{share:,.1f} times**"
    return "-" if share == 0 else f"{100 * share:.1f} %"


def _end(slots: int, *, bold: bool) -> str:
    text = "none" if slots >= LARGEST else f"{slots:,}"
    return f"**{text}**" if bold else text
