"""What a prompt costs Redis itself: processor seconds of its process, and the bytes that stay behind.

One client takes prompts all the way, batch by batch: publish, claim, hop with the light picture, claim and settle with
the heavy one for those that go there, and fetch the answer. Its own time does not count.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import psutil

from deploy.bench_polling import Told, spent_s
from shared.broker import Broker
from shared.config import Settings
from shared.embedded import EmbeddedRedis
from shared.exchange import Hop, Publication
from shared.messages import Entry, Job, Visit
from shared.observer import Observer
from shared.schema import STAGES, Stage

HEAVY: Final = 0.4
KIB: Final = 1024
# (batch, KiB of a picture): pictures apart, so that what a prompt and what a byte cost can be told from each other.
COSTS: Final = ((1, 0), (8, 0), (8, 48), (8, 192))
PROMPTS: Final = 4_000
PICTURES_KEPT_MIB: Final = 64.0  # old pictures leave: the server's memory must not grow with the measurement


class Cost(NamedTuple):
    """Microseconds of Redis, and bytes left without pictures, a prompt."""

    core_us: float
    left_bytes: float


def costs(text: str) -> Iterator[Told]:
    """Every figure; `text` is what a prompt says."""
    for batch, kib in COSTS:
        found = cost(batch, kib * KIB, text)
        what = f"a prompt, batches of {batch}, pictures of {kib} KiB"
        yield f"{what}, Redis", found.core_us, "us", ""
        if not kib:
            yield f"{what}, bytes left", found.left_bytes, "bytes", ""


def cost(batch: int, picture_bytes: int, text: str, prompts: int = PROMPTS) -> Cost:
    """Take so many prompts all the way, the share HEAVY over both stages."""
    with (
        tempfile.TemporaryDirectory(prefix="cascade-") as folder,
        EmbeddedRedis(Path(folder), durability="everysec") as redis,
    ):
        settings = Settings(redis_url=redis.url, deployment="bench", lease_s=60.0, picture_budget_mib=PICTURES_KEPT_MIB)
        broker = Broker(settings)
        broker.check()
        for stage in STAGES:
            broker.announce(stage, stage, {"node": "bench"})
            broker.hold(broker.keys.slot("bench", STAGES.index(stage)), stage)
        picture = Random(0).randbytes(picture_bytes)  # as incompressible as an encoded one
        process = psutil.Process(redis.pid)
        used, before_s = _used(broker), spent_s(process)
        for first in range(0, prompts, batch):
            _all_the_way(broker, [f"p{number}" for number in range(first, first + batch)], picture, text)
            if first % (100 * batch) == 0:
                broker.expire_pictures()
        ended = int(broker.client.xlen(broker.keys.done))
        return Cost((spent_s(process) - before_s) / ended * 1e6, (_used(broker) - used) / ended)


def _all_the_way(broker: Broker, ids: Sequence[str], picture: bytes, text: str) -> None:
    broker.publish([Publication(Job(each, text, 0.0, 0.0), 600.0) for each in ids])
    first, last = int(ids[0][1:]), int(ids[-1][1:])
    on = round(HEAVY * (last + 1)) - round(HEAVY * first)  # of these; over the run the share is kept
    for stage in STAGES:
        entries = _claimed(broker, stage, len(ids))
        if entries:
            hops = [_hop(stage, each, picture, goes_on=stage == "light" and n < on) for n, each in enumerate(entries)]
            broker.commit(stage, stage, hops)
    Observer(broker).images([(each, "light") for each in ids])


def _claimed(broker: Broker, stage: Stage, batch: int) -> Sequence[Entry]:
    slot_key = broker.keys.slot("bench", STAGES.index(stage))
    given: dict[str, Any] = {"batch": batch, "hold_s": 0.0, "allowance_s": 600.0, "service_s": [0.0] * batch}
    return broker.claim(stage, stage, slot_key, **given).entries


def _hop(stage: Stage, entry: Entry, picture: bytes, *, goes_on: bool) -> Hop:
    done = replace(entry, job=entry.job.visited(Visit(stage, stage, 1.0, 2.0, 8, 0.1)))
    return Hop(done, None if goes_on else stage, "escalate" if goes_on else "confident", picture, 0.5)


def _used(broker: Broker) -> int:
    return int(broker.client.info("memory")["used_memory"])
