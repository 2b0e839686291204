"""What the images API answers, as OpenAI's clients read it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from shared.catalog import TABLES, Cascade
from shared.schema import Stage


class Picture(BaseModel):
    """One picture; `stage`: which model drew it, `why`: it is the answer."""

    b64_json: str | None = None
    url: str | None = None
    id: str
    seed: int
    stage: Stage
    why: str = ""


class Usage(BaseModel):
    """OpenAI's clients look for tokens; nothing is counted in tokens here."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    input_tokens_details: dict[str, int] = {"image_tokens": 0, "text_tokens": 0}


class Pictures(BaseModel):
    """The answer of POST /v1/images/generations; `created`: seconds since 1970."""

    created: int
    data: list[Picture]
    background: Literal["opaque"] = "opaque"
    output_format: str
    quality: str | None = None
    size: str
    usage: Usage = Usage()


class Model(BaseModel):
    """A cascade as OpenAI's clients list models; `created`: when the catalogue was written."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "catalogue"
    light: str
    heavy: str
    sizes: list[str]
    deadline_s: float

    @classmethod
    def of(cls, cascade: Cascade) -> Model:
        """What is listed of a cascade."""
        return cls(
            id=cascade.name,
            created=int((TABLES / "catalog.toml").stat().st_mtime),
            light=cascade.models["light"].name,
            heavy=cascade.models["heavy"].name,
            sizes=list(cascade.sizes),
            deadline_s=cascade.deadline_s,
        )


class Models(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[Model]
