"""Prompts as jobs: publish one, ask how it stands, follow it, fetch its picture, cancel it.

With keys a job is known to the key that published it and to admins; to all others it is none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, get_args

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from services.gateway.callers import Caller, Known, caller
from services.gateway.desk import Desk
from services.gateway.errors import RESPONSES, ApiError
from services.gateway.pictures import PictureFormat, converted
from services.gateway.requests import Wish
from services.gateway.series import IdempotencyKey, Series, Traceparent
from services.gateway.streams import event_stream, message
from shared.lookup import Look, State
from shared.schema import QUEUE_SHOWN, Stage
from shared.wire import ID_LIMIT

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=RESPONSES, dependencies=[Depends(caller)])

PICTURE: Final = "image/webp"
JobId = Annotated[str, Path(min_length=1, max_length=ID_LIMIT, description="the job's id")]


class Accepted(BaseModel):
    """A job that was taken in."""

    id: str
    state: State = Field(description="open; or how it ended, where the same job was asked for before")
    deadline: float | None = Field(description="seconds since 1970; null where the job was known already")


class Passage(BaseModel):
    """One passage of a job through a stage; times are seconds since 1970."""

    stage: Stage
    worker: str
    started: float
    finished: float
    batch: int
    score: float | None = None


class JobState(BaseModel):
    """How a job stands; times are seconds since 1970."""

    id: str
    state: State
    stage: Stage = Field(description="where it is, or was last")
    position: int | None = Field(
        description=f"its place in the queue, 1 is next; {QUEUE_SHOWN + 1}: there or behind; null: it does not wait"
    )
    prompt: str
    priority: int
    published: float
    deadline: float
    finished: float | None
    why: str = Field(description="why it ended as it did, in a word")
    reason: str = Field(description="what went wrong, in words")
    score: float | None = Field(description="of the light picture, in [0, 1]")
    attempts: int = Field(description="how often drawing it alone went wrong")
    upgraded: bool = Field(description="whether the heavy picture came after the light one had been the answer")
    visits: list[Passage]

    @classmethod
    def of(cls, look: Look) -> JobState:
        """What is shown of a prompt."""
        return cls(
            id=look.id,
            state=look.state,
            stage=look.stage,
            position=None if look.waiting is None else look.waiting + 1,
            prompt=look.prompt,
            priority=look.priority,
            published=look.published,
            deadline=look.deadline,
            finished=look.finished or None,
            why=look.why,
            reason=look.reason,
            score=look.score,
            attempts=look.attempts,
            upgraded=look.upgraded,
            visits=[Passage.model_validate(visit, from_attributes=True) for visit in look.visits],
        )


def desk_of(request: Request) -> Desk:
    """The desk of the application that answers."""
    desk: Desk = request.app.state.desk
    return desk


TheDesk = Annotated[Desk, Depends(desk_of)]


@router.post("", status_code=202, summary="Publish a prompt")
async def create(
    wish: Wish,
    desk: TheDesk,
    known_caller: Known,
    idempotency_key: IdempotencyKey = None,
    traceparent: Traceparent = None,
) -> Accepted:
    """Take a prompt in; it is drawn while you ask for it, follow it, or do something else."""
    series = Series(desk, wish, known_caller, idempotency_key, traceparent)
    (receipt,) = await series.publish()
    if receipt.status == "published":
        return Accepted(id=receipt.id, state="open", deadline=receipt.deadline)
    look = await known(desk, receipt.id, known_caller)
    return Accepted(id=look.id, state=look.state, deadline=look.deadline)


@router.get("/{job_id}", summary="How a job stands")
async def show(job_id: JobId, desk: TheDesk, known_caller: Known) -> JobState:
    """State, place in the queue, history, score, and why it ended as it did."""
    return JobState.of(await known(desk, job_id, known_caller))


async def known(desk: Desk, job_id: str, known_caller: Caller) -> Look:
    """The job as it stands; raises 404 where nobody knows it, its record has run out, or it is another's."""
    look = await desk.look(job_id)
    if look is None or not known_caller.owns(look.user):  # a stranger shall not learn which ids there are
        raise ApiError(404, f"there is no job {job_id!r}, or its record has run out", code="not_found")
    return look


@router.get(
    "/{job_id}/events",
    summary="Follow a job",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "light, settled, upgraded"},
    },
)
async def events(job_id: JobId, desk: TheDesk, known_caller: Known) -> StreamingResponse:
    """Server-sent events, from what has already happened to the end: `light`, `settled`, `upgraded`.

    The stream ends with the job, that is at `settled`. A heavy picture that comes later does not change how it ended:
    a stream that is opened after it tells `upgraded`, and `GET /v1/jobs/{id}` does.
    """
    await known(desk, job_id, known_caller)
    return event_stream(_told(desk, job_id))


async def _told(desk: Desk, job_id: str) -> AsyncIterator[bytes]:
    async for event in desk.follow(job_id):
        data: dict[str, Any] = {"id": event.id, "score": event.score}
        if event.end is not None:
            data |= {"state": event.end, "why": event.why}
        yield message(event.kind, data)


@router.get(
    "/{job_id}/image",
    summary="A job's picture",
    response_class=Response,
    responses={200: {"content": {f"image/{form}": {} for form in get_args(PictureFormat)}}},
)
async def image(
    job_id: JobId, desk: TheDesk, known_caller: Known, stage: Stage | None = None, output_format: PictureFormat = "webp"
) -> Response:
    """The picture of a stage, or the best there is; as it was drawn, which is a webp, or made into another kind."""
    await known(desk, job_id, known_caller)
    picture = await desk.picture(job_id, stage)
    if not picture:
        raise ApiError(404, f"there is no {stage or ''} picture of job {job_id!r}".replace("  ", " "), code="not_found")
    encoded = await converted(picture, output_format)
    return Response(encoded, media_type=f"image/{output_format}", headers={"Cache-Control": "private, no-cache"})


@router.delete("/{job_id}", summary="Cancel a job")
async def cancel(job_id: JobId, desk: TheDesk, known_caller: Known) -> Accepted:
    """End an open job: a queued one at once; of one that is being drawn the result is void at once."""
    look = await known(desk, job_id, known_caller)
    done = await desk.cancel(job_id)
    if not done.done:
        raise ApiError(409, f"job {job_id!r} has ended already: {done.state}", code="ended", again=False)
    return Accepted(id=job_id, state="cancelled", deadline=look.deadline)
