"""The only server of a relay: Airflow's Execution API, at the host's own URL."""

from __future__ import annotations

import json
import ssl
import urllib.request
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from modalflow.config.urls import without_user
from modalflow.errors import ConfigError
from modalflow.relay.host import rights
from modalflow.relay.host.memory_limit import FREE, MemoryLimit, NoRoomError, Share
from modalflow.relay.messages import LARGEST, TOO_LARGE, Answer, Request
from modalflow.support.described import describe

#: Seconds for one request. Airflow's clients give up earlier.
REQUEST_TIMEOUT = 120.0
#: Seconds for a connection.
CONNECT_TIMEOUT = 10.0


class UnreachableError(Exception):
    """The API server cannot be reached; the request was not carried out."""


class ApiServer:
    """Sends requests, with the certificates and the proxy of this machine."""

    def __init__(self, url: str, *, ca: str = "", connections: int = 64) -> None:
        """``url``: of the Execution API; ``ca``: a file of certificates besides the system's.

        Raises ConfigError for a file without any.
        """
        self._base = url if url.endswith("/") else url + "/"
        self._tls = _tls(ca) if urlsplit(url).scheme == "https" else None
        self._connections = connections
        self._proxy = _proxy(self._base)
        self._session: aiohttp.ClientSession | None = None
        self.shown = without_user(self._base)

    async def __aenter__(self) -> ApiServer:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, ssl=self._tls if self._tls is not None else True),
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT, sock_connect=CONNECT_TIMEOUT),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def carry_out(self, request: Request, share: Share) -> Answer:
        """Return the server's answer, or the relay's refusal of a request outside of the Execution API.

        A large answer is read once ``share`` has room for it. Raises UnreachableError if nothing was sent.
        """
        if why := rights.refusal(request):
            return problem(403, f"The relay refused the request, because {why}.")
        assert self._session is not None, "used outside of its context"
        try:
            async with self._session.request(
                request.method,
                # Neither encoded again nor normalised: the server reads the client's own text.
                URL(self._base + request.target, encoded=True),
                # Compression would take more time of both than it saves beside the server, and hides the size.
                headers=[*rights.request_headers(request.headers), ("Accept-Encoding", "identity")],
                data=request.body or None,
                proxy=self._proxy,
                # Another place could be any server.
                allow_redirects=False,
                skip_auto_headers=("User-Agent", "Content-Type"),
            ) as response:
                return self._answer(response, await _body(response, share))
        # The latter: no answer to the first packet, as from a machine that is off or behind a firewall.
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise UnreachableError(f"The API server at {self.shown} cannot be reached: {describe(error)}") from error
        except NoRoomError as error:
            return problem(503, f"The relay has too many large answers for other requests: {error}.")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return problem(502, f"The API server at {self.shown} did not answer the relay: {describe(error)}")

    async def check(self) -> None:
        """Ask for the server's health; any answer will do. Raises UnreachableError."""
        with MemoryLimit().share("") as share:
            await self.carry_out(Request("GET", "health"), share)

    def _answer(self, response: aiohttp.ClientResponse, body: bytes) -> Answer:
        if 300 <= response.status < 400:
            return problem(
                502,
                f"The API server at {self.shown} redirects the Execution API. Set [core] execution_api_server_url to "
                "the URL that it redirects to.",
            )
        if not 200 <= response.status < 600:
            return problem(502, f"The API server at {self.shown} answered with status {response.status}.")
        if len(body) > LARGEST:
            # No error of a server's: clients would ask for it again and again.
            return problem(413, f"The answer of the API server has {TOO_LARGE}")
        return Answer(response.status, rights.answer_headers(response.headers.items()), body)


async def _body(response: aiohttp.ClientResponse, share: Share) -> bytes:
    """Return the body; of one beyond the limit, one byte more than the limit."""
    # Of a compressed body, the length is another one.
    length = None if "Content-Encoding" in response.headers else response.content_length
    if length is not None and response.method != "HEAD":
        await share.take(min(length, LARGEST))
        return await _read(response, LARGEST + 1)
    body = await _read(response, FREE + 1)
    if len(body) > FREE:
        await share.take(LARGEST)
        body += await _read(response, LARGEST + 1 - len(body))
        share.shrink(len(body))
    return body


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    body = bytearray()
    while len(body) < most and (piece := await response.content.read(most - len(body))):
        body += piece
    return bytes(body)


def problem(status: int, detail: str) -> Answer:
    """Return an answer of the relay itself, in the form of the API server's errors."""
    return Answer(status, [("content-type", "application/json")], json.dumps({"detail": detail}).encode())


def _proxy(url: str) -> str | None:
    """Return the proxy of this machine's environment for a URL.

    Once, and not by aiohttp, whose search takes two threads and the user's .netrc for each request.
    """
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def _tls(ca: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca:
        try:
            context.load_verify_locations(ca)
        except (OSError, ssl.SSLError) as error:
            found = "a file without certificates" if Path(ca).is_file() else "no file"
            raise ConfigError("[api] ssl_cert", ca, f"a file of certificates in PEM format; it is {found}") from error
    return context
