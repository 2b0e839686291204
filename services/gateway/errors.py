"""Every error of the gateway in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.

400  no JSON, or a prompt that the safety rules keep from being drawn (code moderation_blocked)
401  no key, or one that nobody has        403  what this key may not do
404  nothing of that name                  405  not with this method
409  the prompt was cancelled; or an Idempotency-Key whose first request can't be compared now
410  its picture is not kept any more, or can't be read
413  too many bytes                        422  a field is wrong; `param` names it
429  too much at present, with Retry-After
500  the prompt failed, or the gateway did
503  no answer from Redis, too many requests are open here, or the gateway stops
504  no picture by the deadline
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Route, compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.connection import CommandRefused, Unreachable
from shared.errors import MalformedEntry
from shared.exchange import Receipt
from shared.messages import UNSAFE, End
from shared.wire import OFFER_LIMIT

# JSON writes what is no ASCII in up to six bytes for one or two, and a prompt may be as long as an offer.
BODY_LIMIT: Final = 4 * OFFER_LIMIT
API: Final = "/v1/"
MOST_OPEN: Final = 4_096  # requests at once, streams among them; so are the tasks of this process bounded
LIFE: Final = "/healthz"  # who asks it must not take a crowded gateway for a dead one
AWAY_RETRY_S: Final = 1.0
KINDS: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
REFUSALS: Final = {
    "deadline": "too many prompts wait: this one could not be drawn by its deadline",
    "allowance": "deadline_s is shorter than a batch takes, as planned now: no waiting helps",
    "memory": "the server's memory runs short: it takes no prompts until pictures have left",
    "busy": "too many requests arrive at once",
}
# By how a prompt ended without a picture: status, code, message.
ENDINGS: Final[Mapping[str, tuple[int, str, str]]] = {
    "dropped": (504, "deadline_missed", "no picture could be drawn by the deadline"),
    "failed": (500, "generation_failed", "the prompt could not be drawn"),
    "cancelled": (409, "cancelled", "the prompt was cancelled"),
}


class ErrorDetail(BaseModel):
    """What went wrong; `param`: the field that is to blame."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """An error as OpenAI's clients read it."""

    error: ErrorDetail


RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {"model": ErrorBody, "description": "the request can't be answered as it stands"},
    "5XX": {"model": ErrorBody, "description": "the servers could not answer it"},
}


class ApiError(HTTPException):
    """An answer other than the one hoped for. `again`: whether asking once more may help; OpenAI's clients obey."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        again: bool = True,
    ) -> None:
        headers = {} if retry_after_s is None else retry_headers(retry_after_s)
        headers |= {} if again else {"x-should-retry": "false"}
        headers |= {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        super().__init__(status, message, headers or None)
        self.code = code
        self.param = param

    @property
    def body(self) -> dict[str, Any]:
        """The error as it is written."""
        return _body(self.status_code, self.detail, self.code, self.param)


def retry_headers(retry_after_s: float) -> dict[str, str]:
    """When to come again: in whole seconds for everybody, in milliseconds for OpenAI's clients."""
    return {
        "Retry-After": str(max(1, math.ceil(retry_after_s))),
        "Retry-After-Ms": str(max(1, math.ceil(retry_after_s * 1000))),
    }


def refused(receipt: Receipt) -> ApiError:
    """What to say of a prompt that was refused at the door."""
    message = REFUSALS.get(receipt.why, "the prompt was refused")
    if receipt.why == "allowance":
        return ApiError(422, message, code="refused_allowance", param="deadline_s")
    return ApiError(429, message, code=f"refused_{receipt.why}", retry_after_s=receipt.retry_after_s)


def unanswered(end: End, why: str, reason: str) -> ApiError:
    """What to say of a prompt that ended without a picture; `reason`: in words, may be empty."""
    if why == UNSAFE:
        return ApiError(400, reason or "the prompt was blocked by the safety rules", code="moderation_blocked")
    status, code, message = ENDINGS[end]
    return ApiError(status, f"{message} ({why})" + (f": {reason}" if reason else ""), code=code, again=False)


def unavailable(error: Exception) -> ApiError:
    """What to say when Redis is away, or refuses a command."""
    return ApiError(503, f"Redis gives no answer: {error}", code="unavailable", retry_after_s=AWAY_RETRY_S)


def install(app: FastAPI) -> None:
    """Let the whole application answer in this shape; after all its routes are there."""
    app.add_exception_handler(HTTPException, _said)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(MalformedEntry, _malformed)
    for away in (*Unreachable, CommandRefused):
        app.add_exception_handler(away, _away)
    app.add_exception_handler(Exception, _unforeseen)
    app.add_middleware(LimitedBody)
    app.add_middleware(LimitedCrowd)
    app.router.routes.append(Route(API + "{rest:path}", Unmatched(app), include_in_schema=False))


class LimitedBody:
    """Reads no more than BODY_LIMIT of a request to the API, and answers 413 to a larger one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or not scope["path"].startswith(API):
            await self._app(scope, receive, send)
            return
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > BODY_LIMIT:
                text = f"the request has more than {BODY_LIMIT} bytes"
                raise ApiError(413, text, code="request_too_large")
            return message

        await self._app(scope, counted, send)


class LimitedCrowd:
    """Lets MOST_OPEN requests in at once, and answers 503 to more of them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope["path"] == LIFE:
            await self._app(scope, receive, send)
            return
        if self._open >= MOST_OPEN:
            text = "too many requests are open at this gateway"
            answer = _answer(ApiError(503, text, code="overloaded", retry_after_s=AWAY_RETRY_S))
            answer.headers["Connection"] = "close"
            await answer(scope, receive, send)
            return
        self._open += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._open -= 1


def _body(status: int, message: str, code: str | None, param: str | None) -> dict[str, Any]:
    kind = KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _answer(error: HTTPException) -> JSONResponse:
    known = error if isinstance(error, ApiError) else ApiError(error.status_code, str(error.detail))
    headers = {**(error.headers or {}), **(known.headers or {})}
    return JSONResponse(known.body, status_code=error.status_code, headers=headers)


async def _said(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _answer(error)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return _answer(ApiError(400, f"the body is no JSON: {first['ctx']['error']}", code="invalid_json"))
    param = ".".join(str(part) for part in first["loc"][1:]) or None
    message = first["msg"].removeprefix("Value error, ")
    return _answer(ApiError(422, f"{param or 'body'}: {message}", code=first["type"], param=param))


async def _malformed(_: Request, error: Exception) -> Response:
    return _answer(ApiError(422, str(error), code="malformed"))


async def _away(_: Request, error: Exception) -> Response:
    return _answer(unavailable(error))


async def _unforeseen(_: Request, error: Exception) -> Response:
    # The text may tell more than a stranger should know; the log has it.
    return _answer(ApiError(500, f"the gateway failed: {type(error).__name__}", code="internal_error", again=False))


class Unmatched:
    """Answers what no route takes: without it the page at / would, in HTML, and an Allow would name some methods."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, *_: object) -> None:
        """404, or 405 with all the methods of the path."""
        path, method = scope["path"], scope["method"]
        allowed = self._methods(path)
        if not allowed:
            raise ApiError(404, f"there is no {path}", code="not_found")
        raise HTTPException(405, f"{method} is not for {path}", {"Allow": ", ".join(sorted(allowed))})

    def _methods(self, path: str) -> set[str]:
        known: dict[str, dict[str, Any]] = self._app.openapi()["paths"]
        return {
            method.upper()
            for template, operations in known.items()
            if compile_path(template)[0].match(path)
            for method in operations
        }
