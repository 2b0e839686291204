"""The way to Redis: connecting, checking the server, running scripts. The only file that imports `redis`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, NoScriptError, ReadOnlyError, RedisError, ResponseError
from redis.retry import Retry

from shared.config import Settings
from shared.errors import ServerUnfit
from shared.schema import GROUP, SHARED_WITH_SCRIPTS, STAGES, Keys

# A server that is away, loading or not yet the primary: wait, connect again, go on.
Unreachable: Final = (redis.ConnectionError, redis.TimeoutError, BusyLoadingError, ReadOnlyError)
CommandRefused: Final = ResponseError
OLDEST: Final = (6, 2)
ANSWER_S: Final = 10.0  # a server that is silent for longer is away

_LUA: Final = Path(__file__).parent / "lua"
Argument = str | bytes | int | float
Reply = Any


class Connection:
    """A pool of connections to the Redis of one deployment, and its scripts."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys = Keys(settings.deployment)
        try:
            self.client = self._connect(ANSWER_S)
            # A blocking read has a connection of its own, and no time limit: redis-py 8 would end it after 5 s
            # and retry for a minute.
            self.blocking = self._connect(None)
        except ValueError as wrong:
            raise ServerUnfit(f"{settings.redis_url}: {wrong}") from None
        self._sources = _scripts()
        self._digests: dict[str, str] = {}

    def _connect(self, timeout_s: float | None) -> redis.Redis:
        keepalive: dict[str, Any] = {}
        if not self.settings.redis_url.startswith("unix"):  # a host that vanished is noticed; a unix socket has none
            keepalive = {"socket_keepalive": True}
        return redis.Redis.from_url(
            self.settings.redis_url,
            **keepalive,
            protocol=2,
            socket_timeout=timeout_s,
            socket_connect_timeout=ANSWER_S,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )

    def check(self) -> None:
        """Raise ServerUnfit with one line when this server cannot carry the project; make the groups."""
        url = self.settings.redis_url
        try:
            server = cast(Mapping[str, Any], self.client.info("server"))
            role = cast(Mapping[str, Any], self.client.info("replication"))["role"]
            version = tuple(int(part) for part in str(server["redis_version"]).split(".")[:2])
            if version < OLDEST:
                raise ServerUnfit(f"Redis at {url} is {server['redis_version']}; 6.2 or newer is needed")
            if role != "master":
                raise ServerUnfit(f"Redis at {url} is a read-only replica; name its primary in REDIS_URL")
            self.ensure_groups()
        except BusyLoadingError:
            raise ServerUnfit(f"Redis at {url} is still loading its files; try again when it is done") from None
        except RedisError as wrong:
            raise ServerUnfit(f"Redis at {url} cannot be used: {wrong}") from None

    def ensure_groups(self) -> None:
        """Create the streams' groups where they are missing."""
        for stage in STAGES:
            for stream in self.keys.streams[stage]:
                try:
                    self.client.xgroup_create(stream, GROUP, id="0", mkstream=True)
                except ResponseError as wrong:
                    if "BUSYGROUP" not in str(wrong):
                        raise

    def now(self) -> float:
        """The server's time, the one clock of a deployment."""
        whole, micro = self.client.time()
        return whole + micro / 1e6

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

    def _execute(self, script: str, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
        client: Any = self.client
        return client.execute_command("EVALSHA", self._digests[script], len(keys), *keys, *arguments)

    def _load(self) -> None:
        self._digests = {name: str(self.client.script_load(text)) for name, text in self._sources.items()}


def _scripts() -> dict[str, str]:
    constants = "".join(f"local {name} = {value!r}\n" for name, value in SHARED_WITH_SCRIPTS.items())
    common = constants + (_LUA / "common.lua").read_text()
    paths = sorted(_LUA.glob("*.lua"))
    return {path.stem: common + path.read_text() for path in paths if path.stem != "common"}
