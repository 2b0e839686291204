"""`make bench`: what the queue costs, measured on this machine in one run; medians, and ratios to compare.

hop      claim a batch from a stream and settle it into the next, server and client together
queue    publish -> light -> done, 40 % through heavy, models that do nothing, beside a bare redis-py loop
polling  what idle workers cost the one Redis that they poll, and what each prompt costs it
idle     processor time of all services with 16 sleeping workers and nothing to do
picture  publish to done on an empty queue beside the model's own time, light tiny cascade
planner  view to plan with each solver, and how a solve grows; draws planner_growth.svg beside the table
gateway  acknowledged prompts/s over HTTP, alone and with open pages, 1,000 streams, what it and both hops add
browser  from the click to the light picture on the dashboard, tiny cascade; needs Chromium
simulator  seconds for every policy on one trace, and memory for a million prompts
overlap  a worker that draws on while pictures are encoded beside one that waits; the device only takes time
speed    diffusers' own pipeline beside ours, each speed switch alone and together; writes speed.csv beside the table
"""

from __future__ import annotations

import argparse
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, starmap
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import psutil
from rich.console import Console
from rich.table import Table

from deploy.bench_browser import first_pictures, program
from deploy.bench_gateway import acknowledgements, detour, streams
from deploy.bench_idle import idle
from deploy.bench_looks import looks
from deploy.bench_pages import with_pages
from deploy.bench_planner import AIMS, SOLVERS, draw_growth, growth, view_to_plan
from deploy.bench_polling import polling
from deploy.bench_prompts import costs
from deploy.bench_queue import bare_rate, cascade_rate, faststream_rate
from deploy.bench_simulator import million, policies_s
from deploy.runner import Run, deployment
from deploy.speed_cases import add_options
from deploy.tables import write_csv
from shared.broker import Broker
from shared.config import Settings
from shared.embedded import EmbeddedRedis, server_binaries, version_of
from shared.exchange import Hop, Publication
from shared.ledger import percentile
from shared.messages import Job, Visit
from shared.process import guarded

# 120 characters, as prompts people write.
PROMPT: Final = (
    "a photograph of an astronaut riding a horse on the moon at dawn, "
    "highly detailed, dramatic light, 35 mm, film grain!!!!!"
)
STREAM_ROUNDS: Final = 6
TRIES: Final = 15
REPEATS: Final = 5
COLUMNS: Final = ("figure", "value", "unit", "aim", "machine", "command")
KINDS: Final = [line.split()[0] for line in (__doc__ or "").splitlines()[2:]]


class Figure(NamedTuple):
    """One measured figure; `aim` as the issue states it, empty where it is there for comparison."""

    what: str
    value: float
    unit: str
    aim: str = ""


@contextmanager
def server(durability: str = "no") -> Iterator[Settings]:
    """A Redis of our own for one measurement."""
    with (
        tempfile.TemporaryDirectory(prefix="cascade-") as folder,
        EmbeddedRedis(Path(folder), durability=durability) as redis,
    ):
        yield Settings(redis_url=redis.url, deployment="bench")


def hop(batch: int, rounds: int = 100) -> float:
    """Microseconds per prompt to claim a batch from light and escalate it to heavy, median of the rounds."""
    with server() as settings:
        broker = Broker(settings)
        broker.check()
        consumer, slot = "bench", broker.keys.slot("bench", 0)
        broker.announce("light", consumer, {"node": "bench"})
        taken: list[float] = []
        for number in range(rounds):
            jobs = [Job(f"{number}-{i}", PROMPT, 0.0, 0.0) for i in range(batch)]
            broker.publish([Publication(job, 60.0) for job in jobs])
            broker.hold(slot, consumer)
            began = time.perf_counter()
            claim = broker.claim(
                "light", consumer, slot, batch=batch, hold_s=0.0, allowance_s=60.0, service_s=[0.0] * batch
            )
            visit = Visit("light", consumer, claim.now, claim.now, batch, 0.1)
            hops = [Hop(replace(each, job=each.job.visited(visit)), None, "escalate") for each in claim.entries]
            done = broker.commit("light", consumer, hops)
            taken.append((time.perf_counter() - began) / batch * 1e6)
            assert sum(done) == batch, "the hop did not go through"
        return median(taken)


