"""The keys of the HTTP API: a TOML file with a digest per key, for the secret itself is shown once and kept nowhere.

    [keys.alice]
    sha256 = "9f86d081..."
    rate_per_s = 5.0        # prompts; without it as many as the door takes
    priority = 1            # the class of its prompts, and the most urgent that it may ask for
    admin = false           # whether it may change what the planner does

A secret is random and long, so that a plain digest of it can't be tried words against.
"""

from __future__ import annotations

import hmac
import secrets
import tomllib
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from shared.errors import SettingsError
from shared.files import write_text
from shared.schema import BATCH, NORMAL, URGENT

PREFIX: Final = "sk-"
RANDOM_BYTES: Final = 32
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class Key(BaseModel):
    """What is known of a key: the digest of its secret, and what its bearer may do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rate_per_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    priority: int = Field(NORMAL, ge=URGENT, le=BATCH)
    admin: bool = False


class Keyring(BaseModel):
    """All keys, by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: Mapping[Name, Key] = {}

    def find(self, secret: str) -> tuple[str, Key] | None:
        """Name and key of a secret; it takes as long for a wrong one as for any."""
        digest, found = _digest(secret), None
        for name, key in self.keys.items():
            if hmac.compare_digest(key.sha256, digest):
                found = name, key
        return found

    def added(
        self, name: str, rate_per_s: float | None = None, priority: int = NORMAL, *, admin: bool = False
    ) -> tuple[Keyring, str]:
        """This keyring with a new key, and the key's secret; raises SettingsError."""
        if name in self.keys:
            raise SettingsError(f"there is a key {name!r} already: remove it first, its secret can't be shown again")
        secret = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
        key = {"sha256": _digest(secret), "rate_per_s": rate_per_s, "priority": priority, "admin": admin}
        return _checked({**self.model_dump()["keys"], name: key}, "key"), secret

    def removed(self, name: str) -> Keyring:
        """This keyring without a key; raises SettingsError where there is none."""
        if name not in self.keys:
            raise SettingsError(f"there is no key {name!r}; there are {', '.join(self.keys) or 'none'}")
        return Keyring(keys={each: key for each, key in self.keys.items() if each != name})


def read_keyring(path: Path) -> Keyring:
    """The keyring in a file; raises SettingsError that names file, key and field."""
    try:
        known = tomllib.loads(path.read_text())
    except (OSError, ValueError) as wrong:
        raise SettingsError(f"{path}: {wrong}") from None
    if extra := set(known) - {"keys"}:
        raise SettingsError(f"{path}: unknown table {', '.join(sorted(extra))}; keys are [keys.<name>]")
    return _checked(known.get("keys", {}), str(path))


def write_keyring(path: Path, keyring: Keyring) -> None:
    """Write the file, whole or not at all; raises SettingsError."""
    try:
        write_text(path, "\n".join(_table(name, key) for name, key in keyring.keys.items()))
    except OSError as wrong:
        raise SettingsError(str(wrong)) from None


def _table(name: str, key: Key) -> str:
    rate = "" if key.rate_per_s is None else f"rate_per_s = {key.rate_per_s}\n"
    rest = f"priority = {key.priority}\nadmin = {str(key.admin).lower()}\n"
    return f'[keys."{name}"]\nsha256 = "{key.sha256}"\n{rate}{rest}'


def _checked(keys: object, source: str) -> Keyring:
    try:
        return Keyring.model_validate({"keys": keys})
    except ValidationError as wrong:
        first = wrong.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "[key]")
        raise SettingsError(f"{source}: {place}: {first['msg']}") from None


def _digest(secret: str) -> str:
    return sha256(secret.encode(errors="surrogatepass")).hexdigest()
