"""What can be asked of a server before anything is trusted to it: its settings, its clock, what it lets us do."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from shared.address import without_secrets
from shared.config import Settings
from shared.connection import ANSWER_S, CommandRefused, Connection, Unreachable
from shared.errors import ServerUnfit

SCRIPTS: Final = "run scripts"
SAMPLES: Final = 5  # of the clock; the one that came back soonest counts
# How a stranger is refused: he must name himself, or comes from elsewhere to a server in protected mode.
_TURNED_AWAY: Final = ("NOAUTH", "Authentication required", "NOPERM", "DENIED")
_WRONG_PASSWORD: Final = ("WRONGPASS", "invalid username-password", "invalid password")
_CREDENTIALS: Final = frozenset({"username", "password", "password_file"})


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself. `settings`: what CONFIG GET tells, empty where we may not ask.

    `offset_s`: this machine's clock minus the server's, known to `within_s`.
    """

    info: Mapping[str, Any]
    settings: Mapping[str, str]
    user: str
    offset_s: float
    within_s: float


def look_at(connection: Connection) -> ServerFacts:
    """Ask a server about itself; raises one of Unreachable or CommandRefused."""
    client: Any = connection.client
    offset_s, within_s = clock_offset(connection)
    return ServerFacts(client.info("everything"), _settings(client), _user(client), offset_s, within_s)


def clock_offset(connection: Connection) -> tuple[float, float]:
    """This machine's clock minus the server's, and how far off that may be, in seconds."""
    samples: list[tuple[float, float]] = []
    for _ in range(SAMPLES):
        sent, began = time.time(), time.monotonic()
        told = connection.now()
        half_s = (time.monotonic() - began) / 2
        samples.append((half_s, sent + half_s - told))
    within_s, offset_s = min(samples)
    return offset_s, within_s


def node_facts(connection: Connection, name: str) -> dict[str, str]:
    """What a node's agent says of it, empty where there is none; raises CommandRefused where we may not ask."""
    client: Any = connection.client
    told: Mapping[bytes, bytes] = client.hgetall(connection.keys.node(name))
    return {key.decode(errors="replace"): value.decode(errors="replace") for key, value in told.items()}


def has_plan(connection: Connection) -> bool:
    """Whether a plan is in force; raises CommandRefused where we may not ask."""
    client: Any = connection.client
    return bool(client.hgetall(connection.keys.plan))


def turned_away(wrong: Exception) -> bool:
    """Whether the server answered, but not us."""
    said = f"{_code(wrong)} {wrong}"
    return any(word in said for word in (*_TURNED_AWAY, *_WRONG_PASSWORD))


def remedy(url: str, wrong: Exception) -> str:
    """In one line why this machine gets nothing of the server at that address, and what to do."""
    said, parts = f"{_code(wrong)} {wrong}", urlsplit(url)
    place = without_secrets(url)
    if any(word in said for word in _WRONG_PASSWORD):
        return f"{place} turns {_user_of(url)}: put the right ones into REDIS_URL (deploy/redis/README.md)"
    if any(word in said for word in _TURNED_AWAY):
        return f"{place} asks for a name and a password: give them as ...//USER@HOST/0?password_file=FILE in REDIS_URL"
    for cause in _causes(wrong):
        if isinstance(cause, socket.gaierror | UnicodeError):
            return f"{place}: no host is called {parts.hostname}: mend it in REDIS_URL, or in this machine's DNS"
        if isinstance(cause, ConnectionRefusedError):
            return f"{place}: nothing listens there: start Redis, or mend host and port in REDIS_URL"
        if isinstance(cause, TimeoutError):
            return f"{place} is silent for {ANSWER_S:.0f} s: mend the host in REDIS_URL, or the firewalls between"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"{place}: {cause.verify_message}: name who vouches for it with ssl_ca_certs=FILE in REDIS_URL"
        if isinstance(cause, OSError) and cause.filename:
            return f"{place}: {cause.filename}: {cause.strerror}: mend the path in REDIS_URL, or the file"
    return " ".join(str(wrong).split())


