"""The figure of `analysis.scale`: what a fleet takes of one Redis, resource by resource, against its size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from analysis.figures import drawing
from analysis.scale_limits import PLAN_SLOTS, Costs, Host, best_heavy_share, load_of, taken
from shared.catalog import Cascade

# A picture stands on white, so colours are fixed here (after Okabe and Ito), and each line is named beside it.
COLOURS: Final = {
    "core": "#0b76c9",
    "memory": "#d55e00",
    "network": "#009e73",
    "pictures": "#b0408a",
    "plan": "#777777",
}
WORDS: Final = {
    "core": "one core",
    "memory": "memory, records and outcomes",
    "network": "network",
    "pictures": "pictures' budget",
    "plan": "slots of a plan",
}
INK: Final = "#222222"
SIZES: Final = tuple(round(10 ** (1 + step / 12)) for step in range(34))
FLOOR: Final = 1e-3


def draw(cascades: Sequence[Cascade], costs: Costs, host: Host, path: Path) -> None:
    """A panel a cascade: solid at the best quality, dashed all light; dotted, the core with pictures elsewhere."""
    with drawing("scale"):
        figure = Figure(figsize=(5.2 * len(cascades), 4.4))
        axes = figure.subplots(1, len(cascades), sharey=True, squeeze=False)[0]
        for axis, cascade in zip(axes, cascades, strict=True):
            _panel(axis, cascade, costs, host)
        axes[0].set_ylabel("share of one Redis", color=INK)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False, labelcolor=INK)
        figure.subplots_adjust(left=0.105 if len(cascades) > 1 else 0.2, right=0.98, top=0.92, bottom=0.24, wspace=0.06)
        figure.savefig(path, format="png", dpi=130, facecolor="white", metadata={"Software": None})


def _panel(axis: Any, cascade: Cascade, costs: Costs, host: Host) -> None:
    best = best_heavy_share(cascade)
    for name, colour in COLOURS.items():
        axis.plot(*_line(cascade, best, name, costs, host), color=colour, linewidth=2, label=WORDS[name])
        if name != "plan":
            axis.plot(*_line(cascade, 0.0, name, costs, host), color=colour, linewidth=1, linestyle=(0, (5, 2)))
    style = {"color": COLOURS["core"], "linewidth": 1.6, "linestyle": (0, (1, 1.5))}
    axis.plot(*_line(cascade, best, "core", costs, host, elsewhere=True), label="core, pictures elsewhere", **style)
    axis.plot([], [], color=INK, linewidth=1, linestyle=(0, (5, 2)), label="the same, all light")
    axis.axhline(1.0, color=INK, linewidth=0.8)
    axis.axvline(PLAN_SLOTS, color=COLOURS["plan"], linewidth=0.6)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_ylim(FLOOR, 100)
    axis.set_xlim(SIZES[0], SIZES[-1])
    axis.set_yticks([0.001, 0.01, 0.1, 1, 10, 100], ["0.1 %", "1 %", "10 %", "100 %", "10 times", "100 times"])
    axis.set_xticks([10, 100, 1000], ["10", "100", "1,000"])
    axis.minorticks_off()
    axis.set_xlabel("GPUs", color=INK)
    axis.set_title(f"{cascade.name}: {100 * best:.0f} % heavy", color=INK, fontweight="bold")
    axis.grid(color="#cccccc", linewidth=0.5)


def _line(
    cascade: Cascade, share: float, resource: str, costs: Costs, host: Host, *, elsewhere: bool = False
) -> tuple[Sequence[int], list[float]]:
    found = (taken(load_of(cascade, slots, share, elsewhere=elsewhere), costs, host) for slots in SIZES)
    return SIZES, [each[resource] for each in found]
