"""Addresses of Redis, taken apart; `connection.py` says what they look like."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

SENTINEL_PORT: Final = 26379


def without_secrets(url: str) -> str:
    """The address as it may be shown: no user, no password, no query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def first_alone(url: str) -> str:
    """The address as if it named its first host only, for `parse_url` knows no list of sentinels."""
    scheme, found, rest = url.partition("+sentinel://")
    if not found:
        return url
    user, at, hosts = urlsplit(url).netloc.rpartition("@")
    return f"{scheme}://" + rest.replace(f"{user}{at}{hosts}", f"{user}{at}{hosts.partition(',')[0]}", 1)


def host_of(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    return parts.hostname or "127.0.0.1", parts.port or SENTINEL_PORT


def with_password(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the password read from the file that they name, if they do."""
    known = dict(options)
    file = known.pop("password_file", None)
    return known if file is None else known | {"password": Path(file).read_text().strip()}
