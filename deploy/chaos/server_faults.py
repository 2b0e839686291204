"""Faults to Redis and to the way there: killed, cut off, full, spoilt, flooded."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from deploy.chaos.arena import Arena
from shared.schema import STAGES


def kill_redis(arena: Arena, seconds: float, times: int = 3) -> None:
    """SIGKILL Redis and start it again on its files."""
    server = arena.running.server
    for _ in range(times):
        time.sleep(seconds / times)
        arena.faults += 1
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        server.stop()  # it is dead: this only buries it
        time.sleep(0.5)
        server.start()
        arena.flow_returns(time.monotonic())


def cut_network(arena: Arena, seconds: float) -> None:
    """The far workers' connections are closed, and every new one at once."""
    assert arena.proxy is not None
    _without_network(arena, seconds, arena.proxy.cut)


def half_open_network(arena: Arena, seconds: float) -> None:
    """The far workers' connections look alive and carry nothing."""
    assert arena.proxy is not None
    _without_network(arena, seconds, arena.proxy.half_open)


def slow_network(arena: Arena, seconds: float) -> None:
    """Every piece of the far workers' connections comes 300 ms later."""
    assert arena.proxy is not None
    _without_network(arena, seconds, lambda: arena.proxy.delay(0.3) if arena.proxy else None)


def _without_network(arena: Arena, seconds: float, break_it: Callable[[], None]) -> None:
    assert arena.proxy is not None
    arena.drawing(node="far")
    arena.faults += 1
    break_it()
    try:
        time.sleep(seconds)
    finally:
        arena.proxy.heal()
    arena.flow_returns(time.monotonic(), arena.far_places)


def plant_wrong_types(arena: Arena, seconds: float) -> None:
    """A value of another type sits at each key in turn, for a while; what was there comes back."""
    keys = arena.broker.keys
    spoilt = [key for stage in STAGES for key in (*keys.streams[stage], keys.wake[stage])]
    spoilt += [keys.due, keys.done, keys.dead, keys.events, keys.totals, keys.plan, keys.plans]
    for key in spoilt:
        arena.faults += 1
        with planted(arena, key):
            time.sleep(seconds / len(spoilt) / 2)
        time.sleep(seconds / len(spoilt) / 2)
    arena.flow_returns(time.monotonic())


@contextmanager
def planted(arena: Arena, key: str) -> Iterator[None]:
    """Another type at a key, and afterwards what was there."""
    client: Any = arena.broker.client
    aside = f"{key}:aside"
    had = bool(client.exists(key))
    with client.pipeline(transaction=True) as pipe:
        if had:
            pipe.rename(key, aside)
        pipe.set(key, "of another type")
        pipe.execute()
    try:
        yield
    finally:
        with client.pipeline(transaction=True) as pipe:
            pipe.delete(key)
            if had:
                pipe.rename(aside, key)
            pipe.execute()


def memory_limit(arena: Arena, seconds: float) -> None:
    """Redis is at its memory limit: the door refuses, what was accepted is served."""
    client: Any = arena.broker.client
    arena.faults += 1
    client.config_set("maxmemory", "1mb")
    try:
        time.sleep(seconds)
    finally:
        client.config_set("maxmemory", "0")
    arena.flow_returns(time.monotonic())


def flood(arena: Arena, seconds: float) -> None:
    """The offering itself is the fault: ten times what the slots can draw."""
    arena.faults += 1
    time.sleep(seconds)
