"""The stand-in for Airflow's Execution API on the container's loopback interface.

Any HTTP client can use it. It adds no rights and reads no token: the relay decides.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType

from aiohttp import web

from modalflow.names import RELAY_HEADER
from modalflow.relay.container.relay_client import RelayClient
from modalflow.relay.messages import LARGEST, TOO_LARGE, Request
from modalflow.support.described import describe

#: The path of the Execution API in the server's URL.
BASE = "/execution/"
#: Seconds for one request. Airflow's client gives up much earlier, and tries again.
LONGEST_REQUEST = 300.0
#: Headers of a connection, not of a request.
_DROPPED = frozenset({"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "expect"})


class LoopbackServer:
    """Turns each HTTP request into a request to a relay, and waits for its answer."""

    def __init__(self, client: RelayClient) -> None:
        self._client = client
        app = web.Application(client_max_size=LARGEST)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # Otherwise the handler of a client would outlive it.
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        self._listening = asyncio.Event()
        self.url = ""

    async def start(self) -> None:
        """Listen on a free port."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}{BASE}"
        self._listening.set()

    async def listening(self) -> None:
        """Return once it listens: another task may have started it a moment ago."""
        await self._listening.wait()

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def __aenter__(self) -> LoopbackServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            await self.close()

    async def _handle(self, http: web.Request) -> web.Response:
        if not http.raw_path.startswith(BASE):
            return _problem(404, f"The relay has only Airflow's Execution API, below {BASE}.")
        headers = [(name, value) for name, value in http.headers.items() if name.lower() not in _DROPPED]
        try:
            body = await http.read()
        except web.HTTPRequestEntityTooLarge:
            return _problem(413, f"The request has {TOO_LARGE}")
        except web.RequestPayloadError as error:
            return _problem(400, f"The body of the request cannot be read: {describe(error)}")
        request = Request(http.method, http.raw_path.removeprefix(BASE), tuple(headers), body)
        try:
            async with asyncio.timeout(LONGEST_REQUEST):
                answer, relay = await self._client.ask(request)
        except TimeoutError:
            return _problem(504, f"No relay has answered within {LONGEST_REQUEST:g} s.")
        response = web.Response(status=answer.status, body=answer.body)
        # aiohttp's own would contradict the API server's.
        response.headers.popall("content-type", None)
        for name, value in answer.headers:
            response.headers.add(name, value)
        response.headers[RELAY_HEADER] = relay
        return response


def _problem(status: int, detail: str) -> web.Response:
    return web.json_response({"detail": detail}, status=status)
