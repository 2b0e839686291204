"""Faults to processes: killed, paused, cut off, kept down, moved from stage to stage.

Each function injects one fault for about so many seconds while a trace runs, and notes what it saw in the arena.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from deploy.chaos.arena import Arena
from deploy.chaos.server_faults import kill_redis
from deploy.runner import environment_of
from deploy.supervision import ROOT
from shared.plans import Plan, View
from shared.process import die_with_parent
from shared.schema import Stage

FREED_S: Final = 0.5  # after the end of its lease nobody holds what a lost worker held


def kill_workers(arena: Arena, seconds: float, every_s: float = 2.0) -> None:
    """SIGKILL a random worker that the plan lets draw, again and again; what it held must come back."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        drawers = arena.drawers()
        if drawers:
            victim = arena.draw.choice(drawers)
            arena.orphans_return([victim.consumer], arena.kill(victim))
        time.sleep(max(0.0, every_s - (time.monotonic() - began)))


def kill_workers_seldom(arena: Arena, seconds: float, every_s: float = 20.0) -> None:
    """The same every 20 s, where a worker takes seconds to load its model; a drawing one is chosen."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        victim = arena.drawing()
        arena.orphans_return([victim.consumer], arena.kill(victim))
        time.sleep(max(0.0, every_s - (time.monotonic() - began)))


def pause_worker(arena: Arena, seconds: float) -> None:
    """SIGSTOP a drawing worker for three leases, then SIGCONT: its prompts are drawn elsewhere, its result refused."""
    end = time.monotonic() + seconds
    lease_s = arena.running.settings.lease_s
    while time.monotonic() < end:
        victim = arena.drawing()
        paused = time.monotonic()
        os.kill(victim.pid, signal.SIGSTOP)
        try:
            held = [each for each in arena.drawers() if each.consumer == victim.consumer and each.holds]
            if not held:  # it had just settled its batch
                continue
            arena.faults += 1
            arena.orphans_return([victim.consumer], paused)
            arena.fence(held)
            time.sleep(max(0.0, paused + 3 * lease_s - time.monotonic()))
        finally:
            with suppress(ProcessLookupError):
                os.kill(victim.pid, signal.SIGCONT)
        time.sleep(lease_s)


def cut_off_node(arena: Arena, seconds: float) -> None:
    """Pause every process of the far node while its workers draw; the others draw its prompts in time."""
    assert arena.far is not None
    arena.drawing(node="far")
    arena.faults += 1
    freed_s = arena.running.settings.lease_s + FREED_S
    names = list(arena.far.pids())
    cut = time.monotonic()
    arena.far.send(names, signal.SIGSTOP)
    try:
        held = [each for each in arena.drawers() if each.node == "far"]
        arena.orphans_return([each.consumer for each in held], cut, freed_s)
        arena.fence(held)
        time.sleep(max(0.0, cut + seconds - time.monotonic()))
    finally:
        arena.far.send(names, signal.SIGCONT)
    arena.flow_returns(time.monotonic(), arena.far_places)


def stage_dead(stage: Stage, arena: Arena, seconds: float) -> None:
    """Every worker of a stage dies, and none comes up: the agent that would start them is down too."""
    names = arena.programs.workers(stage)
    arena.faults += 1
    arena.programs.send(names, signal.SIGKILL)
    arena.programs.keep_down(["agent", *names])
    time.sleep(seconds)
    arena.programs.start(["agent", *names])
    time.sleep(5.0)


def heavy_dead(arena: Arena, seconds: float) -> None:
    """All heavy workers dead."""
    stage_dead("heavy", arena, seconds)


def light_dead(arena: Arena, seconds: float) -> None:
    """All light workers dead."""
    stage_dead("light", arena, seconds)


def service_dead(name: str, arena: Arena, seconds: float) -> None:
    """A service is killed and stays away for a while; pictures are drawn meanwhile and workers keep their roles."""
    arena.faults += 1
    arena.programs.keep_down([name])
    gone = time.monotonic()
    before = _roles(arena, name)
    try:
        time.sleep(seconds / 2)
        arena.flow_returns(time.monotonic())
        time.sleep(max(0.0, gone + seconds - time.monotonic()))
        arena.expect(_roles(arena, name) == before, f"workers did not keep their roles while {name} was away")
    finally:
        arena.programs.start([name])
    time.sleep(3.0)


def control_dead(arena: Arena, seconds: float) -> None:
    """No planner: the last plan stays in force."""
    service_dead("control", arena, seconds)


def agent_dead(arena: Arena, seconds: float) -> None:
    """No agent: what runs goes on running."""
    service_dead("agent", arena, seconds)


def keeper_dead(arena: Arena, seconds: float) -> None:
    """Nobody keeps the deadlines: what is drawn is answered all the same."""
    arena.faults += 1
    arena.programs.keep_down(["keeper"])
    time.sleep(seconds)
    arena.programs.start(["keeper"])
    arena.flow_returns(time.monotonic())


def control_wakes(arena: Arena, seconds: float) -> None:
    """The leading planner is paused, another takes over, the first wakes up: the newer plan stands."""
    arena.faults += 1
    leader = arena.broker.keys.leader("control")
    first = _value(arena, leader)
    second = _another(arena, "control")
    try:
        arena.programs.send(["control"], signal.SIGSTOP)
        paused = time.monotonic()
        while _value(arena, leader) in (first, None) and time.monotonic() < paused + 10:
            time.sleep(0.02)
        arena.recoveries_s.append(time.monotonic() - paused)
        taken = _value(arena, leader)
        arena.expect(taken not in (first, None), "no other planner took the lead")
        time.sleep(seconds)
        arena.programs.send(["control"], signal.SIGCONT)
        time.sleep(2.0)
        arena.expect(_value(arena, leader) == taken, "the planner that woke up took the lead back")
    finally:
        arena.programs.send(["control"], signal.SIGCONT)
        second.terminate()
        second.wait()


def switch_roles(arena: Arena, seconds: float, every_s: float = 5.0) -> None:
    """Every slot changes its stage, again and again, by plans of our own while the planner is down."""
    arena.programs.keep_down(["control"])
    token, leader = uuid.uuid4().hex, arena.broker.keys.leader("control")
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            plan = arena.broker.plan()
            if plan is not None and arena.broker.hold(leader, token):
                arena.faults += arena.broker.put_plan(_turned(plan), View(0.0, (), ()), token)
            time.sleep(every_s)
    finally:
        arena.broker.release(leader, token)
        arena.programs.start(["control"])


def several(arena: Arena, seconds: float, every_s: float = 60.0) -> None:
    """A fault a minute, of those that any run must bear."""
    end = time.monotonic() + seconds
    every_s *= min(1.0, arena.scale * 10)
    while time.monotonic() < end:
        began = time.monotonic()
        chosen = arena.draw.choice(["worker", "worker", "pause", "redis", "control", "keeper", "agent"])
        if chosen == "worker":
            kill_workers(arena, 0.1)
        elif chosen == "pause":
            pause_worker(arena, 0.1)
        elif chosen == "redis":
            kill_redis(arena, 0.1, times=1)
        else:
            arena.faults += 1
            arena.programs.send([chosen], signal.SIGKILL)
        time.sleep(max(0.0, min(end, began + every_s) - time.monotonic()))


def spoilt_prompts(arena: Arena, seconds: float) -> None:
    """The offering itself brings the fault: prompts that the model cannot draw. No worker dies of one that raises."""
    before = arena.programs.pids()
    time.sleep(seconds)
    arena.faults += len(arena.offering.spoilt)
    arena.expect(arena.programs.pids() == before, "a worker died of a prompt")


def hanging_prompts(arena: Arena, seconds: float) -> None:
    """The same with prompts that the model never ends drawing: the worker's process ends, and another begins."""
    time.sleep(seconds)
    arena.faults += len(arena.offering.spoilt)


def _turned(plan: Plan) -> Plan:
    """Every slot at the other stage."""
    other: dict[Stage, Stage] = {"light": "heavy", "heavy": "light"}
    assignment = {slot: other[stage] for slot, stage in plan.assignment.items()}
    light = sum(stage == "light" for stage in assignment.values())
    heavy = len(assignment) - light
    return replace(plan, version=plan.version + 1, assignment=assignment, light_workers=light, heavy_workers=heavy)


def _roles(arena: Arena, away: str) -> tuple[set[int], int]:
    """The processes of all workers, and the plan they obey, which only the planner may change."""
    plan = arena.broker.plan()
    workers = {pid for name, pid in arena.programs.pids().items() if name.startswith("worker-")}
    return workers, plan.version if plan and away == "control" else 0


def _value(arena: Arena, key: str) -> str | None:
    raw: bytes | None = arena.broker.client.get(key)  # type: ignore[assignment]
    return raw.decode() if raw else None


def _another(arena: Arena, service: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **environment_of(arena.running.settings)}
    command: Iterable[str] = [sys.executable, "-m", f"services.{service}"]
    return subprocess.Popen(
        list(command), cwd=ROOT, env=environment, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent
    )
