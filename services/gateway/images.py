"""OpenAI's images API: POST /v1/images/generations, whole or as a stream, and GET /v1/models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from fastapi import APIRouter, Request, Response

from services.gateway.answers import Model, Models, Pictures
from services.gateway.callers import Known
from services.gateway.desk import Desk
from services.gateway.errors import RESPONSES, ApiError
from services.gateway.reply import Reply
from services.gateway.requests import ImageRequest
from services.gateway.series import IdempotencyKey, Series, Traceparent
from services.gateway.streams import event_stream

router = APIRouter(prefix="/v1", tags=["images"], responses=RESPONSES)

EVENT: Final = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"enum": ["image_generation.partial_image", "image_generation.completed", "error"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
CLIENT_GONE: Final = 499  # nobody reads this answer; it is for the log


@router.post(
    "/images/generations",
    summary="Draw pictures",
    response_model=Pictures,
    responses={200: {"content": {"text/event-stream": {"schema": EVENT}}}},
)
async def generate(
    wish: ImageRequest,
    request: Request,
    caller: Known,
    idempotency_key: IdempotencyKey = None,
    traceparent: Traceparent = None,
) -> Response:
    """Draw `n` pictures of a prompt; with `stream` the light one as soon as it is there, then the final one."""
    desk: Desk = request.app.state.desk
    if wish.stream and wish.response_format == "url":
        raise ApiError(422, "a stream carries pictures, not addresses", param="response_format", code="url_of_stream")
    series = Series(desk, wish, caller, idempotency_key, traceparent)
    return await _unless_gone(request, Reply(wish, series, desk, str(request.base_url)))


async def _unless_gone(request: Request, reply: Reply) -> Response:
    """The answer to a request, which is given up when the client goes away."""
    work = asyncio.create_task(_answered(reply))
    gone = asyncio.create_task(_hung_up(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
    finally:
        gone.cancel()
        if not work.done():
            work.cancel()
            reply.series.give_up_soon()
    return Response(status_code=CLIENT_GONE)


async def _answered(reply: Reply) -> Response:
    await reply.series.publish()
    if not reply.wish.stream:
        return await reply.whole()
    # Until something has happened, what goes wrong still has a status of its own.
    events = reply.streamed()
    first = await anext(events)
    return event_stream(_chained(first, events))


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for each in rest:
        yield each


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@router.get("/models", summary="What can be asked for")
async def models(request: Request, _: Known) -> Models:
    """The cascade of this deployment."""
    return Models(data=[Model.of(request.app.state.desk.cascade)])


@router.get("/models/{model}", summary="One of them")
async def model(model: str, request: Request, _: Known) -> Model:
    """A cascade by its name."""
    known = Model.of(request.app.state.desk.cascade)
    if model != known.id:
        raise ApiError(404, f"there is no model {model!r} here; there is {known.id!r}", code="model_not_found")
    return known
