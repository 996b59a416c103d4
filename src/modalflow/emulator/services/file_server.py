"""The HTTP server of a control plane: large uploads and downloads, and the control endpoint for faults.

Owns the server and the transfer of bytes. Each address carries all the rights that its user needs: see addresses.py.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from aiohttp import web

from modalflow.emulator.faults.stoppage import Stoppage
from modalflow.emulator.services.addresses import Addresses
from modalflow.emulator.state import disk_space
from modalflow.emulator.state.file_store import COPY_CHUNK
from modalflow.emulator.state.state_dir import StateDir

log = logging.getLogger(__name__)


class UploadReceiver(Protocol):
    """Keeps the uploads of one kind."""

    @property
    def upload_is_verified(self) -> bool:
        """Whether the client checks later if the upload is there: then one that did not fit is not an error yet."""
        ...

    async def receive_upload(self, what: str, uploaded: Path) -> bytes:
        """Take an uploaded file, which may be moved away; return the body of the response. ValueError refuses it."""
        ...


class FileServer:
    """Serves addresses. ``start`` before any use, ``close`` at the end."""

    def __init__(
        self,
        state: StateDir,
        host: str,
        addresses: Addresses,
        receivers: Mapping[str, UploadReceiver],
        routes: Iterable[web.RouteDef],
        stoppage: Stoppage,
    ) -> None:
        """``routes`` are further addresses, each with its own authentication."""
        self._folder, self._root = state.folder("blobs"), state.root
        self._host, self._addresses, self._receivers = host, addresses, receivers
        self._routes = tuple(routes)
        self._stoppage = stoppage
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=0)
        app.router.add_put("/upload/{token}", self._receive)
        app.router.add_get("/download/{token}", self._send)
        app.add_routes(self._routes)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._addresses.port).start()
        except OSError:
            # Another program has the port now: addresses from before the restart lead nowhere.
            await web.TCPSite(self._runner, self._host, 0).start()
        self._addresses.listen(self._host, self._runner.addresses[0][1])

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _receive(self, request: web.Request) -> web.Response:
        await self._stoppage.passage()
        allowed = self._addresses.read(request.match_info["token"])
        receiver = self._receivers.get(str(allowed[0])) if allowed else None
        if receiver is None:
            raise web.HTTPForbidden(text="This address does not exist or is no longer valid.")
        digest = hashlib.md5(usedforsecurity=False)
        try:
            body = await self._receive_body(request, receiver, str(allowed[1]), digest)
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        except OSError as error:
            if not disk_space.unwritable(error):
                raise
            log.error("An upload of %s bytes was not kept: %s", request.content_length, error)
            # The client reads the response once it has sent everything.
            async for _ in request.content.iter_chunked(COPY_CHUNK):
                pass
            if receiver.upload_is_verified:
                return web.Response()
            raise web.HTTPInsufficientStorage(
                text=disk_space.error_text(self._root, disk_space.reason(error))
            ) from error
        # The SDK compares the ETag with the MD5 of what it sent.
        return web.Response(body=body, headers={"ETag": f'"{digest.hexdigest()}"'})

    async def _receive_body(
        self, request: web.Request, receiver: UploadReceiver, what: str, digest: hashlib._Hash
    ) -> bytes:
        descriptor, name = tempfile.mkstemp(dir=self._folder, prefix=".incoming-")
        path = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                async for chunk in request.content.iter_chunked(COPY_CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
            return await receiver.receive_upload(what, path)
        finally:
            path.unlink(missing_ok=True)

    async def _send(self, request: web.Request) -> web.StreamResponse:
        await self._stoppage.passage()
        allowed = self._addresses.read(request.match_info["token"])
        if not allowed or allowed[0] != "file":
            raise web.HTTPForbidden(text="This address does not exist or is no longer valid.")
        path, offset, length = self._root / str(allowed[1]), int(allowed[2]), int(allowed[3])
        try:
            file = path.open("rb")
        except FileNotFoundError:
            raise web.HTTPNotFound(text="The file behind this address is gone.") from None
        with file:
            file.seek(offset)
            response = web.StreamResponse(headers={"Content-Length": str(length)})
            response.content_type = "application/octet-stream"
            await response.prepare(request)
            left = length
            while left:
                # Blocks of volumes are stored without the zeros at their end.
                chunk = file.read(min(left, COPY_CHUNK)) or bytes(min(left, COPY_CHUNK))
                left -= len(chunk)
                await response.write(chunk)
            await response.write_eof()
        return response