def _user_of(url: str) -> str:
    user = urlsplit(url).username or "default"
    if user in (*WRITES, "admin"):
        return f"user {user} away: its password is wrong, or it has no such user"
    known = ", ".join(sorted((*WRITES, "admin")))
    return f"user {user} away: our users are {known}, so the name is wrong, or else the password"


def _causes(wrong: BaseException) -> Iterator[BaseException]:
    """What went wrong, and what that came from."""
    found: BaseException | None = wrong
    for _ in range(8):
        if found is None:
            return
        yield found
        found = found.__cause__ or found.__context__


def answers_anybody(settings: Settings) -> bool | None:
    """Whether the server serves one who brings neither name nor password; None where that can't be found out."""
    try:
        client: Any = Connection(settings.model_copy(update={"redis_url": anonymous(settings.redis_url)})).client
        client.execute_command("PING")
    except (ServerUnfit, CommandRefused, *Unreachable) as refused:
        return False if any(word in f"{_code(refused)} {refused}" for word in _TURNED_AWAY) else None
    return True


def anonymous(url: str) -> str:
    """The address without name and password."""
    parts = urlsplit(url)
    kept = [(name, value) for name, value in parse_qsl(parts.query) if name not in _CREDENTIALS]
    query = f"?{urlencode(kept)}" if kept else ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{query}"


def _code(refused: Exception) -> str:
    return str(getattr(refused, "status_code", None) or "")


# Per role, the keys that it must be able to write and to read; a name that ends in a colon stands for many keys.
_PROMPTS: Final = ("stage:light:", "stage:heavy:", "prompt:", "wake:", "due", "done", "dead", "events", "totals")
_PICTURES: Final = ("image:", "pictures", "picture_bytes")
WRITES: Final[Mapping[str, Sequence[str]]] = {
    "publisher": _PROMPTS,
    "worker": (*_PROMPTS, *_PICTURES, "worker:", "slot:", "ceiling:"),
    "control": ("plan",),
    "agent": (*_PROMPTS, "worker:", "slot:", "node:"),
    "keeper": (*_PROMPTS, *_PICTURES, "worker:", "slot:", "leader:keeper"),
    "gateway": (*_PROMPTS, "orders"),
    "reader": (),
}
READS: Final[Mapping[str, Sequence[str]]] = {
    "publisher": ("plan",),
    "worker": ("plan",),
    "control": ("stage:light:", "stage:heavy:", "done", "totals", "worker:", "node:", "plan", "leader:control"),
    "agent": ("plan",),
    "keeper": ("plan",),
    "gateway": (*_PICTURES, "plan", "plans", "worker:", "node:", "slot:", "orders", "audit"),
    "reader": (*_PROMPTS, *_PICTURES, "plan", "plans", "worker:", "node:", "slot:"),
}


def lacking(connection: Connection, role: str) -> list[str]:
    """What the role needs and the server forbids us, in words. Nothing is changed: the commands have no effect."""
    asked: list[tuple[str, list[str]]] = [("write ", ["PERSIST", name]) for name in WRITES[role]]
    asked += [("read ", ["GET", name]) for name in READS[role]]
    client: Any = connection.client
    missing: list[str] = []
    for verb, (command, name) in asked:
        key = f"{connection.keys.root}:{name}" + ("doctor" if name.endswith(":") else "")
        if name == "plan" and command == "GET":
            command, key = "HGETALL", connection.keys.plan
        if _refused(client, command, key):
            missing.append(verb + name)
    if role != "reader" and _refused(client, "EVAL", "return 1", "0"):
        missing.append(SCRIPTS)
    return missing


def _refused(client: Any, *command: str) -> bool:
    try:
        client.execute_command(*command)
    except CommandRefused as refused:
        return "NOPERM" in (_code(refused), str(refused).split(" ")[0])
    return False


def _settings(client: Any) -> dict[str, str]:
    try:
        return {str(name): str(value) for name, value in client.config_get("*").items()}
    except CommandRefused:
        return {}


def _user(client: Any) -> str:
    try:
        told = client.execute_command("ACL", "WHOAMI")
    except CommandRefused:
        return ""
    return told.decode() if isinstance(told, bytes) else str(told)
