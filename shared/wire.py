"""Checks at the border: one function per kind of field; each raises ValueError with what is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgpack

VERSION: Final = "1.0"
PROMPT_LIMIT: Final = 4_000  # characters; longer prompts are malformed, no text encoder reads so far
FIELD_LIMIT: Final = 256  # thousands would overflow Lua's stack in every later hop
ROUTES: Final = ("cascade", "light", "heavy")
_MAJOR: Final = VERSION.split(".")[0].encode()
UNPACK_ERRORS: Final = (ValueError, TypeError, msgpack.UnpackException, RecursionError)


def read_parameters(packed: bytes | None) -> Mapping[str, Any]:
    if not packed:
        return {}
    parameters = msgpack.unpackb(packed)
    if not isinstance(parameters, dict):
        raise ValueError("parameters are no map")
    return parameters


def check_version(version: bytes) -> None:
    if version.split(b".", 1)[0] != _MAJOR:
        raise ValueError(f"unknown major version {version[:20]!r}")


def check_count(raw: Mapping[bytes, bytes]) -> None:
    if len(raw) > FIELD_LIMIT:
        raise ValueError(f"{len(raw)} fields, {FIELD_LIMIT} are allowed")


def read_prompt(text: bytes) -> str:
    prompt = text.decode()
    if not prompt.strip():
        raise ValueError("the prompt is empty")
    if len(prompt) > PROMPT_LIMIT:
        raise ValueError(f"the prompt has {len(prompt)} characters, {PROMPT_LIMIT} are allowed")
    return prompt


def read_route(text: bytes) -> str:
    route = text.decode()
    if route not in ROUTES:
        raise ValueError(f"unknown route {route[:20]!r}")
    return route


def finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError(f"{number} is no time")
    return number


def read_seconds(text: bytes) -> float:
    return finite(float(text))


def integer_or(text: bytes | None, default: int) -> int:
    try:
        return int(text) if text is not None else default
    except ValueError:
        return default
