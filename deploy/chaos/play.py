"""Plays one fault: a fresh pipeline, a trace that goes on, the fault, and the accounts afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from deploy.chaos.arena import Arena
from deploy.chaos.judging import judged
from deploy.chaos.offering import PROMPTS, Offer, Offering
from deploy.chaos.programs import Programs
from deploy.chaos.proxy import Proxy
from deploy.chaos.report import Played
from deploy.chaos.table import Fault
from deploy.chaos.witness import Witness
from deploy.runner import Deployment, Run, deployment, supervised
from models.scenes import caption, held_out_scenes
from shared.broker import Broker
from shared.catalog import load_cascade
from shared.config import Settings

AROUND_S: Final = 5.0  # of the trace before the fault, and after it
SETTLE_S: Final = 10.0  # after the last deadline nothing is open
SIZE_S: Final = 5.0

PINNED: Final = """\
light_workers = {light}
heavy_workers = {heavy}
light_batch = 8
heavy_batch = 4
threshold = 0.1
"""


def play(name: str, fault: Fault, scale: float, slots: int, folder: Path, say: Callable[[str], None]) -> Played:
    """Run it once; whatever the fault does to the pipeline, nothing is left running."""
    slots = fault.slots or slots
    with ExitStack() as stack:
        arena = stack.enter_context(_arena(fault, scale, slots, folder, say))
        deadline_s = arena.running.settings.deadline_s or load_cascade(arena.running.settings.cascade).deadline_s
        around_s = AROUND_S * min(1.0, scale)
        arena.offering.start()
        arena.witness.start()
        time.sleep(around_s)
        began = time.monotonic()
        say(f"{name}: {fault.what}")
        try:
            fault.inject(arena, fault.seconds * scale)
        except TimeoutError as wrong:
            arena.expect(False, str(wrong))
        seconds = time.monotonic() - began
        time.sleep(around_s)
        arena.offering.stop()
        _settle(arena, deadline_s)
        arena.witness.stop()
        return judged(name, fault, arena, seconds)


@contextmanager
def _arena(fault: Fault, scale: float, slots: int, folder: Path, say: Callable[[str], None]) -> Iterator[Arena]:
    given = {"cascade": "sdturbo", "backend": "sleeping", **fault.settings}
    folder.mkdir(parents=True, exist_ok=True)
    if fault.far:  # every slot draws, so that the far ones do
        pinned = folder / "pinned.toml"
        pinned.write_text(PINNED.format(light=slots // 2, heavy=slots - slots // 2))
        given |= {"policy": "pinned", "pinned": pinned.resolve()}
    settings = Settings(node="near", deployment="chaos", slots=slots - fault.far, **given)
    run = Run(folder, settings, Path("none"), durability="everysec", nice=5)
    with ExitStack() as stack:
        running = stack.enter_context(deployment(run))
        proxy = far = None
        if fault.far:
            proxy = stack.enter_context(Proxy(running.server.folder / "redis.sock"))
            far = stack.enter_context(_far_node(running, proxy, fault.far))
        running.wait_ready(say, slots)
        if fault.memory_mib:
            running.broker.client.config_set("maxmemory", f"{fault.memory_mib}mb")
        offering = Offering(Broker(running.settings), _offer(fault, running.settings, slots))
        witness = Witness(Broker(running.settings), SIZE_S * min(1.0, 4 * scale))
        programs = Programs(running.settings.supervisor_socket)
        arena = Arena(running, programs, offering, witness, scale)
        arena.proxy, arena.far = proxy, far
        arena.far_places = [f"far-{number}-" for number in range(fault.far)]
        yield arena


@contextmanager
def _far_node(running: Deployment, proxy: Proxy, slots: int) -> Iterator[Programs]:
    near = running.settings
    assert near.log_dir is not None
    changes = {
        "node": "far",
        "slots": slots,
        "redis_url": proxy.url,
        "supervisor_socket": running.server.folder / "far.sock",
        "log_dir": near.log_dir / "far",
    }
    settings = near.model_copy(update=changes)
    with supervised(settings, head=False, nice=5):
        yield Programs(settings.supervisor_socket)


def _offer(fault: Fault, settings: Settings, slots: int) -> Offer:
    cascade = load_cascade(settings.cascade)
    prompts: Sequence[str] = PROMPTS
    if settings.cascade == "tiny":
        prompts = tuple(caption(scene) for scene in held_out_scenes(100, seed=0))
    if fault.characters:
        prompts = tuple((text + " ").ljust(fault.characters, "x") for text in prompts)
    allowance_s = settings.deadline_s or cascade.deadline_s
    return Offer(fault.per_slot_s * slots, allowance_s, fault.direct, prompts, fault.spoils, fault.spoilt)


def _settle(arena: Arena, deadline_s: float) -> None:
    end = time.monotonic() + deadline_s + SETTLE_S
    while arena.patient(arena.running.observer.next_due) is not None and time.monotonic() < end:
        time.sleep(0.1)
