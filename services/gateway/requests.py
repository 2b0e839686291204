"""What may be asked for: the bodies of requests, and the prompts that they become."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from services.gateway.callers import Caller
from services.gateway.errors import ApiError
from services.gateway.pictures import PictureFormat
from shared.asked import objection
from shared.catalog import Cascade
from shared.messages import USER, Job, Route
from shared.schema import BATCH, NORMAL, URGENT, Stage
from shared.sizes import AUTO, SIZE
from shared.wire import GUIDANCE, LONGEST_S, PROMPT_LIMIT, STEPS, check_prompt

Quality = Literal["auto", "low", "medium", "high"]
ROUTES: Final[Mapping[Quality, Route]] = {"low": "light", "high": "heavy", "medium": "cascade", "auto": "cascade"}
MOST_PICTURES: Final = 10
LONGEST_NAME: Final = 200
SEED_LIMIT: Final = 2**63
SEED_DRAWN_BELOW: Final = 2**31  # of a seed that nobody gave: every program can hold it, and people can type it


def _drawable(prompt: str) -> str:
    check_prompt(prompt)
    return prompt


class Wish(BaseModel):
    """A prompt, and how it is to be drawn."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: Annotated[str, AfterValidator(_drawable)] = Field(
        min_length=1, max_length=PROMPT_LIMIT, description="what to draw", examples=["a small red circle"]
    )
    model: str | None = Field(None, max_length=LONGEST_NAME, description="the cascade, as GET /v1/models names it")
    size: str | None = Field(
        AUTO, max_length=20, description="<width>x<height> out of the catalogue, or auto", examples=[AUTO]
    )
    quality: Quality | None = Field(
        "auto", description="low: the light model alone; high: straight to the heavy one; medium and auto: the cascade"
    )
    steps: Annotated[int, Field(ge=STEPS[0], le=STEPS[1])] | None = Field(
        None, description="out of the catalogue; a model that may not be asked for so many draws with its own"
    )
    guidance: Annotated[float, Field(ge=GUIDANCE[0], le=GUIDANCE[1])] | None = Field(
        None, description="likewise", allow_inf_nan=False
    )
    seed: int | None = Field(None, ge=0, lt=SEED_LIMIT, description="the same seed draws the same picture")
    deadline_s: float | None = Field(
        None, gt=0, le=LONGEST_S, allow_inf_nan=False, description="seconds to be promised a picture within"
    )
    priority: Annotated[int, Field(ge=URGENT, le=BATCH)] | None = Field(
        None, description=f"class: {URGENT} urgent, {NORMAL} normal, {BATCH} batch; default: the key's"
    )
    user: str | None = Field(None, max_length=LONGEST_NAME, description="whom you ask for; it is kept with the outcome")

    def jobs(
        self, ids: Sequence[str], caller: Caller, cascade: Cascade, extra: Mapping[bytes, bytes] | None = None
    ) -> list[Job]:
        """A prompt for each id, with seeds that follow each other; `extra`: what else is to travel with each.

        Raises ApiError that names the field: 404 another model, 422 what is not drawn here, 403 too urgent a class.
        """
        if self.model not in (None, cascade.name):
            message = f"there is no model {self.model!r} here; there is {cascade.name!r}"
            raise ApiError(404, message, code="model_not_found", param="model")
        seed = seed_of(ids[0]) if self.seed is None else self.seed
        asked = {SIZE: self.picture_size(cascade), "steps": self.steps, "guidance": self.guidance}
        signature = caller.signature(self.user)
        jobs = [
            Job(
                id=prompt_id,
                prompt=self.prompt,
                published=0.0,
                deadline=0.0,
                seed=seed + place,
                route=self.route,
                priority=caller.urgency(self.priority),
                parameters={name: value for name, value in asked.items() if value is not None},
                extra={**(extra or {}), **({USER: signature.encode()} if signature else {})},
            )
            for place, prompt_id in enumerate(ids)
        ]
        if found := objection(cascade, jobs[0]):
            raise ApiError(422, f"{found[0]}: {found[1]}", param=found[0], code=found[0])
        return jobs

    @property
    def route(self) -> Route:
        """Where the prompt starts."""
        return ROUTES[self.quality or "auto"]

    def picture_size(self, cascade: Cascade) -> str | None:
        """The size asked for, None for the model's own; raises ApiError 422 where it is not in the catalogue."""
        if self.size in (None, AUTO):
            return None
        allowed = cascade.sizes_of(self.route)
        if self.size not in allowed:
            known = ", ".join([AUTO, *allowed])
            raise ApiError(422, f"size: {self.size!r} is not drawn here; there are {known}", param="size", code="size")
        return self.size

    def drawn_size(self, cascade: Cascade, stage: Stage) -> str:
        """The size of the picture that a stage drew."""
        own = cascade.models[stage].size
        return self.picture_size(cascade) or f"{own}x{own}"

    @property
    def count(self) -> int:
        """How many pictures."""
        return 1

    def fingerprint(self) -> str:
        """The same for requests that ask for the same."""
        return sha256(self.model_dump_json().encode()).hexdigest()[:32]


class ImageRequest(Wish):
    """The body of POST /v1/images/generations, as OpenAI's clients send it."""

    n: int | None = Field(1, ge=1, le=MOST_PICTURES, description="how many pictures, each with the next seed")
    response_format: Literal["b64_json", "url"] | None = Field(
        "b64_json", description="url: an address of this gateway, which wants the same key"
    )
    output_format: PictureFormat | None = Field(
        "webp", description="webp comes as it was drawn; the others are made from it"
    )
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = Field(
        None, description="quality of a webp or jpeg, made from the picture that was drawn"
    )
    stream: bool | None = Field(False, description="server-sent events: the light picture, then the final one")
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = Field(
        None, description="of a stream; 0: the final picture alone"
    )
    background: Literal["opaque", "auto"] | None = Field(None, description="pictures are opaque")
    moderation: Literal["low", "auto"] | None = Field(None, description="the catalogue's rules hold in any case")
    safety_identifier: str | None = Field(None, max_length=LONGEST_NAME, description="as user")

    @property
    def count(self) -> int:
        """How many pictures."""
        return self.n or 1

    @property
    def picture_format(self) -> PictureFormat:
        """How the pictures are encoded."""
        return self.output_format or "webp"


def seed_of(prompt_id: str) -> int:
    """The seed of a prompt that came without one: another for each id, the same whenever the id comes again."""
    return int.from_bytes(sha256(prompt_id.encode()).digest()[:8]) % SEED_DRAWN_BELOW


def request_id(caller: Caller, idempotency_key: str | None) -> str:
    """An id that nobody has; for an Idempotency-Key the same at every gateway, for this caller alone."""
    if idempotency_key is None:
        return uuid.uuid4().hex
    return "k-" + sha256(f"{caller.identity}\n{idempotency_key}".encode()).hexdigest()[:40]
