"""Where pictures are kept: in the deployment's Redis, in a second one, or in a folder.

In the deployment's own Redis the hop that made a picture writes it too. Anywhere else (`pictures_at`) it is put
there first and the hop follows: then no picture enters the append-only file, and all else stays one step.
Each lives `picture_ttl_s`, and all of them within a budget of bytes: whoever was made or fetched longest ago goes
first. A picture of an open prompt may be its answer of last resort: it lives so much longer as its prompt may stay
open, and goes for no other's bytes.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol, cast
from urllib.parse import quote, unquote

from shared.config import Settings
from shared.connection import Argument, Away, Connection
from shared.schema import COUNT_DIGITS, Stage

MIB: Final = 2**20
DEFAULT_BUDGET: Final = 256 * MIB  # where the server has no limit to take a share of
BUDGET_SHARE: Final = 4  # of `maxmemory`: one part in so many
LIMIT_S: Final = 5.0  # between two questions for `maxmemory`
AT_ONCE: Final = 500
LONGEST_NAME: Final = 200  # of a file, before its ending
SCHEMES: Final = ("redis://", "rediss://", "unix://", "redis+sentinel://", "rediss+sentinel://")

Place = tuple[str, Stage]
NONE_OPEN: Final[Mapping[Place, float]] = {}
OpenAmong = Callable[[Sequence[str]], set[str]]


class Pictures(Protocol):
    """A place for pictures; each raises CommandRefused or one of Unreachable where it cannot be had."""

    def put(self, pictures: Mapping[Place, bytes], open_s: Mapping[Place, float] = NONE_OPEN) -> None:
        """Keep these, in the place of older ones of the same prompt and stage.

        `open_s`: seconds that the prompt of each may stay open; 0 where it is not named.
        """

    def get(self, wanted: Iterable[Place]) -> list[bytes | None]:
        """The pictures in order, None for one that is gone."""

    def drop(self, unwanted: Iterable[Place]) -> None:
        """Forget these at once."""

    def expire(self, open_among: OpenAmong) -> int:
        """Forget what is too old and what exceeds the budget; returns how many. `open_among`: which ids are open."""

    def size(self) -> int | None:
        """Bytes of all that are kept; None where nobody counts them."""


def open_pictures(connection: Connection) -> Pictures:
    """The place that the settings name."""
    settings = connection.settings
    if not settings.pictures_at:
        return RedisPictures(connection)
    if settings.pictures_at.startswith(SCHEMES):
        return RedisPictures(Connection(settings.model_copy(update={"redis_url": settings.pictures_at})))
    return FolderPictures(Path(settings.pictures_at) / settings.deployment, settings)


class RedisPictures:
    """Pictures as strings with a time to live; a sorted set tells their age and size, a counter the sum."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._keys = connection.keys
        self._client: Any = connection.client
        self._ttl_s = connection.settings.picture_ttl_s
        self._limit = 0
        self._next_limit = 0.0

    def put(self, pictures: Mapping[Place, bytes], open_s: Mapping[Place, float] = NONE_OPEN) -> None:
        """See Pictures."""
        parts: list[Argument] = []
        for (prompt_id, stage), data in pictures.items():
            lives_s = self._ttl_s + max(0.0, open_s.get((prompt_id, stage), 0.0))
            parts += (f"{stage} {prompt_id}", int(lives_s * 1000), data)
        if parts:
            self._connection.run("keep", self._accounts(pictures), parts)

    def get(self, wanted: Iterable[Place]) -> list[bytes | None]:
        """See Pictures; Redis itself remembers when each was read last."""
        keys = self._images(wanted)
        return cast("list[bytes | None]", self._client.mget(keys)) if keys else []

    def drop(self, unwanted: Iterable[Place]) -> None:
        """See Pictures; the accounts notice it in time."""
        if keys := self._images(unwanted):
            self._client.delete(*keys)

    def expire(self, open_among: OpenAmong) -> int:
        """See Pictures. Those that must stay are stepped over: they may be the oldest, and many."""
        gone, stay, budget = 0, 0, self._budget()
        while members := self._oldest(budget, stay):
            spared = open_among([_place(member)[0] for member in members])
            loose = [member for member in members if _place(member)[0] not in spared]
            left, moved = self._trim(budget, loose) if loose else (0, 0)
            gone += left
            stay += len(members) - left - moved
        return gone

    def size(self) -> int | None:
        """See Pictures."""
        known = self._kept_bytes()
        return int(known) if math.isfinite(known) else None

    def _oldest(self, budget: int, stay: int) -> list[bytes]:
        """The oldest members after so many: of all where they exceed the budget, else of those whose time is over."""
        if self._kept_bytes() > budget:
            return cast(list[bytes], self._client.zrange(self._keys.pictures, stay, stay + AT_ONCE - 1))
        over = self._connection.now() - self._ttl_s
        return cast(list[bytes], self._client.zrangebyscore(self._keys.pictures, "-inf", over, stay, AT_ONCE))

    def _trim(self, budget: int, members: Sequence[bytes]) -> tuple[int, int]:
        places = [_place(member) for member in members]
        left, moved = self._connection.run("trim", self._accounts(places), [budget, *members])
        return int(left), int(moved)

    def _kept_bytes(self) -> float:
        known = self._client.get(self._keys.picture_bytes)
        sound = known is None or (len(known) <= COUNT_DIGITS and known.removeprefix(b"-").isdigit())
        return int(known or 0) if sound else math.inf  # the script counts anew

    def _budget(self) -> int:
        given = self._connection.settings.picture_budget_mib
        if given is not None:
            return int(given * MIB)
        if time.monotonic() >= self._next_limit:
            self._limit = int(self._client.info("memory").get("maxmemory", 0))
            self._next_limit = time.monotonic() + LIMIT_S
        return self._limit // BUDGET_SHARE or DEFAULT_BUDGET

    def _images(self, places: Iterable[Place]) -> list[str]:
        return [self._keys.image(prompt_id, stage) for prompt_id, stage in places]

    def _accounts(self, places: Iterable[Place]) -> list[str]:
        return [self._keys.pictures, self._keys.picture_bytes, *self._images(places)]


