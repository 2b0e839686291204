"""The way to Redis: connecting, checking the server, running scripts. The only file that imports `redis`.

An address is one of

    redis://[user[:password]@]host:port/db      rediss:// the same over TLS, with ?ssl_ca_certs=FILE
    unix:///path/to/socket?db=0
    redis+sentinel://[user[:password]@]host:port,host:port/service/db     and rediss+sentinel://

and may name in its query what `redis` takes (ssl_certfile, ssl_keyfile, ssl_check_hostname, ...), a file that
holds the password (password_file), and what the sentinels ask for (sentinel_username, sentinel_password_file).

The first may also name any node of a Redis Cluster. All keys of a deployment are in one of its hash slots, so one node
has them all: a connection asks for one of them first, and goes on to the node that it is sent to.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import Connection as PlainConnection
from redis.connection import parse_url
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelManagedConnection, SentinelManagedSSLConnection

from shared.address import first_alone, host_of, with_password, without_secrets
from shared.cluster import following
from shared.config import Settings
from shared.errors import ServerAway, ServerUnfit
from shared.schema import GROUP, STAGES, Keys
from shared.scripts import scripts


class Away(redis.ConnectionError):
    """The server answered that it cannot serve now: it is a replica, loads its files, or runs a long script."""


# A server that is away, loading or not the primary: wait, connect again, go on.
Unreachable: Final = (redis.ConnectionError, redis.TimeoutError)
CommandRefused = ResponseError
NotAllowed = NoPermissionError  # ... for our user lacks the right
OLDEST: Final = (6, 2)
# A server that is silent for longer is away. Silence is all that a half-open connection gives.
ANSWER_S: Final = 3.0
BLOCK_S: Final = 2.0  # longest blocking read; a lost wake-up costs no more than this
IDLE_CHECK_S: Final = 15  # a connection idle for so long is pinged before a command is trusted to it
# A host that vanished is noticed within 11 s by a connection that only listens.
KEEPALIVE: Final = {socket.TCP_KEEPIDLE: 5, socket.TCP_KEEPINTVL: 2, socket.TCP_KEEPCNT: 3}

# How the answers begin that mean "not now"; 6.2 puts its own words in front of an error inside a script.
_NOT_NOW: Final = re.compile(
    r"^(?:ERR )?(?:Error running script .*: -?)?"
    r"(READONLY|LOADING|MASTERDOWN|BUSY|UNBLOCKED|NOREPLICAS|CLUSTERDOWN|TRYAGAIN|MOVED|ASK) "
)
NO_GROUP: Final = ("NOGROUP", "requires the key to exist")  # how a missing group and a missing stream are refused
_CUT_SHORT: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)  # the server died in the handshake
Argument = str | bytes | int | float
Reply = Any


def means_away(answer: str) -> bool:
    """Whether an error answer, with its code, means that the server cannot serve now, but another or itself will."""
    return _NOT_NOW.match(answer) is not None


def _in_vain(wrong: RedisError) -> bool:
    """Whether a server that cannot be used now will not let us in later either, as far as can be known."""
    if not isinstance(wrong, Unreachable) or isinstance(wrong, AuthenticationError | AuthorizationError):
        return True
    cause = wrong.__context__
    return isinstance(cause, ssl.SSLError) and not isinstance(cause, _CUT_SHORT)


def _watched(kind: type[Any]) -> type[Any]:
    """A kind of connection that drops itself when the server says "not now": the next one may find its successor."""

    class Watched(kind):  # type: ignore[misc]
        def read_response(self, *arguments: Any, **options: Any) -> Any:
            try:
                return super().read_response(*arguments, **options)
            except ResponseError as refused:
                code = getattr(refused, "status_code", None)
                said = f"{code} {refused}" if code else str(refused)
                if not means_away(said):
                    raise
                self.disconnect()
                raise Away(said) from refused

    return Watched


def _sent_to(connection: Any, key: str) -> tuple[str, int] | None:
    """Try a new connection with a key: the node of a cluster that it is sent to, None where it is served."""
    try:
        connection.send_command("EXISTS", key, check_health=False)
        connection.read_response()
    except ResponseError:  # this key is not ours to see, or a sentinel keeps none: an answer is all that is wanted
        pass
    except Away as away:
        if not isinstance(away.__cause__, MovedError):
            raise
        return away.__cause__.host, away.__cause__.port
    return None


def _greet(connection: Any) -> None:
    """Name ourselves and try the new connection.

    One answer must be read: before it, a TLS server sends tickets that look like an answer nobody asked for, and the
    pool throws such a connection away.
    """
    connection.on_connect()
    connection.send_command("PING", check_health=False)
    connection.read_response()


def _pool(url: str, timeout_s: float, key: str) -> Any:
    """A pool of connections to what the address names, in a cluster to the node that has the key.

    Raises ValueError, TypeError or OSError where the address is wrong.
    """
    options: dict[str, Any] = parse_url(first_alone(url))  # type: ignore[no-untyped-call]
    kind = options.pop("connection_class", PlainConnection)
    common: dict[str, Any] = {"protocol": 2, "socket_timeout": timeout_s, "socket_connect_timeout": ANSWER_S}
    common |= {"retry": Retry(NoBackoff(), 0), "health_check_interval": IDLE_CHECK_S, "driver_info": None}
    common["redis_connect_func"] = _greet
    if not url.startswith("unix"):  # a unix socket has no host that could vanish
        common |= {"socket_keepalive": True, "socket_keepalive_options": KEEPALIVE}
    if "+sentinel://" in url:
        pool = _sentinel_pool(url, kind is not PlainConnection, common, options)
    else:
        made = _watched(kind)
        if not url.startswith("unix"):  # nor a cluster that it could be a node of
            made = following(made, lambda connection: _sent_to(connection, key), Away)
            common["redis_connect_func"] = made.arrive
        pool = redis.ConnectionPool(connection_class=made, **common, **with_password(options))
    pool.connection_class(**pool.connection_kwargs)  # a misspelt option is found now, not at the first command
    return pool


def _sentinel_pool(url: str, secure: bool, common: Mapping[str, Any], options: dict[str, Any]) -> Any:
    """A pool of connections to whatever server the sentinels call the service's primary."""
    parts = urlsplit(url)
    service, _, db = parts.path.strip("/").partition("/")
    hosts = [host_of(each) for each in parts.netloc.rpartition("@")[2].split(",")]
    given = {name: value for name, value in options.items() if name not in ("host", "port", "db")}
    own = {name.removeprefix("sentinel_"): given.pop(name) for name in list(given) if name.startswith("sentinel_")}
    transport = {name: value for name, value in given.items() if name.startswith("ssl_")} | (
        {"ssl": True} if secure else {}
    )
    manager: Any = Sentinel(hosts, sentinel_kwargs={**common, **transport, **with_password(own)})  # type: ignore[no-untyped-call]
    kind = _watched(SentinelManagedSSLConnection if secure else SentinelManagedConnection)
    kwargs = {**common, **with_password(given), "db": int(db or 0)}
    return manager.master_for(service or "mymaster", connection_class=kind, **kwargs).connection_pool


