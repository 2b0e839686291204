"""Looks whether this machine and its Redis are fit for the pipeline, and says what to mend.

    python -m services.doctor [--role worker]

Prints a table of what is ok, worth a note, or wrong; ends with exit code 1 where something is wrong.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table
from rich.text import Text

from models.holdings import holdings, others_missing
from planner.engines import ROOT, find_licence
from shared.catalog import load_cascade
from shared.checkup import WRITES, ServerFacts, answers_anybody, lacking, look_at
from shared.config import Settings, load, parser
from shared.connection import OLDEST, CommandRefused, Connection, Unreachable
from shared.errors import ServerUnfit, SettingsError
from shared.process import guarded

Level = Literal["ok", "note", "wrong"]
STYLES: Final[Mapping[Level, str]] = {"ok": "green", "note": "yellow", "wrong": "bold red"}
FAR_OFF_S: Final = 1.0  # of clocks: times in logs and on dashboards no longer fit together
SOON_DAYS: Final = 14
MIB: Final = 2**20


class Finding(NamedTuple):
    """One line of the table."""

    subject: str
    level: Level
    words: str


# -- rules -------------------------------------------------------------------------------------------------------


def exposure(hosts: Sequence[str], answers: bool | None) -> Finding:
    """Whether a server that answers strangers can be reached by them.

    `hosts`: the addresses it has, none for a unix socket; `answers`: without a password, None where that is not known.
    """
    public = [host for host in hosts if not is_loopback(host)]
    if answers is None:
        return Finding("password", "note", "whether one is asked for could not be found out")
    if not answers:
        return Finding("password", "ok", "asked for")
    if public:
        return Finding("password", "wrong", f"ANYBODY who reaches {', '.join(public)} is answered, without a password")
    return Finding("password", "note", "none is asked for, on this machine only")


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only; a name counts as what it resolves to."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        pass
    try:
        return all(ipaddress.ip_address(found[4][0]).is_loopback for found in socket.getaddrinfo(host, None))
    except (OSError, ValueError):
        return False


def hosts_of(url: str) -> list[str]:
    """The hosts that an address names; none for a unix socket."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return []
    hosts = parts.netloc.rpartition("@")[2].split(",")
    return [urlsplit(f"//{host}").hostname or "127.0.0.1" for host in hosts]


def bound_to(settings: Mapping[str, str], version: tuple[int, ...] = OLDEST) -> list[str]:
    """Where a server without a password listens for anybody; in protected mode it refuses strangers itself.

    But before version 7 only where nobody has told it what to bind to.
    """
    ports = (settings.get("port", "6379"), settings.get("tls-port", "0"))
    protects = version >= (7, 0) or not settings.get("bind")
    if (protects and settings.get("protected-mode", "yes") == "yes") or all(port == "0" for port in ports):
        return []
    bound = [host.removeprefix("-") for host in settings.get("bind", "").split()]
    return ["0.0.0.0" if host in ("*", "") else host for host in bound or ["*"]]


def version_of(text: str) -> tuple[int, ...]:
    """Major and minor of a version."""
    return tuple(int(part) for part in text.split(".")[:2])


def of_version(version: str) -> Finding:
    """Whether the server is new enough."""
    parts = version_of(version)
    if parts < OLDEST:
        return Finding("version", "wrong", f"{version}; 6.2 or newer is needed")
    if parts < (7, 0):
        return Finding("version", "note", f"{version}; access lists are coarser than on 7 (deploy/redis/README.md)")
    return Finding("version", "ok", version)


def of_memory(info: Mapping[str, object]) -> Iterator[Finding]:
    """Whether the server keeps what it accepted when memory runs short."""
    policy, limit = str(info.get("maxmemory_policy")), int(str(info.get("maxmemory", 0)))
    if policy == "noeviction":
        yield Finding("eviction", "ok", policy)
    else:
        yield Finding("eviction", "wrong", f"maxmemory-policy is {policy}: it deletes prompts; set noeviction")
    if limit:
        yield Finding("memory", "ok", f"limited to {limit // MIB} MiB, {int(str(info['used_memory'])) // MIB} MiB used")
    else:
        yield Finding("memory", "note", "maxmemory is not set: the door cannot refuse before the machine is full")


def of_persistence(info: Mapping[str, object], settings: Mapping[str, str]) -> Finding:
    """Whether what was accepted survives the server's end."""
    if str(info.get("aof_enabled")) != "1":
        return Finding("persistence", "wrong", "appendonly is no: a restart loses every open prompt")
    if str(info.get("aof_last_write_status", "ok")) != "ok":
        return Finding("persistence", "wrong", "the append-only file cannot be written: look at the server's disk")
    return Finding("persistence", "ok", f"append-only file, appendfsync {settings.get('appendfsync', 'not told')}")


def of_clock(offset_s: float, within_s: float) -> Finding:
    """Whether this machine's clock agrees with the server's, which is the one that counts."""
    words = f"{offset_s:+.3f} s against the server's, within {within_s:.3f} s"
    far = abs(offset_s) - within_s > FAR_OFF_S
    return Finding("clock", "wrong" if far else "ok", words)


def of_access(user: str, role: str, missing: Sequence[str]) -> Finding:
    """Whether our user may do what its role needs; `role` is empty where neither is known."""
    name = user or "not told"
    if not role:
        return Finding("access", "note", f"user {name}: no role of ours; deploy/redis/ has one for each service")
    if missing:
        return Finding("access", "wrong", f"user {name} as {role} may not {', '.join(missing)}")
    return Finding("access", "ok", f"user {name} can do what the {role} needs")


