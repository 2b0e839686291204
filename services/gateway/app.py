"""The gateway's application: one line per part, and whether it lives and is ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from services.gateway import callers, errors, images, jobs, metrics, page
from services.gateway.desk import Desk
from services.gateway.history import History
from shared.catalog import load_cascade
from shared.config import Settings
from shared.connection import CommandRefused, Unreachable
from shared.observer import Observer
from shared.plans import Plan
from shared.schema import STAGES

TITLE = "DiffServe cascade"
ABOUT = "Text-to-image prompts through a cascade of a light and a heavy diffusion model, under a deadline."


def make_app(settings: Settings, *, with_page: bool = True) -> FastAPI:
    """The whole application over one deployment; `app.state` holds `settings`, `desk` and `history`.

    `with_page`: the page at / too, which one application of a process can have (NiceGUI keeps what it knows in its
    modules).

    Raises SettingsError where a table or a file of the settings is wrong, ServerUnfit for an impossible address.
    """
    app = FastAPI(title=TITLE, description=ABOUT, version="1.0", lifespan=_lifespan, docs_url=None, redoc_url=None)
    app.state.settings = settings
    app.state.desk = Desk(settings, load_cascade(settings.cascade))
    metrics.install(app, settings)
    callers.install(app, settings)
    app.include_router(images.router)
    app.include_router(jobs.router)
    app.get("/healthz", tags=["health"])(healthz)
    app.get("/readyz", tags=["health"], responses={503: {"description": "what is missing"}})(readyz)
    errors.install(app)  # after all that lies under /v1/, before the page at /
    if with_page:
        page.install(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    desk: Desk = app.state.desk
    history: History = app.state.history
    await desk.start()
    history.start()
    try:
        yield
    finally:
        await desk.stop()
        await asyncio.to_thread(history.stop)


async def healthz() -> dict[str, str]:
    """Whether this process lives; it asks nobody else."""
    return {"status": "ok"}


async def readyz(request: Request) -> JSONResponse:
    """Whether a prompt would be drawn: Redis answers, a plan is in force, a worker of its first stage is ready."""
    desk: Desk = request.app.state.desk
    try:
        plan, workers = await desk.ask(_standing, desk)
        missing = lacking(plan, workers)
    except (*Unreachable, CommandRefused) as wrong:
        missing = [f"Redis at {desk.broker.address} does not answer: {wrong}"]
    status = {"ready": not missing, "missing": missing}
    return JSONResponse(status, status_code=503 if missing else 200)


def _standing(desk: Desk) -> tuple[Plan | None, list[dict[str, str]]]:
    return desk.broker.plan(), Observer(desk.broker).workers()


def lacking(plan: Plan | None, workers: list[dict[str, str]]) -> list[str]:
    """What is still missing before a picture can be drawn, in words."""
    missing = [] if plan else ["no plan is in force: is control running?"]
    # Where every prompt goes straight to heavy, light is its way out.
    stages = STAGES[::-1] if plan and plan.heavy_direct >= 1 else STAGES[:1]
    able = [about for about in workers if about.get("stage") in stages and about.get("ready") == "1"]
    if not able:
        wrong = [about["error"] for about in workers if about.get("error")]
        return [*missing, f"no {stages[0]} worker is ready{': ' + wrong[0] if wrong else ''}"]
    named = plan.assignment if plan else {}
    if plan and not any(named.get(f"{about.get('node')}:{about.get('slot')}") == about["stage"] for about in able):
        missing.append(f"no {stages[0]} worker that is ready is in the plan")
    return missing