class Connection:
    """A pool of connections to the Redis of one deployment, and its scripts."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys = Keys(settings.deployment)
        self.address = without_secrets(settings.redis_url)
        try:
            self.client = self._connect(ANSWER_S)
            # A blocking read has a connection of its own, and time to block before silence counts.
            self.blocking = self._connect(BLOCK_S + ANSWER_S / 2)
        except (ValueError, TypeError, OSError) as wrong:
            raise ServerUnfit(f"{self.address}: {wrong}") from None
        self._sources = scripts()
        self._digests: dict[str, str] = {}

    def _connect(self, timeout_s: float) -> redis.Redis:
        return redis.Redis.from_pool(_pool(self.settings.redis_url, timeout_s, self.keys.plan))

    def check(self, *, groups: bool = True) -> None:
        """Make the `groups`, but for who only looks. Raise ServerAway when waiting may help, and else ServerUnfit.

        What Redis refuses of the groups for another reason than our rights is for whoever needs them.
        """
        url = self.address
        try:
            facts = cast(Mapping[str, Any], self.client.info())
            version = tuple(int(part) for part in str(facts["redis_version"]).split(".")[:2])
            if version < OLDEST:
                raise ServerUnfit(f"Redis at {url} is {facts['redis_version']}; 6.2 or newer is needed")
            if facts["role"] != "master":
                raise ServerAway(f"Redis at {url} is a read-only replica; name its primary in REDIS_URL")
            if groups:
                self._try_groups()
        except BusyLoadingError:
            raise ServerAway(f"Redis at {url} is still loading its files; try again when it is done") from None
        except RedisError as wrong:
            kind = ServerUnfit if _in_vain(wrong) else ServerAway
            raise kind(f"Redis at {url} cannot be used: {wrong}") from None
        except UnicodeError as wrong:
            raise ServerUnfit(f"{url} names no host: {wrong}") from None

    def _try_groups(self) -> None:
        try:
            self.ensure_groups()
        except NoPermissionError:
            raise
        except ResponseError:  # no memory left, or a key of another type: scripts that need the group make it
            pass

    def ensure_groups(self) -> None:
        """Create the streams' groups where they are missing; all that can be, before it raises CommandRefused."""
        refused: ResponseError | None = None
        for stage in STAGES:
            for stream in self.keys.streams[stage]:
                try:
                    self.client.xgroup_create(stream, GROUP, id="0", mkstream=True)
                except ResponseError as wrong:
                    refused = refused if "BUSYGROUP" in str(wrong) else wrong
        if refused is not None:
            raise refused

    def now(self) -> float:
        """The server's time, the one clock of a deployment."""
        whole, micro = self.client.time()
        return whole + micro / 1e6

    def node(self) -> str:
        """Where connections lead: in a cluster, to the node that holds the deployment."""
        pool: Any = self.client.connection_pool
        connection = pool.get_connection()
        pool.release(connection)
        return self.address if self.address.startswith("unix") else f"{connection.host}:{connection.port}"

    def close(self) -> None:
        """Close the connections."""
        self.client.close()
        self.blocking.close()

    def run(self, script: str, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
        """Run one script; raises CommandRefused with the server's words, or one of Unreachable."""
        if not self._digests:
            self._load()
        try:
            return self._execute(script, keys, arguments)
        except NoScriptError:  # the server was restarted: its scripts are gone
            self._load()
            return self._execute(script, keys, arguments)
        except ResponseError as refused:
            if not any(words in str(refused) for words in NO_GROUP):
                raise
            self.ensure_groups()  # somebody deleted a group, or a failover came before it was copied
            return self._execute(script, keys, arguments)

    def run_all(self, script: str, calls: Sequence[tuple[Sequence[str], Sequence[Argument]]]) -> list[Reply]:
        """Run one script for each pair of keys and arguments, in one round trip.

        What went wrong with one is a CommandRefused in its place; raises one of Unreachable.
        """
        if not self._digests:
            self._load()
        replies = self._execute_all(script, calls)
        again = [i for i, reply in enumerate(replies) if isinstance(reply, ResponseError) and _mendable(reply)]
        if again:
            self._load()
            self.ensure_groups()
            for i, reply in zip(again, self._execute_all(script, [calls[i] for i in again]), strict=True):
                replies[i] = reply
        return replies

    def _execute_all(self, script: str, calls: Sequence[tuple[Sequence[str], Sequence[Argument]]]) -> list[Reply]:
        pipe: Any = self.client.pipeline(transaction=False)
        for keys, arguments in calls:
            pipe.execute_command("EVALSHA", self._digests[script], len(keys), *keys, *arguments)
        return cast("list[Reply]", pipe.execute(raise_on_error=False))

    def _execute(self, script: str, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
        return cast(Any, self.client).execute_command("EVALSHA", self._digests[script], len(keys), *keys, *arguments)

    def _load(self) -> None:
        self._digests = {name: str(self.client.script_load(text)) for name, text in self._sources.items()}


def _mendable(refused: ResponseError) -> bool:
    """Whether a script will run once it is loaded again, or the groups are there again."""
    return isinstance(refused, NoScriptError) or any(words in str(refused) for words in NO_GROUP)
