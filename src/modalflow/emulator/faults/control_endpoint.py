"""The control endpoint: faults added, listed and cleared over HTTP while the control plane runs.

Owns paths, authentication and the JSON bodies. It answers during a stop of the world, too.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from modalflow.emulator.containers.container import Container
from modalflow.emulator.containers.containers import Containers
from modalflow.emulator.faults.fault_injector import FaultInjector
from modalflow.emulator.faults.spec.fault_spec import FaultSpecError
from modalflow.emulator.rpc.credentials import Credentials

FAULTS = "/control/faults"
NOW = "/control/faults/now"
CONTAINERS = "/control/containers"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def authorization(token_id: str, token_secret: str) -> str:
    """Return the header that authenticates a client."""
    return f"Bearer {token_id}:{token_secret}"


class ControlEndpoint:
    """The handlers of the control endpoint, for the HTTP server. Containers are refused: they have no token."""

    def __init__(self, faults: FaultInjector, containers: Containers, credentials: Credentials) -> None:
        self._faults, self._living = faults, containers
        self._expected = authorization(credentials.token_id, credentials.token_secret).encode()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(FAULTS, self._guarded(self._list)),
            web.post(FAULTS, self._guarded(self._add)),
            web.delete(FAULTS, self._guarded(self._clear)),
            web.post(NOW, self._guarded(self._at_once)),
            web.get(CONTAINERS, self._guarded(self._containers)),
        ]

    def _guarded(self, handler: Handler) -> Handler:
        async def check(request: web.Request) -> web.StreamResponse:
            given = request.headers.get("Authorization", "").encode(errors="replace")
            if not hmac.compare_digest(given, self._expected):
                raise web.HTTPUnauthorized(text="Token missing or invalid")
            return await handler(request)

        return check

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response({"seed": self._faults.rules.seed, "faults": self._faults.report()})

    async def _add(self, request: web.Request) -> web.Response:
        try:
            return web.json_response(self._faults.add(await _spec(request)).report())
        except FaultSpecError as error:
            raise web.HTTPBadRequest(text=str(error)) from error

    async def _clear(self, request: web.Request) -> web.Response:
        ids = request.query.getall("id", [])
        try:
            removed = self._faults.clear(ids or None)
        except KeyError as error:
            raise web.HTTPNotFound(text=f"There is no fault {error.args[0]!r}; `list` shows all faults") from error
        return web.json_response({"faults": [rule.report() for rule in removed]})

    async def _at_once(self, request: web.Request) -> web.Response:
        try:
            return web.json_response({"containers": self._faults.inject(await _spec(request))})
        except FaultSpecError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        except LookupError as error:
            raise web.HTTPNotFound(text=str(error.args[0])) from error

    async def _containers(self, request: web.Request) -> web.Response:
        return web.json_response({"containers": [_described(container) for container in self._living]})


async def _spec(request: web.Request) -> str:
    try:
        return str((await request.json())["spec"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise web.HTTPBadRequest(text='expected {"spec": "FunctionMap:unavailable"}') from error


def _described(container: Container) -> dict[str, Any]:
    app = container.function.app
    return {
        "container_id": container.container_id,
        "app": app.name or app.description,
        "function": container.function.tag,
        "state": container.state.value,
        "inputs": list(container.inputs),
        "pid": container.process.pid if container.process is not None else None,
    }
