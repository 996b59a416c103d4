"""The plugin of an Airflow API server: which modalflow it imports, and Modal in Airflow's UI from Airflow 3.1 on.

`modalflow doctor` asks ``GET /modalflow/version``: an API server with another program of that name, or with none, has
no such route. Every Airflow process loads plugins, so this must stay cheap to import: plain ASGI applications, no
framework. The answer holds versions only, no path and no setting, because anyone who reaches the API server may ask.
The UI's own application is imported with its first request.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from modalflow import __version__
from modalflow.airflow_compat.configuration import own_conf
from modalflow.airflow_compat.versions import AIRFLOW_V_3_1_PLUS
from modalflow.config.settings import UI
from modalflow.errors import ConfigError
from modalflow.names import VERSION_PATH
from modalflow.support.installation import installed
from modalflow.ui import bundle, paths
from modalflow.ui.extra_link import FunctionCallLink

log = logging.getLogger(__name__)

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]

_JSON, _SVG = "application/json", "image/svg+xml"


def report() -> dict[str, Any]:
    """Return what the API server imports, and which package of that name is installed there."""
    package = installed()
    return {
        "modalflow": __version__,
        "installed": None if package is None else {"version": package.version, "ours": package.ours},
    }


async def application(scope: _Message, receive: _Receive, send: _Send) -> None:
    """Answer one request, as ASGI has it; a path that is neither the version's nor an icon's gets 404."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000})
    if scope["type"] != "http":
        return
    status, content_type, body = _answer(scope["path"])
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    if content_type == _SVG:
        headers.append((b"cache-control", b"public, max-age=86400"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body if scope["method"] != "HEAD" else b""})


def _answer(path: str) -> tuple[int, str, bytes]:
    """Return status, content type and body."""
    for theme in bundle.ICONS:
        if path.endswith(paths.ICON.format(theme=theme)):
            return 200, _SVG, bundle.icon(theme)
    if path.endswith(VERSION_PATH):
        return 200, _JSON, json.dumps(report()).encode()
    return 404, _JSON, json.dumps({"detail": "Not Found"}).encode()


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


def has_ui() -> bool:
    """Return whether Airflow has a place for the UI, and ``[modal_executor] ui`` is on. Log a wrong value as off."""
    try:
        return AIRFLOW_V_3_1_PLUS and UI.read(own_conf())
    except ConfigError as error:
        log.error("Airflow's UI has no views of Modal: %s", error)
        return False


_HAS_UI = has_ui()


class ModalflowPlugin(AirflowPlugin):
    """Serves ``/modalflow/version`` on the API server, and adds Modal to Airflow's UI unless that is switched off."""

    name = "modalflow"
    # The first match counts, and the prefix of the version is one of the UI's, too.
    fastapi_apps: list[Any] = [_UI, _VERSION] if _HAS_UI else [_VERSION]
    react_apps: list[Any] = bundle.react_apps(own_conf().get("api", "base_url", fallback="") or "") if _HAS_UI else []
    global_operator_extra_links: list[Any] = [FunctionCallLink()] if _HAS_UI else []
