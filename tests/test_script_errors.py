"""An error inside any script, at any key it declares, or for want of memory: nothing is lost, nothing happens twice.

Every script is run once for each of its keys with a value of another type planted there just before, and once with
Redis at its memory limit. It may refuse or go through; once the cause is gone, every prompt still ends exactly once.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from shared import connection
from shared.broker import Broker
from shared.config import Settings
from shared.connection import Argument, CommandRefused, Connection
from shared.embedded import EmbeddedRedis
from shared.lookup import Lookup
from shared.observer import Observer
from shared.orders import pause
from shared.pictures import RedisPictures
from tests.conftest import assert_nothing_leaks
from tests.helpers import ALLOWANCE_S, a_plan, assert_conserved, by_hand, ends, hire, publish, put_plan

Act = Callable[[], object]
SCRIPTS = {path.stem for path in (Path(connection.__file__).parent / "lua").glob("*.lua")} - {"common"}


def publishing(broker: Broker) -> Act:
    return lambda: publish(broker, "q")


def claiming(broker: Broker) -> Act:
    publish(broker, "p", "q")
    light = hire(broker)
    return lambda: light.take(2)


def adopting(broker: Broker) -> Act:
    by_hand(broker, {"prompt": "a dog", "id": "p"})
    light = hire(broker)
    entry = light.one()
    return lambda: broker.adopt("light", entry, ALLOWANCE_S)


def ending(broker: Broker) -> Act:
    publish(broker, "p", "q")
    light = hire(broker)
    first, _ = light.take(2)
    return lambda: light.end(first, "failed", "broken")


def escalating(broker: Broker) -> Act:
    publish(broker)
    light = hire(broker)
    entry = light.one()
    return lambda: light.escalate(entry)


def upgrading(broker: Broker) -> Act:
    publish(broker)
    light, heavy = hire(broker), hire(broker, "heavy")
    light.escalate(light.one())
    entry = heavy.one()
    assert broker.overtake("p", "heavy", 1, entry.entry_id, "light", "deadline")
    return lambda: heavy.end(entry)


def handing_back(broker: Broker) -> Act:
    publish(broker)
    light = hire(broker)
    entry = light.one()
    return lambda: broker.hand_back("light", light.name, [entry])


def handing_all_back(broker: Broker) -> Act:
    publish(broker)
    light = hire(broker)
    light.one()
    return lambda: broker.hand_back_all("light", light.name)


def renewing(broker: Broker) -> Act:
    publish(broker)
    light = hire(broker)
    entry = light.one()
    return lambda: light.beat(entry)


def holding(broker: Broker) -> Act:
    return lambda: broker.hold(broker.keys.leader("keeper"), "me")


def releasing(broker: Broker) -> Act:
    broker.hold(broker.keys.leader("keeper"), "me")
    return lambda: broker.release(broker.keys.leader("keeper"), "me")


def moving(broker: Broker) -> Act:
    publish(broker, route="heavy")
    (prompt,) = Observer(broker).open_prompts(broker.now() + 2 * ALLOWANCE_S)
    return lambda: broker.move_to_light("p", prompt.priority, prompt.entry_id)


def overtaking(broker: Broker) -> Act:
    publish(broker)
    entry = hire(broker).one()
    return lambda: broker.overtake("p", "light", 1, entry.entry_id, "dropped", "deadline")


def planning(broker: Broker) -> Act:
    return lambda: put_plan(broker, a_plan())


def reclaiming(broker: Broker) -> Act:
    publish(broker, "p", "q")
    light = hire(broker)
    light.take(2)
    light.die()
    return broker.reclaim


def announcing(broker: Broker) -> Act:
    return lambda: hire(broker)


def lowering(broker: Broker) -> Act:
    return lambda: broker.lower_ceiling("a model", "a gpu", 4)


def keeping_pictures(broker: Broker) -> Act:
    return lambda: RedisPictures(broker).put({("p", "light"): b"a picture"})


def trimming_pictures(broker: Broker) -> Act:
    keeping_pictures(broker)()
    pictures = RedisPictures(Connection(broker.settings.model_copy(update={"picture_budget_mib": 0.0})))
    return lambda: pictures.expire(lambda _: set())


def ordering(broker: Broker) -> Act:
    return lambda: broker.order(pause(), "ada")


def looking(broker: Broker) -> Act:
    publish(broker)
    return lambda: Lookup(broker).look("p", place=True)


ACTS: dict[str, tuple[str, Callable[[Broker], Act]]] = {
    "publish": ("publish", publishing),
    "claim": ("claim", claiming),
    "adopt": ("adopt", adopting),
    "end": ("commit", ending),
    "escalate": ("commit", escalating),
    "upgrade": ("commit", upgrading),
    "hand back": ("hand_back", handing_back),
    "hand all back": ("hand_back", handing_all_back),
    "renew": ("renew", renewing),
    "hold": ("hold", holding),
    "release": ("release", releasing),
    "move": ("move", moving),
    "overtake": ("overtake", overtaking),
    "plan": ("plan", planning),
    "reclaim": ("reclaim", reclaiming),
    "announce": ("announce", announcing),
    "lower the ceiling": ("ceiling", lowering),
    "keep pictures": ("keep", keeping_pictures),
    "trim pictures": ("trim", trimming_pictures),
    "order": ("order", ordering),
    "look": ("queue", looking),
}


@contextmanager
def another_type(client: Any, key: str) -> Iterator[None]:
    """Plant it; afterwards what was there is there again."""
    aside, kind = key + ":aside", client.type(key)
    if kind != b"none":
        client.rename(key, aside)
    client.sadd(key, "no script of ours knows sets")
    try:
        yield
    finally:
        client.delete(key)
        if kind != b"none":
            client.rename(aside, key)


@contextmanager
def memory_limit(client: Any, _key: str) -> Iterator[None]:
    client.config_set("maxmemory", "1mb" if client.info("memory")["used_memory"] > 2**20 else "100kb")
    try:
        yield
    finally:
        client.config_set("maxmemory", "0")


class Spoiler:
    """Spoils a script's run at one of its keys, and counts the keys it declares."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
        self.script = script
        self.place: int | None = None
        self.how: Callable[[Any, str], AbstractContextManager[None]] = another_type
        self.met = 0
        self._execute = Connection._execute
        spoiler = self

        def execute(self: Connection, script: str, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
            return spoiler.run(self, script, keys, arguments)

        monkeypatch.setattr(Connection, "_execute", execute)

    def run(self, broker: Connection, script: str, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        place = self.place
        if script != self.script or place is None or place >= len(keys):
            return self._execute(broker, script, keys, arguments)
        self.met += 1
        with self.how(broker.client, keys[place]):
            return self._execute(broker, script, keys, arguments)


def serve_all(broker: Broker) -> None:
    """What others do once the cause is gone: the dead are found, and all that is open is drawn."""
    broker.client.delete(*list(broker.client.scan_iter(f"{broker.keys.root}:worker:*")) or ["none"])
    broker.reclaim()
    light, heavy = hire(broker), hire(broker, "heavy")
    for _ in range(8):
        for hand in (light, heavy):
            for entry in hand.take(4):
                known = entry if entry.job.deadline else broker.adopt(hand.stage, entry, ALLOWANCE_S)
                assert hand.end(known) == 1
    for hand in (light, heavy):
        broker.retire(hand.stage, hand.name)


def test_every_script_is_tried() -> None:
    assert {script for script, _ in ACTS.values()} == SCRIPTS


def tried(server: EmbeddedRedis, spoiler: Spoiler, prepare: Callable[[Broker], Act], place: int) -> bool:
    """One run spoilt at one place; whether the script declares a key there."""
    broker = Broker(Settings(redis_url=server.url, deployment=f"t{uuid.uuid4().hex[:6]}", node="test"))
    broker.check()
    act = prepare(broker)
    offered = set(ends(broker)) | {each.id for each in Observer(broker).open_prompts(broker.now() + 99)}
    spoiler.place, spoiler.met = place, 0
    with suppress(CommandRefused):
        act()
    spoiler.place = None
    offered |= {each.id for each in Observer(broker).open_prompts(broker.now() + 99)}
    serve_all(broker)
    assert offered <= set(ends(broker)), f"key {place} of {spoiler.script}"
    assert broker.client.zcard(broker.keys.due) == 0
    assert_conserved(broker)
    assert_nothing_leaks(broker)
    broker.client.flushdb()
    broker.close()
    return spoiler.met > 0


@pytest.mark.parametrize("name", ACTS)
def test_a_wrong_type_at_any_key_of_a_script_loses_nothing(
    server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    script, prepare = ACTS[name]
    spoiler = Spoiler(monkeypatch, script)
    places = 0
    while tried(server, spoiler, prepare, places):
        places += 1
    assert places > 0, "the script was run, and each key it declares was spoilt once"


@pytest.mark.parametrize("name", ACTS)
def test_a_script_that_meets_the_memory_limit_loses_nothing(
    server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    script, prepare = ACTS[name]
    spoiler = Spoiler(monkeypatch, script)
    spoiler.how = memory_limit
    assert tried(server, spoiler, prepare, 0)
