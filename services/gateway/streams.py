"""Server-sent events: an iterator's items as they come, and a sign of life while none comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, TypeVar

from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic_core import to_json

BEAT_S: Final = 15.0  # proxies close what is silent for a minute
# A proxy that gathers an answer before it passes it on would turn a stream into a wait.
HEADERS: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

T = TypeVar("T")


async def with_beats(items: AsyncIterator[T], beat_s: float = BEAT_S) -> AsyncIterator[T | None]:
    """The items as they come, and None whenever none came for `beat_s`."""
    coming = asyncio.ensure_future(anext(items))
    try:
        while True:
            done, _ = await asyncio.wait([coming], timeout=beat_s)
            if not done:
                yield None
                continue
            try:
                item = coming.result()
            except StopAsyncIteration:
                return
            yield item
            coming = asyncio.ensure_future(anext(items))
    finally:
        coming.cancel()


def message(name: str, data: Mapping[str, Any]) -> bytes:
    """One event on the wire, its data as JSON."""
    return format_sse_event(event=name, data_str=to_json(data).decode())


def event_stream(messages: AsyncIterator[bytes]) -> StreamingResponse:
    """An answer that goes on as long as `messages` does."""
    return StreamingResponse(_alive(messages), media_type="text/event-stream", headers=HEADERS)


async def _alive(messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for each in with_beats(messages):
        yield KEEPALIVE_COMMENT if each is None else each
