"""The form of the dashboard: a prompt is typed, its light picture appears, and then the heavy one."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Final

from nicegui import ui
from pydantic import ValidationError

from services.gateway.callers import Caller
from services.gateway.desk import Desk, Event
from services.gateway.errors import REFUSALS, ApiError, unanswered
from services.gateway.gallery import Gallery
from services.gateway.requests import Quality, Wish
from services.gateway.visitor import Visitor
from shared.connection import CommandRefused, Unreachable
from shared.messages import Job
from shared.schema import STAGES, Stage
from shared.wire import PROMPT_LIMIT
from shared.words import told

WAYS: Final[Mapping[Quality, str]] = {"auto": "Cascade", "low": "Light only", "high": "Straight to heavy"}
# Colours by names of page.css, for the library's own are the same in light and dark.
TOGGLE: Final = 'unelevated no-caps dense padding="3px 9px" toggle-color=chosen toggle-text-color=chosen'
EXAMPLE: Final = "small red circle above big blue square on white"


class Frame:
    """The place of one stage's picture."""

    def __init__(self, stage: Stage, waiting: str) -> None:
        self._stage = stage
        with ui.element("figure").classes(f"drawn {stage}") as self.figure:
            with ui.element("div").classes("holder") as self._holder:
                self._waiting = ui.label(waiting)
            with ui.element("figcaption").classes("label"):
                self._label = ui.label(stage)

    def show(self, address: str, prompt: str, label: str) -> None:
        """Hang the picture."""
        self._holder.clear()
        self._holder.classes(add="full")
        with self._holder:
            ui.element("img").props(f'src="{address}"').props["alt"] = prompt
        self._label.text = label

    def hide(self) -> None:
        """Take the place away: nothing will hang there."""
        self.figure.set_visibility(False)


class Tryout:
    """The form and the answer to the newest prompt; make it where it shall stand."""

    def __init__(self, desk: Desk, gallery: Gallery, visitor: Visitor) -> None:
        self._desk, self._gallery, self._visitor = desk, gallery, visitor
        self._turn = 0
        with ui.element("section").classes("ask").props('aria-label="Try a prompt"'):
            self._wish = ui.input(placeholder=f"Describe a picture, such as: {EXAMPLE}").classes("wish")
            self._wish.props(f'outlined dense maxlength={PROMPT_LIMIT} aria-label="prompt"')
            self._wish.on("keydown.enter", self.draw)
            self._way = ui.toggle(dict(WAYS), value="auto").props(TOGGLE)
            self._way.classes("quality")
            ui.button("Draw", on_click=self.draw).props("unelevated no-caps text-color=ground").classes("draw")
            self._answer = ui.element("div").classes("answer")
            self._answer.set_visibility(False)

    async def draw(self) -> None:
        """Publish what was typed and show what becomes of it; a newer prompt takes the place of an older one."""
        self._turn += 1
        turn = self._turn
        self._wish.value = (self._wish.value or "").strip() or EXAMPLE
        self._answer.clear()
        self._answer.set_visibility(True)
        with self._answer:
            said = ui.label("At the door …").classes("said")
        try:
            job = self._job(self._visitor.caller())
            began = time.monotonic()
            receipt = await self._desk.publish(job, self._desk.deadline_s)
            if receipt.status == "refused":
                again = f" Try again in {receipt.retry_after_s:.1f} s." if receipt.retry_after_s else ""
                said.text = f"Refused: {REFUSALS.get(receipt.why, receipt.why)}.{again}"
                return
            await self._follow(job, turn, began)
        except ApiError as wrong:
            said.text = wrong.detail
        except ValidationError as wrong:
            said.text = wrong.errors()[0]["msg"]
        except (*Unreachable, CommandRefused) as wrong:
            said.text = f"Redis does not answer: {wrong}"

    def _job(self, caller: Caller) -> Job:
        wish = Wish(prompt=self._wish.value, quality=self._way.value)
        caller.charge(1)
        return wish.jobs([uuid.uuid4().hex], caller, self._desk.cascade)[0]

    async def _follow(self, job: Job, turn: int, began: float) -> None:
        self._answer.clear()
        with self._answer:
            stages = [stage for stage in STAGES if job.route in ("cascade", stage)]
            frames = {stage: Frame(stage, "waits for its turn") for stage in stages}
            said = ui.label("Being drawn …").classes("said")
        async for event in self._desk.follow(job.id):
            if turn != self._turn or self._answer.is_deleted:
                return
            after_s = time.monotonic() - began
            if event.kind == "light":
                self._hang(frames, "light", job, event.score, after_s)
                said.text = "Goes on to heavy: the score lies below the threshold."
            elif event.kind == "settled":
                said.text = await self._settled(frames, job, event, after_s)

    async def _settled(self, frames: dict[Stage, Frame], job: Job, event: Event, after_s: float) -> str:
        """Hang what was the answer; what to say of it."""
        end, look = event.end, await self._desk.look(job.id)
        if end not in STAGES:
            for frame in frames.values():
                frame.hide()
            return unanswered(end, event.why, look.reason if look else "").detail if end else ""
        self._hang(frames, end, job, look.score if look else None, after_s)
        if end == "light" and "heavy" in frames:
            frames["heavy"].hide()
        return f"{told(end, event.why).capitalize()}."

    def _hang(self, frames: dict[Stage, Frame], stage: Stage, job: Job, score: float | None, after_s: float) -> None:
        said = f", score {score:.2f}" if stage == "light" and score is not None else ""
        if stage not in frames:  # sent straight to heavy, and moved to light at the last moment
            with self._answer:
                frames[stage] = Frame(stage, "")
        frames[stage].show(self._gallery.address(job.id, stage), job.prompt, f"{stage} after {after_s:.2f} s{said}")