def of_licence(path: Path | None, text: str | None, today: date, asked: bool) -> Finding:
    """Whether Gurobi's licence is there, and until when. `asked`: Gurobi is the solver by setting."""
    if path is None:
        words = "no Gurobi licence"
        return Finding(
            "solver", "note", f"{words}: the bundled one is for evaluation only" if asked else f"{words}: HiGHS"
        )
    if text is None:
        return Finding("solver", "wrong", f"{path} cannot be read")
    found = re.search(r"^\s*EXPIRATION\s*=\s*(\d{4}-\d{2}-\d{2})", text, re.MULTILINE | re.IGNORECASE)
    if found is None:
        return Finding("solver", "ok", f"Gurobi, {path}: it names no end")
    left = (date.fromisoformat(found[1]) - today).days
    if left < 0:
        return Finding("solver", "wrong", f"Gurobi's licence {path} ended on {found[1]}")
    return Finding(
        "solver", "note" if left < SOON_DAYS else "ok", f"Gurobi, {path}: until {found[1]}, {left} days left"
    )


# -- looking -----------------------------------------------------------------------------------------------------


def of_redis(settings: Settings, role: str | None) -> Iterator[Finding]:
    """What is to be said of the server."""
    told: Mapping[str, str] = {}
    version: tuple[int, ...] = OLDEST
    try:
        connection = Connection(settings)
        facts = look_at(connection)
    except (ServerUnfit, CommandRefused, *Unreachable) as wrong:
        yield Finding("redis", "wrong", str(wrong))
    else:
        told = facts.settings
        version = version_of(str(facts.info["redis_version"]))
        yield Finding("redis", "ok", connection.address)
        yield from _of_server(settings, facts)
        known = role or (facts.user if facts.user in WRITES else "")
        yield of_access(facts.user, known, lacking(connection, known) if known else ())
        connection.close()
    # Also where we were turned away ourselves: a stranger may not be.
    yield exposure([*hosts_of(settings.redis_url), *bound_to(told, version)], answers_anybody(settings))


def _of_server(settings: Settings, facts: ServerFacts) -> Iterator[Finding]:
    yield of_version(str(facts.info["redis_version"]))
    if facts.info["role"] != "master":
        yield Finding("role", "wrong", "a read-only replica; name its primary in REDIS_URL")
    yield from of_memory(facts.info)
    yield of_persistence(facts.info, facts.settings)
    yield of_clock(facts.offset_s, facts.within_s)
    far = [host for host in hosts_of(settings.redis_url) if not is_loopback(host)]
    if far and not settings.redis_url.startswith("rediss"):
        yield Finding(
            "transport", "note", f"prompts and passwords travel to {', '.join(far)} in the clear; use rediss://"
        )


def of_solver(settings: Settings) -> Finding:
    """What is to be said of the planner's solver."""
    path = find_licence(os.environ, ROOT)
    try:
        text = path.read_text(errors="replace") if path else None
    except OSError:
        text = None
    if path and find_spec("gurobipy") is None:
        return Finding(
            "solver", "wrong" if settings.solver == "gurobi" else "note", f"{path} is there, gurobipy is not"
        )
    return of_licence(path, text, date.today(), settings.solver == "gurobi")


def of_gpu() -> Finding:
    """Which GPUs this machine has."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return Finding("gpu", "note", "none: nvidia-smi is not installed")
    command = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as wrong:
        return Finding("gpu", "wrong", f"nvidia-smi does not answer: {wrong}")
    if said.returncode != 0:
        return Finding("gpu", "wrong", f"nvidia-smi fails: {(said.stderr or said.stdout).strip()[:200]}")
    return Finding("gpu", "ok", "; ".join(said.stdout.strip().splitlines()))


def of_weights(settings: Settings) -> Iterator[Finding]:
    """Whether the weights of the cascade are on this machine; a worker that sleeps needs none."""
    try:
        cascade = load_cascade(settings.cascade)
    except SettingsError as wrong:
        yield Finding("weights", "wrong", str(wrong))
        return
    needs_none = settings.backend != "diffusers" or settings.random_weights
    absent: Level = "note" if needs_none else "wrong"
    for model in cascade.models.values():
        for held in holdings(model):
            if held.place:
                yield Finding("weights", "ok", f"{held.name}: {held.place}")
            else:
                how = f"`python -m models.fetch --cascade {cascade.name}` gets it"
                yield Finding("weights", absent, f"{held.name}: {held.lacks}; {how}")
    for line in others_missing(cascade):
        yield Finding("weights", absent, line)
    discriminator = cascade.home / cascade.discriminator
    if any(discriminator.glob("*.safetensors")):
        yield Finding("weights", "ok", f"discriminator: {discriminator}")


def main() -> int:
    """Print the table; 1 where something is wrong."""
    options = parser(__doc__ or "", ["redis_url", "deployment", "cascade", "backend", "solver"])
    options.add_argument("--role", choices=sorted(WRITES), help="whose rights to check; default: our user's name")
    arguments = options.parse_args()
    settings = load(arguments)
    findings = [*of_redis(settings, arguments.role), of_solver(settings), of_gpu(), *of_weights(settings)]
    table = Table("subject", "", "finding")
    for subject, level, words in findings:
        table.add_row(subject, Text(level, STYLES[level]), Text(words))
    Console().print(table)
    return int(any(finding.level == "wrong" for finding in findings))


if __name__ == "__main__":
    guarded(main)
