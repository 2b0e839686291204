"""Checks at the border: one function per kind of field; each raises ValueError with what is wrong.

The limits hold at every door and again for whatever is read out of Redis, where nobody knows who wrote it.
Unpacking builds plain values only, and no length is believed before the bytes are there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

import msgpack

from shared.errors import MalformedEntry, NewerEntry
from shared.schema import CLASSES, MAJOR, MESSAGE_LIMIT, OLDEST_MAJOR

PROMPT_LIMIT: Final = 4_000  # characters; longer prompts are malformed, no text encoder reads so far
ID_LIMIT: Final = 200  # characters; an id is a part of keys and of file names
FIELD_LIMIT: Final = 256  # thousands would overflow Lua's stack in every later hop
OFFER_LIMIT: Final = 48 * 1024  # ... at the door: an entry grows by its visits
PACKED_LIMIT: Final = 16 * 1024  # bytes of packed parameters or visits
NAME_LIMIT: Final = 64  # characters of a parameter's name
ITEM_LIMIT: Final = 64  # visits of a prompt, and parameters
DIGITS: Final = 30  # of a whole number; seeds of more bits than a generator takes are folded where it is fed
LATEST: Final = 1e11  # seconds of the clock; a deadline beyond would keep a prompt open for ever
LONGEST_S: Final = 7 * 86_400.0  # that a prompt may be promised within
SIDES: Final = (64, 2048)  # pixels of a picture's side, in steps of SIDE_STEP
SIDE_STEP: Final = 8
STEPS: Final = (1, 150)
GUIDANCE: Final = (0.0, 50.0)
ROUTES: Final = ("cascade", "light", "heavy")
_ROUTES: Final = {route.encode(): route for route in ROUTES}
_CLASSES: Final = {str(each).encode(): each for each in CLASSES}
_MAJOR: Final = str(MAJOR).encode()
_MAJOR_DIGITS: Final = 3
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # all but tab and the ends of lines
_CONTROL_OR_BREAK: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
UNPACK_ERRORS: Final = (ValueError, TypeError, msgpack.UnpackException, RecursionError)


def unpack(packed: bytes) -> Any:
    """Plain values out of msgpack, within PACKED_LIMIT; no extension types, no keys but text."""
    if len(packed) > PACKED_LIMIT:
        raise ValueError(f"{len(packed)} packed bytes, {PACKED_LIMIT} are allowed")
    limits = dict.fromkeys(("max_str_len", "max_bin_len", "max_array_len", "max_map_len"), len(packed))
    return msgpack.unpackb(packed, max_ext_len=0, strict_map_key=True, **limits)


def read_parameters(packed: bytes | None) -> Mapping[str, Any]:
    if not packed:
        return {}
    parameters = unpack(packed)
    if not isinstance(parameters, dict):
        raise ValueError("parameters are no map")
    check_parameters(parameters)
    return parameters


def check_parameters(parameters: Mapping[Any, Any]) -> None:
    if len(parameters) > ITEM_LIMIT:
        raise ValueError(f"{len(parameters)} parameters, {ITEM_LIMIT} are allowed")
    for name in parameters:
        if not isinstance(name, str) or len(name) > NAME_LIMIT:
            raise ValueError(f"no name of a parameter: {name!r}"[:120])
    for name, bounds in _BOUNDS.items():
        if name in parameters:
            _check_bounds(name, parameters[name], bounds)
    for name in ("width", "height"):
        if parameters.get(name, 0) % SIDE_STEP:
            raise ValueError(f"{name} is {parameters[name]}; it must be a multiple of {SIDE_STEP}")


_BOUNDS: Final[Mapping[str, tuple[float, float]]] = {
    "width": SIDES,
    "height": SIDES,
    "steps": STEPS,
    "guidance": GUIDANCE,
}


def _check_bounds(name: str, value: object, bounds: tuple[float, float]) -> None:
    kinds = int if isinstance(bounds[0], int) else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not bounds[0] <= value <= bounds[1]:
        raise ValueError(f"{name} is {value!r}"[:80] + f"; it must be from {bounds[0]} to {bounds[1]}")


def check_version(raw: Mapping[bytes, bytes]) -> None:
    """Raise NewerEntry where the message's major version came after ours, ValueError where nobody reads it any more."""
    version = raw.get(b"version", _MAJOR)
    text = version.split(b".", 1)[0]
    if text == _MAJOR:
        return
    major = int(text) if text.isdigit() and len(text) <= _MAJOR_DIGITS else 0
    if major > MAJOR:
        raise NewerEntry(f"version {version[:20].decode(errors='replace')} is read by newer workers only", raw, major)
    if major < OLDEST_MAJOR:
        raise ValueError(f"unknown major version {version[:20]!r}")


