"""Pictures for the dashboard: an <img> can't send a key, so each address holds a sign that only a page was given.

Signs hold for one picture, and as long as this process: they say nothing about any other prompt.
"""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import FastAPI, Query, Request, Response

from services.gateway.desk import Desk
from services.gateway.jobs import PICTURE
from shared.schema import Stage
from shared.wire import ID_LIMIT

PLACE: Final = "/pictures"
SIGN: Final = 32  # hexadecimal digits
# A picture never changes; one that is gone may still be drawn (upgraded).
KEEP: Final = {"Cache-Control": "private, max-age=3600, immutable"}
ASK_AGAIN: Final = {"Cache-Control": "no-store"}
# In place of a picture that nobody has: a page full of broken images would look like a broken page.
NONE: Final = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 128 128"><rect width="128" height="128"
fill="#8884"/><text x="64" y="67" font-family="sans-serif" font-size="10" text-anchor="middle"
fill="#888">not kept</text></svg>"""


class Gallery:
    """Makes addresses of pictures and knows its own again."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def address(self, prompt_id: str, stage: Stage) -> str:
        """Where a page finds a picture."""
        return f"{PLACE}?{urlencode({'id': prompt_id, 'stage': stage, 'sign': self._sign(prompt_id, stage)})}"

    def knows(self, prompt_id: str, stage: Stage, sign: str) -> bool:
        """Whether this gallery gave the address away."""
        return hmac.compare_digest(self._sign(prompt_id, stage).encode(), sign.encode())

    def _sign(self, prompt_id: str, stage: Stage) -> str:
        return hmac.new(self._secret, f"{stage}:{prompt_id}".encode(), sha256).hexdigest()[:SIGN]


def install(app: FastAPI, gallery: Gallery) -> None:
    """Let the application serve the gallery's pictures."""
    app.state.gallery = gallery
    app.get(PLACE, include_in_schema=False)(picture)


async def picture(
    request: Request,
    prompt_id: Annotated[str, Query(alias="id", max_length=ID_LIMIT)],
    stage: Stage,
    sign: Annotated[str, Query(max_length=SIGN)],
) -> Response:
    """A picture that a page was given the address of; 403 for any other."""
    gallery: Gallery = request.app.state.gallery
    desk: Desk = request.app.state.desk
    if not gallery.knows(prompt_id, stage, sign):
        return Response("this address was not given away here", 403)
    found = await desk.picture(prompt_id, stage)
    if not found:
        return Response(NONE, media_type="image/svg+xml", headers=ASK_AGAIN)
    return Response(found, media_type=PICTURE, headers=KEEP)
