"""The application: pages, API, metrics, behind the guard."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from harness.report.words import clean, shorten
from harness.service import api, pages
from harness.service.access import Access, Guard
from harness.service.keeper import Keeper
from harness.service.metrics import exposition
from harness.versions import of_packages


def application(keeper: Keeper, access: Access) -> Any:
    """The ASGI application; the keeper works as long as it lives."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        keeper.start()
        try:
            yield
        finally:
            await run_in_threadpool(keeper.stop)

    app = FastAPI(
        title="Gauntlet",
        version=of_packages().get("gauntlet-harness", "0"),
        summary="A store of runs, and the service that starts and watches them.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # it would load its scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.include_router(api.router(keeper))
    app.include_router(pages.router(keeper, access))

    @app.get("/healthz", include_in_schema=False)
    async def _healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics", include_in_schema=False)
    def _metrics() -> Response:
        return Response(exposition(keeper), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(HTTPException)
    async def _refused(request: Request, error: HTTPException) -> Response:
        told = shorten(clean(error.detail), 1000)
        if request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
            return JSONResponse({"detail": told}, error.status_code, error.headers)
        return pages.trouble(keeper, access, request, error.status_code, told)

    @app.exception_handler(OSError)
    async def _full(request: Request, error: OSError) -> Response:
        told = f"The store cannot be used: {error.strerror or error}."
        return JSONResponse({"detail": told}, 507)

    return Guard(app, access)
