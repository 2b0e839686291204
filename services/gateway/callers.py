"""Who calls: the bearer of a key, at the key's rate; anybody on this machine, where there is no keyring.

The keyring's file is read again when it changes: a key that is removed stops working within LOOK_S. Rates are
counted by each gateway for itself: a key may publish at its rate through each of several.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from fastapi import Depends, FastAPI, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from services.gateway.errors import ApiError
from shared.config import Settings
from shared.errors import SettingsError
from shared.keyring import Key, Keyring, read_keyring
from shared.schema import NORMAL, URGENT

BEHALF: Final = "/"  # no key's name has one
LOOK_S: Final = 1.0  # between two looks at the keyring's file
Clock = Callable[[], float]


@dataclass
class Meter:
    """How much a key has used of its rate; `owed_s`: seconds until what was taken is earned."""

    rate_per_s: float
    clock: Clock
    _paid_until: float = -math.inf

    def take(self, prompts: int) -> None:
        """Count prompts; raises ApiError 429 while those taken before are not yet earned.

        Unused time is kept for a second, and at least for one prompt. A request may go into debt: a key of one
        prompt a second may ask for ten at once, and waits ten seconds afterwards.
        """
        now = self.clock()
        kept_s = max(1.0, 1.0 / self.rate_per_s)
        self._paid_until = max(self._paid_until, now - kept_s)
        cost_s = 1.0 / self.rate_per_s
        owed_s = self._paid_until + cost_s - now
        if owed_s > 1e-9:
            message = f"this key may publish {self.rate_per_s:g} prompts a second"
            raise ApiError(429, message, code="rate_limit_exceeded", retry_after_s=owed_s)
        self._paid_until += prompts * cost_s


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `identity` tells keys apart, also two of one name one after the other; `most_urgent`: class."""

    name: str
    identity: str = ""
    priority: int = NORMAL
    most_urgent: int = URGENT
    admin: bool = False
    meter: Meter | None = field(default=None, compare=False)

    def charge(self, prompts: int) -> None:
        """Count prompts against the rate; raises ApiError 429 with the time to retry."""
        if self.meter is not None:
            self.meter.take(prompts)

    def signature(self, user: str | None) -> str:
        """Whose a prompt is, as it travels with it: the key's name, and the user on whose behalf its bearer asks."""
        return BEHALF.join(part for part in (self.name if self.identity else "", user) if part)

    def owns(self, signature: str) -> bool:
        """Whether a prompt is this caller's to see and to cancel; for an admin, and without keys, every one is."""
        return not self.identity or self.admin or signature.partition(BEHALF)[0] == self.name

    def urgency(self, asked: int | None) -> int:
        """The class of a prompt for which a class was asked; raises ApiError 403 for one that is too urgent."""
        if asked is not None and asked < self.most_urgent:
            message = f"this key may ask for priority {self.most_urgent} or higher numbers, not {asked}"
            raise ApiError(403, message, code="priority_not_allowed", param="priority")
        return self.priority if asked is None else asked


ANYBODY: Final = Caller("anybody")


class Gatekeeper:
    """Knows callers by their keys; raises SettingsError at once where the keyring can't be read."""

    def __init__(self, path: Path | None, clock: Clock = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._looked = clock()
        self._stamp: tuple[int, int] | None = None
        self._meters: dict[str, Meter] = {}
        self._ring = Keyring()
        if path is not None:
            self._stamp, self._ring = _stamp(path), read_keyring(path)

    def recognise(self, secret: str | None) -> Caller:
        """Who has this key; raises ApiError 401."""
        if self._path is None:
            return ANYBODY
        self._refresh(self._path)
        if not secret:
            raise ApiError(401, "give an API key: Authorization: Bearer sk-...", code="missing_api_key")
        found = self._ring.find(secret)
        if found is None:
            raise ApiError(401, "nobody has this API key", code="invalid_api_key")
        return self._caller(*found)

    def _caller(self, name: str, key: Key) -> Caller:
        meter = None
        if key.rate_per_s is not None:
            meter = self._meters.get(key.sha256)
            if meter is None or meter.rate_per_s != key.rate_per_s:
                meter = self._meters[key.sha256] = Meter(key.rate_per_s, self._clock)
        return Caller(name, key.sha256, key.priority, key.priority, key.admin, meter)

    def _refresh(self, path: Path) -> None:
        now = self._clock()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        try:
            if (stamp := _stamp(path)) != self._stamp:
                self._stamp, self._ring = stamp, read_keyring(path)
                known = {key.sha256 for key in self._ring.keys.values()}
                self._meters = {digest: meter for digest, meter in self._meters.items() if digest in known}
        except (OSError, SettingsError) as wrong:
            # A slip of the editor must not lock everybody out.
            logging.getLogger("cascade").error("the keyring stays as it was", extra={"reason": str(wrong)})


def _stamp(path: Path) -> tuple[int, int]:
    try:
        about = path.stat()
    except OSError as wrong:
        raise SettingsError(f"{path}: {wrong}") from None
    return about.st_mtime_ns, about.st_ino


def install(app: FastAPI, settings: Settings) -> None:
    """Let the application know its callers; raises SettingsError where the keyring can't be read."""
    app.state.gatekeeper = Gatekeeper(settings.http_keys)


_bearer = HTTPBearer(auto_error=False, scheme_name="key", description="an API key, as services.ctl key add makes it")


async def caller(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
) -> Caller:
    """Who makes this request."""
    gatekeeper: Gatekeeper = request.app.state.gatekeeper
    return gatekeeper.recognise(credentials.credentials if credentials else None)


Known = Annotated[Caller, Depends(caller)]