def picture(prompts: int = 40) -> tuple[float, float]:
    """Milliseconds from publish to done on an empty queue, and of these the model's own: medians, light tiny."""
    with tempfile.TemporaryDirectory(prefix="cascade-run-") as folder:
        settings = Settings(cascade="tiny", slots=1, node="bench", deployment="bench", policy="quality")
        run = Run(Path(folder), settings, Path(folder), durability="everysec")
        with deployment(run) as running:
            _wait_for_light(running.broker, running.supervisord.check)
            for number in range(prompts):
                job = Job(f"latency-{number}", "big red circle on white", 0.0, 0.0, seed=number, route="light")
                running.broker.publish([Publication(job, 5.0)])
                end = time.monotonic() + 10
                while len(running.observer.outcomes()[0]) <= number and time.monotonic() < end:
                    time.sleep(0.005)
                time.sleep(0.05)
            outcomes = [outcome for outcome in running.observer.outcomes()[0] if outcome.end == "light"]
    whole = [outcome.latency_s for outcome in outcomes]
    own = [outcome.visits[0].finished - outcome.visits[0].started for outcome in outcomes]
    return median(whole) * 1e3, median(own) * 1e3


def _wait_for_light(broker: Broker, check: Callable[[], None]) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        check()
        plan = broker.plan()
        if plan is not None and "light" in plan.assignment.values():
            return
        time.sleep(0.1)


def figures(given: argparse.Namespace, chosen: list[str], command: str) -> Iterator[Figure]:
    """Measure what was chosen, one figure after the other; drawings go beside the table."""
    if "hop" in chosen:
        for batch, aim in ((1, ""), (8, "<= 200"), (32, "<= 100")):
            yield Figure(f"hop, batch {batch}", median(hop(batch) for _ in range(3)), "us a prompt", aim)
    if "queue" in chosen:
        yield from _queue(given.prompts)
    if "polling" in chosen:
        yield from starmap(Figure, chain(polling(), looks(), costs(PROMPT)))
    if "idle" in chosen:
        yield Figure("idle, 16 sleeping workers on 8 slots", idle(8), "% of a core", "<= 3")
        yield Figure("idle, 32 sleeping workers on 16 slots", idle(16), "% of a core")
    if "picture" in chosen:
        whole, own = picture()
        yield Figure("picture, publish to done", whole, "ms")
        yield Figure("picture, the model's own time", own, "ms")
        yield Figure("picture, added by the pipeline", whole - own, "ms", "<= 10")
    if "planner" in chosen:
        yield from _planner(given.out.parent)
    plain = {"gateway": _gateway, "browser": _browser, "simulator": _simulator}
    for name, measure in plain.items():
        if name in chosen:
            yield from measure()
    yield from _speed(given, chosen, command)


def _speed(given: argparse.Namespace, chosen: list[str], command: str) -> Iterator[Figure]:
    # Imported here: both import torch, which the other kinds shall not need.
    if "overlap" in chosen:
        from deploy.bench_overlap import overlap

        gained, left = overlap()
        yield Figure("a worker that draws while it encodes, batches of 8 of 512 x 512", gained, "times one that waits")
        yield Figure("a worker that draws while it encodes, beside the device alone", left, "times its seconds")
    if "speed" in chosen:
        from deploy.bench_speed import speeds

        for row in speeds(given, given.out.parent / "speed.csv", command):
            yield Figure(row.what, row.ratio, "times plain")


def _planner(folder: Path) -> Iterator[Figure]:
    for solver in SOLVERS:
        middle, late = view_to_plan(solver)
        yield Figure(f"view to plan, 16 GPUs, {solver}, p50", middle, "ms of processor", "<= 10")
        yield Figure(f"view to plan, 16 GPUs, {solver}, p99", late, "ms of processor", "<= 30")
    grown = []
    for each in growth():
        grown.append(each)
        aim = AIMS.get((each.line, each.size), "")
        yield Figure(f"solve, {each.size:,} {each.line}, median over loads", each.middle_ms, "ms of processor", aim)
        yield Figure(f"solve, {each.size:,} {each.line}, worst load", each.worst_ms, "ms of processor", aim)
    draw_growth(grown, folder / "planner_growth.svg")


