"""The plugin of an Airflow API server: which modalflow it imports, and Modal in Airflow's UI from Airflow 3.1 on.

`modalflow doctor` asks ``GET /modalflow/version``: an API server with another program of that name, or with none, has
no such route. Every Airflow process loads plugins, so this must stay cheap to import: plain ASGI applications, no
framework. The answer holds versions only, no path and no setting, because anyone who reaches the API server may ask.
The UI's own application is imported with its first request.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from modalflow import __version__
from modalflow.airflow_compat.configuration import own_conf
from modalflow.airflow_compat.versions import AIRFLOW_V_3_1_PLUS
from modalflow.names import VERSION_PATH
from modalflow.support.installation import installed
from modalflow.ui import bundle, paths
from modalflow.ui.extra_link import FunctionCallLink

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


def report() -> dict[str, Any]:
    """Return what the API server imports, and which package of that name is installed there."""
    package = installed()
    return {
        "modalflow": __version__,
        "installed": None if package is None else {"version": package.version, "ours": package.ours},
    }


async def application(scope: _Message, receive: _Receive, send: _Send) -> None:
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


class UiApplication:
    """Modal in Airflow's UI, as ASGI has it. Its imports take a second, in a thread, at the first request."""

    def __init__(self) -> None:
        self._app: Any = None
        self._lock = asyncio.Lock()

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Hand a request to the application."""
        if self._app is None:
            async with self._lock:
                if self._app is None:
                    self._app = await asyncio.to_thread(_created)
        await self._app(scope, receive, send)


def _created() -> Any:
    from modalflow.ui.app import create_app

    return create_app()


_VERSION = {"app": application, "url_prefix": "/modalflow", "name": "modalflow"}
_UI = {"app": UiApplication(), "url_prefix": paths.ROOT, "name": "modalflow UI"}


class ModalflowPlugin(AirflowPlugin):
    """Serves ``/modalflow/version`` on the API server, and adds Modal to Airflow's UI."""

    name = "modalflow"
    # The first match counts, and the prefix of the version is one of the UI's, too.
    fastapi_apps: list[Any] = [_UI, _VERSION] if AIRFLOW_V_3_1_PLUS else [_VERSION]
    react_apps: list[Any] = (
        bundle.react_apps(own_conf().get("api", "base_url", fallback="") or "") if AIRFLOW_V_3_1_PLUS else []
    )
    global_operator_extra_links: list[Any] = [FunctionCallLink()] if AIRFLOW_V_3_1_PLUS else []