def _place(member: bytes) -> Place:
    """Prompt and stage of a member of the accounts, `<bytes> <stage> <id>`."""
    _, stage, prompt_id = member.decode(errors="replace").split(" ", 2)
    return prompt_id, cast(Stage, stage)


class FolderPictures:
    """Pictures as files.

    A file's time is from when on it ages: when it was written, or the deadline of its prompt that was open then. Its
    access time is when it was written or fetched last.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder = folder
        self._ttl_s = settings.picture_ttl_s
        given = settings.picture_budget_mib
        self._budget = DEFAULT_BUDGET if given is None else int(given * MIB)

    def put(self, pictures: Mapping[Place, bytes], open_s: Mapping[Place, float] = NONE_OPEN) -> None:
        """See Pictures. A reader sees a picture whole or not at all."""
        try:
            for place, data in pictures.items():
                file = self._file(place)
                file.parent.mkdir(parents=True, exist_ok=True)
                unfinished = file.with_suffix(f".{os.getpid()}.part")
                unfinished.write_bytes(data)
                now = time.time()
                os.utime(unfinished, (now, now + max(0.0, open_s.get(place, 0.0))))
                unfinished.replace(file)
        except OSError as wrong:
            raise Away(f"pictures cannot be kept: {wrong}") from wrong

    def get(self, wanted: Iterable[Place]) -> list[bytes | None]:
        """See Pictures."""
        return [self._read(self._file(place)) for place in wanted]

    def _read(self, file: Path) -> bytes | None:
        try:
            data, ages_from = file.read_bytes(), file.stat().st_mtime
            if ages_from < time.time() - self._ttl_s:
                return None
            os.utime(file, (time.time(), ages_from))
        except OSError:  # gone, or going
            return None
        return data

    def drop(self, unwanted: Iterable[Place]) -> None:
        """See Pictures."""
        for place in unwanted:
            self._file(place).unlink(missing_ok=True)

    def expire(self, open_among: OpenAmong) -> int:
        """See Pictures."""
        found = sorted(self._files(), key=lambda each: each[1].st_atime)
        over, size = time.time() - self._ttl_s, sum(each.st_size for _, each in found)
        late = [file for file, each in found if each.st_mtime < over]
        size -= sum(each.st_size for _, each in found if each.st_mtime < over)
        rest = [(file, each.st_size) for file, each in found if each.st_mtime >= over]
        spared = open_among([_id_of(file) for file, _ in rest]) if size > self._budget else set()
        for file, bytes_ in rest:
            if size > self._budget and _id_of(file) not in spared:
                late.append(file)
                size -= bytes_
        for file in late:
            file.unlink(missing_ok=True)
        return len(late)

    def size(self) -> int | None:
        """See Pictures: a sum would mean listing the folder."""
        return None

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for file in self._folder.glob("*/*"):
            try:
                yield file, file.stat()
            except OSError:  # written or dropped just now
                continue

    def _file(self, place: Place) -> Path:
        """A name that says whose picture it is, where an id is short enough, and leads out of no folder."""
        prompt_id, stage = place
        digest = sha256(prompt_id.encode()).hexdigest()
        name = quote(prompt_id, safe="")
        return self._folder / digest[:2] / f"{name if len(name) <= LONGEST_NAME else digest}@{stage}.webp"


def _id_of(file: Path) -> str:
    return unquote(file.name.rpartition("@")[0])
