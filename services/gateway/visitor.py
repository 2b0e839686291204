"""Who looks at the dashboard: known by the key given on its login page, anybody where there is no keyring.

A browser keeps a token and not the key; tokens hold as long as this process.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from services.gateway.callers import Caller, Gatekeeper
from services.gateway.errors import ApiError
from services.gateway.plain import login

PLACE: Final = "/login"
COOKIE: Final = "dashboard"
MOST: Final = 1_000  # tokens remembered, the newest
LONGEST: Final = 1_024  # bytes of what is sent from the login page


class Visitor:
    """Who has an open page."""

    def __init__(self, gatekeeper: Gatekeeper, secret: str | None) -> None:
        self._gatekeeper = gatekeeper
        self._secret = secret

    def caller(self) -> Caller:
        """Who this is just now; raises ApiError 401 where a key is needed, or the one given was removed."""
        return self._gatekeeper.recognise(self._secret)

    @property
    def may_look(self) -> bool:
        """Whether the page may be shown."""
        try:
            self.caller()
        except ApiError:
            return False
        return True

    @property
    def sees_all(self) -> bool:
        """Whether the prompts of others may be shown too."""
        return self.may_look and self.caller().owns("")


class Visitors:
    """Knows visitors by their tokens."""

    def __init__(self, gatekeeper: Gatekeeper) -> None:
        self._gatekeeper = gatekeeper
        self._secrets: dict[str, str] = {}

    def of(self, cookies: Mapping[str, str]) -> Visitor:
        """Who sends these cookies."""
        return Visitor(self._gatekeeper, self._secrets.get(cookies.get(COOKIE, "")))

    def enter(self, secret: str) -> str:
        """A token for who has a key; raises ApiError 401 where nobody has it."""
        self._gatekeeper.recognise(secret)
        token = secrets.token_urlsafe(32)
        self._secrets[token] = secret
        while len(self._secrets) > MOST:
            self._secrets.pop(next(iter(self._secrets)))
        return token


def install(app: FastAPI, visitors: Visitors) -> None:
    """Serve the login page."""
    app.state.visitors = visitors
    app.get(PLACE, include_in_schema=False)(ask)
    app.post(PLACE, include_in_schema=False)(enter)


async def ask() -> Response:
    """The login page."""
    return login()


async def enter(request: Request) -> Response:
    """Take a key; then the dashboard, or the login page again."""
    visitors: Visitors = request.app.state.visitors
    given = parse_qs(await _sent(request)).get("key", [""])[0]
    try:
        token = visitors.enter(given.strip())
    except ApiError as wrong:
        return login(wrong.detail)
    answer = RedirectResponse("/", 303)
    answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=request.url.scheme == "https")
    return answer


async def _sent(request: Request) -> str:
    found = b""
    async for part in request.stream():
        found += part
        if len(found) > LONGEST:
            raise ApiError(413, f"this is no key: it has more than {LONGEST} bytes", code="request_too_large")
    return found.decode(errors="replace")
