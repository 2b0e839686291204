"""One request for pictures on its way: its prompts, and what is answered, whole or as a stream."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Response

from services.gateway.answers import Picture, Pictures, Usage
from services.gateway.desk import Desk
from services.gateway.errors import ApiError, unavailable
from services.gateway.following import Event
from services.gateway.pictures import converted
from services.gateway.requests import ImageRequest
from services.gateway.series import Series
from services.gateway.streams import message
from shared.connection import CommandRefused, Unreachable
from shared.schema import Stage

TROUBLE: Final = (ApiError, CommandRefused, *Unreachable)


@dataclass(frozen=True, slots=True)
class Reply:
    """One request on its way: what is wished for, and its prompts."""

    wish: ImageRequest
    series: Series
    desk: Desk
    base: str

    async def whole(self) -> Response:
        """The answer when all pictures are there."""
        ends = {place: event async for place, event in self.series.events() if event.kind == "settled"}
        data = await asyncio.gather(*(self._picture(place, ends[place]) for place in sorted(ends)))
        wish = self.wish
        answer = Pictures(
            created=int(time.time()),
            data=data,
            output_format=wish.picture_format,
            quality=None if wish.quality == "auto" else wish.quality,
            size=wish.drawn_size(self.desk.cascade, data[0].stage),
        )
        return Response(answer.model_dump_json(), media_type="application/json")

    async def _picture(self, place: int, event: Event) -> Picture:
        job, stage = self.series.jobs[place], _drawn_by(event)
        given: dict[str, str] = {}
        if self.wish.response_format == "url":
            form = self.wish.picture_format
            given["url"] = f"{self.base}v1/jobs/{job.id}/image?stage={stage}&output_format={form}"
        else:
            given["b64_json"] = await self.encoded(job.id, stage)
        return Picture(**given, id=job.id, seed=job.seed, stage=stage, why=event.why)

    async def encoded(self, prompt_id: str, stage: Stage) -> str:
        """A picture in the format wished for, as text; raises ApiError 410 where it is gone, or is none."""
        drawn = await self.desk.picture(prompt_id, stage)
        if not drawn:
            text = f"the picture of {prompt_id} is not kept any more, or the backend draws none"
            raise ApiError(410, text, code="picture_gone")
        form, compression = self.wish.picture_format, self.wish.output_compression
        return b64encode(await converted(drawn, form, compression)).decode()

    async def streamed(self) -> AsyncIterator[bytes]:
        """Server-sent events as OpenAI's clients read them; one that fails later than the first is an event, too."""
        begun = False
        try:
            async for place, event in self.series.events():
                if event.kind == "settled":
                    yield await self._told(place, event, "image_generation.completed", usage=Usage().model_dump())
                    begun = True
                elif event.kind == "light" and (partial := await self._partial(place, event)):
                    yield partial
                    begun = True
        except TROUBLE as wrong:
            if not begun:
                raise
            said = wrong if isinstance(wrong, ApiError) else unavailable(wrong)
            yield message("error", {"type": "error", **said.body})

    async def _partial(self, place: int, event: Event) -> bytes | None:
        """The light picture while the heavy one is drawn; None where it can't be had, or nobody wants it."""
        if self.wish.partial_images == 0:
            return None
        try:
            return await self._told(place, event, "image_generation.partial_image", partial_image_index=0)
        except TROUBLE:  # it is a foretaste: the final picture is still to come
            return None

    async def _told(self, place: int, event: Event, kind: str, **more: object) -> bytes:
        job, stage = self.series.jobs[place], _drawn_by(event)
        about: dict[str, Any] = {
            "type": kind,
            "b64_json": await self.encoded(job.id, stage),
            "background": "opaque",
            "created_at": int(time.time()),
            "output_format": self.wish.picture_format,
            "quality": self.wish.quality or "auto",
            "size": self.wish.drawn_size(self.desk.cascade, stage),
            "image_index": place,
            "id": job.id,
            "seed": job.seed,
            "stage": stage,
            "why": event.why,
        }
        return message(kind, about | more)


def _drawn_by(event: Event) -> Stage:
    return "heavy" if event.end == "heavy" else "light"