def _gateway() -> Iterator[Figure]:
    fastest, middle, late = acknowledgements(300.0, 10.0, PROMPT)
    yield Figure("gateway on one core, accepted prompts", fastest, "prompts/s", ">= 300")
    yield Figure("gateway, acknowledgement at 300/s, p50", middle, "ms")
    yield Figure("gateway, acknowledgement at 300/s, p99", late, "ms", "<= 30")
    for seen in with_pages([0, 10], 100.0, 10.0, PROMPT):
        yield Figure(f"gateway, acknowledgement at 100/s with {seen.pages} open pages, p99", seen.p99_ms, "ms")
        yield Figure(f"gateway, the same with {seen.pages} open pages", seen.core * 100, "% of a core")
    rounds = streams(1_000, STREAM_ROUNDS, PROMPT)
    yield Figure("gateway, memory before streams", rounds[0].before_mib, "MiB")
    for number in (0, 1, STREAM_ROUNDS - 1):
        yield Figure(f"gateway, memory with 1,000 open streams, round {number + 1}", rounds[number].open_mib, "MiB")
    yield Figure("gateway, memory after their end", rounds[-1].after_mib, "MiB")
    yield Figure("gateway, 1,000 prompts ended and told", median(each.told_s for each in rounds), "s")
    for durability in ("everysec", "always"):
        added = detour(durability, 100, PROMPT)
        yield Figure(f"gateway and both hops, picture returned, {durability}", added, "ms", "<= 15")


def _browser() -> Iterator[Figure]:
    chromium = program()
    if chromium is None:
        sys.stderr.write("browser: neither Chromium nor Playwright here (make system)\n")
        return
    taken_ms = sorted(first_pictures(chromium, TRIES))
    yield Figure("browser, click to light picture, tiny, median", median(taken_ms), "ms", "<= 500")
    yield Figure("browser, click to light picture, tiny, p90", percentile(taken_ms, 90), "ms")


def _simulator() -> Iterator[Figure]:
    taken_s, prompts = policies_s()
    yield Figure(f"simulator, {prompts:,} prompts, all policies", taken_s, "s of processor", "<= 15")
    taken_s, mebibytes = million()
    yield Figure("simulator, 1,000,000 prompts, one policy", taken_s, "s of processor")
    yield Figure("simulator, peak memory of the same", mebibytes, "MiB", "<= 1,024")


def _queue(prompts: int) -> Iterator[Figure]:
    for durability in ("no", "everysec", "always"):
        # In turn, so that a machine that changes its speed changes both.
        ours: list[float] = []
        bare: list[float] = []
        for _ in range(REPEATS):
            with server(durability) as settings:
                ours.append(cascade_rate(settings, prompts, PROMPT))
            with server(durability) as settings:
                bare.append(bare_rate(settings, prompts, PROMPT))
        kept = {"no": "no persistence"}.get(durability, f"appendfsync {durability}")
        aim = ">= 5,000" if durability == "no" else ""
        yield Figure(f"queue, {kept}", median(ours), "prompts/s", aim)
        yield Figure(f"bare redis-py loop, {kept}", median(bare), "prompts/s")
        yield Figure(f"queue over bare loop, {kept}", median(a / b for a, b in zip(ours, bare, strict=True)), "ratio")
    with server() as settings:
        rate = faststream_rate(settings, prompts, PROMPT)
    if rate is not None:
        yield Figure("FastStream in batches, no persistence", rate, "prompts/s")


def main() -> int:
    """Print a table and write it as CSV; of a file that is there, the rows of what was not measured stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chosen", nargs="*", metavar="|".join(KINDS), help="default: all")
    parser.add_argument("--prompts", type=int, default=20_000, help="prompts per run of the queue")
    parser.add_argument("--out", type=Path, default=Path("logs/bench.csv"))
    add_options(parser)
    given = parser.parse_args()
    chosen = given.chosen or KINDS
    version = ".".join(str(part) for part in version_of(server_binaries()[0]))
    machine = f"{psutil.cpu_count()} cores, Python {platform.python_version()}, Redis {version}"
    table = Table("figure", "value", "unit", "aim", title=f"make bench ({machine})", title_justify="left")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    command = f"make bench BENCH={shlex.join(sys.argv[1:])!r}" if sys.argv[1:] else "make bench"
    for figure in figures(given, chosen, command):
        sys.stderr.write(f"{figure.what}: {figure.value:,.2f} {figure.unit}\n")
        table.add_row(figure.what, f"{figure.value:,.2f}", figure.unit, figure.aim)
        row = [figure.what, round(figure.value, 3), figure.unit, figure.aim, machine, command]
        write_csv(COLUMNS, [row], given.out)  # at once: what comes later may not go well
    Console().print(table)
    return 0


if __name__ == "__main__":
    guarded(main)
