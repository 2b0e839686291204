"""What the doctor says of a deployment's Redis, and of what our user may do there."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from services.doctor.finding import Finding
from shared.catalog import unmeasured
from shared.census import Planned, in_words
from shared.checkup import (
    READS,
    SCRIPTS,
    WRITES,
    ServerFacts,
    answers_anybody,
    has_plan,
    lacking,
    look_at,
    node_facts,
    remedy,
    turned_away,
)
from shared.config import Settings
from shared.connection import OLDEST, CommandRefused, Connection, Unreachable
from shared.errors import ServerUnfit, SettingsError
from shared.incarnation import machine
from shared.observer import Observer
from shared.schema import Stage

FAR_OFF_S: Final = 1.0  # of clocks: times in logs and on dashboards no longer fit together
MIB: Final = 2**20
ON_NODES: Final = ("", "agent", "worker")  # the roles of a node; also where none is known


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


def of_access(user: str, role: str, missing: Sequence[str], deployment: str = "") -> Finding:
    """Whether our user may do what its role needs; `role` is empty where neither is known."""
    name = user or "not told"
    if not role:
        return Finding("access", "note", f"user {name}: no role of ours; deploy/redis/ has one for each service")
    if sum(each != SCRIPTS for each in missing) == len(WRITES[role]) + len(READS[role]):
        words = f"user {name} may touch nothing of the deployment {deployment}: set CASCADE_DEPLOYMENT to the name that"
        return Finding(
            "access", "wrong", f"{words} the users were made for (deploy.secrets --deployment), or make new ones"
        )
    if missing:
        return Finding("access", "wrong", f"user {name} as {role} may not {', '.join(missing)}")
    return Finding("access", "ok", f"user {name} can do what the {role} needs")


# -- looking -----------------------------------------------------------------------------------------------------


def of_redis(settings: Settings, role: str | None) -> Iterator[Finding]:
    """What is to be said of the server, of our user, and of the names that this machine goes by there."""
    told: Mapping[str, str] = {}
    version: tuple[int, ...] = OLDEST
    try:
        connection = Connection(settings)
        facts = look_at(connection)
    except (ServerUnfit, CommandRefused, *Unreachable) as wrong:
        yield Finding("redis", "wrong", remedy(settings.redis_url, wrong))
        if not turned_away(wrong):  # what does not answer us answers no stranger either
            return
    else:
        told = facts.settings
        version = version_of(str(facts.info["redis_version"]))
        yield Finding("redis", "ok", connection.address)
        yield from _of_server(settings, facts)
        known = role or (facts.user if facts.user in WRITES else "")
        yield of_access(facts.user, known, lacking(connection, known) if known else (), settings.deployment)
        yield from _of_names(connection, known)
        yield from _of_cascade(connection)
        connection.close()
    # Also where we were turned away ourselves: a stranger may not be.
    yield exposure([*hosts_of(settings.redis_url), *bound_to(told, version)], answers_anybody(settings))


def of_node(name: str, known: Mapping[str, str], here: str) -> Finding:
    """Whether another machine goes by this node's name. `known`: what Redis has of it; `here`: our machine."""
    if not known:
        return Finding("node", "ok", f"{name}: the name is free")
    if not known.get("machine") or not here:
        return Finding("node", "note", f"{name}: an agent goes by this name; on which machine is not known")
    if known["machine"] == here:
        return Finding("node", "ok", f"{name}: its agent runs on this machine")
    words = f"another machine is node {name} already: name this one otherwise with CASCADE_NODE (NODE_NAME in compose)"
    return Finding("node", "wrong", words)


def of_cascade(ours: Planned, planned: Planned, strange: Mapping[str, Sequence[str]]) -> Finding:
    """Whether this machine and the nodes are told the planner's cascade. `strange`: who is not, of `census`."""
    if ours.models != planned.models:
        words = f"the planner's is {planned}, this machine is told {ours}: give head and nodes the same CASCADE"
        return Finding("cascade", "wrong", words)
    if strange:
        return Finding("cascade", "wrong", in_words(strange, planned))
    return Finding("cascade", "ok", f"the planner's, {planned}")


def _of_cascade(connection: Connection) -> Iterator[Finding]:
    """Said where a planner leads and our user may ask for it; of the nodes, where it may ask for those too."""
    observer = Observer(connection)
    with suppress(CommandRefused, SettingsError):  # a cascade that is none is said with its models
        planned, ours = observer.planned_for(), unmeasured(connection.settings.cascade)
        if planned is not None:
            strange: Mapping[str, Sequence[str]] = {}
            with suppress(CommandRefused):
                strange = observer.census(planned.models).strangers
            names: Mapping[Stage, str] = {stage: model.name for stage, model in ours.models.items()}
            yield of_cascade(Planned(ours.name, names), planned, strange)


def _of_names(connection: Connection, role: str) -> Iterator[Finding]:
    """Whether this node's name is its own, and whether the deployment's is one that a planner knows."""
    settings = connection.settings
    if role in ON_NODES:
        with suppress(CommandRefused):  # the worker's user may not look; the agent's may
            yield of_node(settings.node, node_facts(connection, settings.node), machine())
    with suppress(CommandRefused):  # what our user may not do is said above
        if not has_plan(connection):
            words = (
                f"no planner ever made a plan for {settings.deployment}: start services.control, or, where it runs, "
            )
            yield Finding("deployment", "note", words + "give CASCADE_DEPLOYMENT the name that it has there")


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
