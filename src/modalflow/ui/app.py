"""The FastAPI app of the UI, and the errors of its API."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from modalflow.ui import paths
from modalflow.ui.actions import Actions
from modalflow.ui.routes.acting import acting
from modalflow.ui.routes.reading import reading
from modalflow.ui.sources.sources import Sources
from modalflow.ui.static_files import BundleFiles


def create_app(sources: Sources | None = None, actions: Actions | None = None) -> FastAPI:
    """Return the app, to be mounted at ``paths.ROOT`` of Airflow's. It reads nothing before a user asks."""
    sources = sources or Sources()
    actions = actions or Actions(sources.site)
    app = FastAPI(title="modalflow", openapi_url=None, docs_url=None, redoc_url=None)
    api = paths.API.removeprefix(paths.ROOT)
    app.include_router(reading(sources), prefix=api)
    app.include_router(acting(sources, actions), prefix=api)
    app.mount(paths.STATIC.removeprefix(paths.ROOT), BundleFiles())
    app.add_exception_handler(RequestValidationError, _bad_request)
    return app


async def _bad_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError), "it is registered for no other"
    return JSONResponse({"detail": "; ".join(map(_problem, error.errors()))}, status.HTTP_400_BAD_REQUEST)


def _problem(found: dict[str, Any]) -> str:
    """Return one problem, with the name of its parameter or field."""
    if found["type"] == "json_invalid":
        return f"The body is no JSON: {found['ctx']['error']}"
    return f"{'.'.join(map(str, found['loc'][1:])) or 'the body'}: {found['msg']}"
