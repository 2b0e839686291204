"""A run of eight prompts, one of every fate, whose figures can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PIL import Image

from shared.catalog import Cascade
from shared.measured import Curve, Profile
from shared.messages import End, Outcome, Visit
from shared.model import Model
from shared.plans import Plan
from shared.recording import Recording, Tick

DEADLINE_S = 5.0


def light(started: float, batch: int, score: float) -> Visit:
    return Visit("light", "w-light", started, started + 0.4, batch, score)


def heavy(started: float, batch: int) -> Visit:
    return Visit("heavy", "w-heavy", started, started + 2.0, batch)


def outcome(
    name: str, end: End, why: str, published: float, finished: float, *visits: Visit, prompt: str = ""
) -> Outcome:
    return Outcome(name, prompt or f"scene {name}", end, why, published, published + DEADLINE_S, finished, visits)


def plan(version: int, solve_ms: float, **assignment: str) -> Plan:
    return Plan(
        policy="quality",
        threshold=0.3,
        light_workers=2,
        heavy_workers=4,
        light_batch=2,
        heavy_batch=4,
        light_service_s=0.4,
        heavy_service_s=2.0,
        version=version,
        solve_ms=solve_ms,
        demand=1.25,
        lot=False,
        why="view changed",
        made=float(version),
        assignment=assignment,  # type: ignore[arg-type]
    )


OUTCOMES = (
    outcome("a", "light", "confident", 0.0, 0.5, light(0.1, 2, 0.9)),
    outcome("b", "heavy", "cascade", 1.0, 4.0, light(1.1, 2, 0.2), heavy(2.0, 4)),
    outcome("c", "heavy", "cascade", 2.0, 8.0, light(2.0, 1, 0.1), heavy(6.0, 1)),
    outcome("d", "light", "deadline", 6.0, 10.9, light(6.1, 2, 0.15)),
    outcome("e", "light", "no_time", 7.0, 7.5, light(7.1, 2, 0.25)),
    outcome("f", "dropped", "too_late", 7.0, 12.0),
    outcome("g", "failed", "out of memory: alloc_pool", 8.0, 9.0),
    outcome("h", "cancelled", "asked", 9.0, 9.1),
)
PLANS = (
    plan(1, 4.0, s0="light", s1="heavy"),
    plan(2, 0.0, s0="heavy", s1="heavy"),
    plan(3, 8.0, s0="heavy", s2="light"),
    plan(4, 6.0, s0="light", s2="light"),
    plan(5, 0.0, s0="light", s2="light"),
)
TICKS = (
    Tick(0.0, 0, threshold=0.3, demand=1.0),
    Tick(2.0, 8, light=1, waiting_heavy=2),
    Tick(4.0, 10, heavy_workers=4),
)


def cascade(deadline_s: float = DEADLINE_S) -> Cascade:
    """Heavy: one in 1 s, four in 2 s. Quality 20, 10, 15 at a heavy share of 0, 1/2, 1."""
    profiles = {name: Profile(name, "cpu", seconds, seconds) for name, seconds in SECONDS.items()}
    return Cascade(
        name="synthetic",
        models={"light": Model("small", "", 1, 0, 64, 1), "heavy": Model("large", "", 20, 0, 64, 1)},
        deadline_s=deadline_s,
        gpu="cpu",
        metric="fid",
        discriminator="",
        discriminator_s=0.0,
        profiles={"light": {"cpu": profiles["light"]}, "heavy": {"cpu": profiles["heavy"]}},
        curves={("discriminator", "fid"): Curve("discriminator", "fid", ((0.0, 20.0), (0.5, 10.0), (1.0, 15.0)))},
    )


SECONDS = {"light": {1: 0.3, 2: 0.4}, "heavy": {1: 1.0, 4: 2.0}}


def run(**changes: object) -> Recording:
    settings = {"policy": "quality", "redis_url": "redis://:secret@host:6379/0"}
    made = Recording("synthetic", DEADLINE_S, 10, 1, 9, 0.3, OUTCOMES, PLANS, TICKS, None, settings, 2)
    return replace(made, **changes)  # type: ignore[arg-type]


def with_pictures(folder: Path, *names: str) -> Path:
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    for number, name in enumerate(names):
        Image.new("RGB", (64, 64), (20 * number, 90, 160)).save(pictures / name)
    return pictures