def check_size(raw: Mapping[bytes, bytes], limit: int = MESSAGE_LIMIT) -> None:
    if len(raw) > FIELD_LIMIT:
        raise ValueError(f"{len(raw)} fields, {FIELD_LIMIT} are allowed")
    size = len(b"".join(raw)) + len(b"".join(raw.values()))
    if size > limit:
        raise ValueError(f"the message has {size} bytes, {limit} are allowed")


def read_id(text: bytes) -> str:
    prompt_id = text.decode()
    if len(prompt_id) > ID_LIMIT:
        raise ValueError(f"the id has {len(prompt_id)} characters, {ID_LIMIT} are allowed")
    if not prompt_id.isprintable() and _CONTROL_OR_BREAK.search(prompt_id):
        raise ValueError("the id holds a control character")
    return prompt_id


def read_prompt(text: bytes) -> str:
    prompt = text.decode()
    check_prompt(prompt)
    return prompt


def check_prompt(prompt: str) -> None:
    if not prompt.strip():
        raise ValueError("the prompt is empty")
    if len(prompt) > PROMPT_LIMIT:
        raise ValueError(f"the prompt has {len(prompt)} characters, {PROMPT_LIMIT} are allowed")
    if not prompt.isprintable() and (found := _CONTROL.search(prompt)):  # the first is quick, and nearly always true
        raise ValueError(f"the prompt holds the control character {found.group()!r} at {found.start()}")


def read_route(text: bytes) -> str:
    route = _ROUTES.get(text)
    if route is None:
        raise ValueError(f"unknown route {text[:20]!r}")
    return route


def read_integer(text: bytes) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"a whole number of {len(text)} digits, {DIGITS} are allowed")
    return int(text)


def read_priority(text: bytes) -> int:
    priority = _CLASSES.get(text)
    if priority is None:
        raise ValueError(f"unknown class {text[:20]!r}; there are {', '.join(map(str, CLASSES))}")
    return priority


def finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError(f"{number} is no time")
    return number


def read_seconds(text: bytes) -> float:
    time_s = finite(float(text))
    if not 0 <= time_s <= LATEST:
        raise ValueError(f"{time_s:g} is no time of the clock")
    return time_s


def integer_or(text: bytes | None, default: int) -> int:
    try:
        return int(text) if text is not None else default
    except ValueError:
        return default


def check_offer(wire: Mapping[str, str | bytes], parameters: Mapping[str, Any], allowance_s: float) -> None:
    """Raise MalformedEntry, with the fields, where a prompt at the door breaks a limit; `wire`: its entry's fields."""
    raw = {name.encode(): _bytes(value) for name, value in wire.items()}
    try:
        check_size(raw, OFFER_LIMIT)
        if not read_id(raw[b"id"]):
            raise ValueError("the prompt has no id")
        read_prompt(raw[b"prompt"])
        read_integer(raw.get(b"seed", b"0"))
        read_route(raw.get(b"route", b"cascade"))
        read_priority(raw.get(b"priority", b"1"))
        check_parameters(parameters)
        if len(raw.get(b"parameters", b"")) > PACKED_LIMIT:
            raise ValueError(f"the parameters are larger than {PACKED_LIMIT} bytes")
        if not 0 <= allowance_s <= LONGEST_S:
            raise ValueError(f"{allowance_s} s is no time to be promised a picture within")
    except UNPACK_ERRORS as wrong:
        raise MalformedEntry(str(wrong), raw) from None


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode(errors="surrogatepass")
