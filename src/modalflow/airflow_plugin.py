"""The plugin through which an Airflow API server reports which modalflow it imports.

`modalflow doctor` asks ``GET /modalflow/version``: an API server with another program of that name, or with none, has
no such route. Every Airflow process loads plugins, so this must stay cheap to import: a plain ASGI application, no
framework. The answer holds versions only, no path and no setting, because anyone who reaches the API server may ask.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from modalflow import __version__
from modalflow.names import VERSION_PATH
from modalflow.support.installation import installed

_Message = MutableMapping[str, Any]


def report() -> dict[str, Any]:
    """Return what the API server imports, and which package of that name is installed there."""
    package = installed()
    return {
        "modalflow": __version__,
        "installed": None if package is None else {"version": package.version, "ours": package.ours},
    }


async def application(
    scope: _Message, receive: Callable[[], Awaitable[_Message]], send: Callable[[_Message], Awaitable[None]]
) -> None:
    """Answer one request, as ASGI has it; a path that is not the version's gets 404."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000})
    if scope["type"] != "http":
        return
    known = scope["path"].endswith(VERSION_PATH)
    body = json.dumps(report() if known else {"detail": "Not Found"}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200 if known else 404, "headers": headers})
    await send({"type": "http.response.body", "body": body if scope["method"] != "HEAD" else b""})


class ModalflowPlugin(AirflowPlugin):
    """Serves ``/modalflow/version`` on the API server."""

    name = "modalflow"
    fastapi_apps: list[Any] = [{"app": application, "url_prefix": "/modalflow", "name": "modalflow"}]  # noqa: RUF012  As Airflow declares it.
