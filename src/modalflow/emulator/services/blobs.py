"""Blobs and the loopback HTTP server that bytes travel over: whatever is too large for an RPC.

Owns the HTTP server and the blobs. Every address is all the right that its user needs, see addresses.py. What volumes
upload and download passes through here, and only passes.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import ClassVar

from aiohttp import web
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.ids import new_id
from modalflow.emulator.rpc.dispatcher import Caller, Service
from modalflow.emulator.rpc.wire import message
from modalflow.emulator.services.addresses import Addresses
from modalflow.emulator.state import disk_space
from modalflow.emulator.state.store import COPY_CHUNK, StateDir

log = logging.getLogger(__name__)

#: A blob that no call refers to is removed once it is this old: it may be on its way to a call, or to whoever asked.
BLOB_SECONDS = 24 * 3600.0

#: What new_id makes: nothing that leads out of the folder.
_BLOB_ID = re.compile("bl-[A-Za-z0-9]{22}")

#: Given the path of the uploaded file, which it may move away, and returns the body of the answer.
Receiver = Callable[[Path], Awaitable[bytes]]


class Blobs(Service):
    """Answers the Blob RPCs and serves the HTTP addresses. ``start`` before any use, ``close`` at the end."""

    inferred: ClassVar[Mapping[str, str]] = {
        "BlobCreate": "one address, never a multipart upload, whatever the size.",
    }

    def __init__(self, state: StateDir, host: str = "127.0.0.1") -> None:
        self._folder = state.folder("blobs")
        self._host = host
        self._runner: web.AppRunner | None = None
        self.routes: list[web.RouteDef] = []
        """Further addresses to serve, each with its own authentication; set before ``start``."""
        self.passage: Callable[[], Awaitable[None]] | None = None
        """Awaited before anything is received or sent; None costs nothing."""
        self.url = ""
        """Where the HTTP server is once it is started, e.g. ``http://127.0.0.1:43210``."""
        self._root, self._journal = state.root, state.journal
        self._addresses = Addresses(state)
        self.receivers: dict[str, Callable[[str], Receiver]] = {"blob": self._receiver}
        """What takes the uploads of each kind: given what the address is for, it returns the receiver."""
        self.asked_again: set[str] = set()
        """Kinds of uploads after which the client asks whether they are there: one that did not fit is no error yet."""

    async def start(self) -> None:
        app = web.Application(client_max_size=0)
        app.router.add_put("/upload/{token}", self._receive)
        app.router.add_get("/download/{token}", self._send)
        app.add_routes(self.routes)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._addresses.port).start()
        except OSError:
            # Somebody has it meanwhile: addresses of before a restart lead nowhere then.
            await web.TCPSite(self._runner, self._host, 0).start()
        port = self._runner.addresses[0][1]
        self._addresses.keep(port)
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"http://{host}:{port}"

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def put(self, data: bytes) -> str:
        """Keep the bytes as a blob, return its id."""
        blob_id = new_id("bl")
        await asyncio.to_thread(self._write, self._path(blob_id), data)
        return blob_id

    def _write(self, path: Path, data: bytes) -> None:
        try:
            path.write_bytes(data)
        except OSError:
            # A part of it is of no use, and takes the room that others lack.
            path.unlink(missing_ok=True)
            raise

    async def read(self, blob_id: str) -> bytes:
        """Return a blob's bytes; NOT_FOUND for an unknown one."""
        return await asyncio.to_thread(self.path(blob_id).read_bytes)

    def path(self, blob_id: str) -> Path:
        """Return the file that holds a blob (read it only); NOT_FOUND for an unknown one."""
        path = self._path(blob_id)
        if not path.exists():
            raise GRPCError(Status.NOT_FOUND, f"Blob {blob_id!r} not found")
        return path

    def remove_unused(self, in_use: Callable[[], Collection[str]]) -> None:
        """Remove the old blobs that are not among those in use, who are only asked for if there is any old one."""
        limit = time.time() - BLOB_SECONDS
        old = [path for path in self._folder.iterdir() if path.stat().st_mtime < limit]
        used = in_use() if old else ()
        for path in old:
            if path.name not in used:
                path.unlink(missing_ok=True)

    def offer(self, path: Path, offset: int, length: int) -> str:
        """Return an address to download those bytes of a file from; where the file is shorter, it is read as zeros."""
        token = self._addresses.token("file", str(path.relative_to(self._root)), offset, length)
        return f"{self.url}/download/{token}"

    def short_of(self, size: int) -> str:
        """Return why there is no room for that many bytes; an empty text if there is."""
        return disk_space.short_of(self._root, size)

    def accept(self, kind: str, what: str) -> str:
        """Return an address to upload one body to; its kind's receiver gets it and may refuse it with a ValueError."""
        return f"{self.url}/upload/{self._addresses.token(kind, what)}"

    def _receiver(self, blob_id: str) -> Receiver:
        async def keep(uploaded: Path) -> bytes:
            uploaded.replace(self._path(blob_id))
            return b""

        return keep

    async def BlobCreate(self, request: api_pb2.BlobCreateRequest, caller: Caller) -> api_pb2.BlobCreateResponse:
        if request.content_length <= disk_space.SMALL:
            self._journal.make_way(disk_space.SMALL + disk_space.MARGIN)
        if words := self.short_of(request.content_length):
            raise GRPCError(Status.RESOURCE_EXHAUSTED, words)
        blob_id = new_id("bl")
        url = self.accept("blob", blob_id)
        # Never a multipart upload, whatever the size: bytes go over loopback into a file.
        urls = message(api_pb2.UploadUrlList, items=[url])
        return message(
            api_pb2.BlobCreateResponse, blob_id=blob_id, blob_ids=[blob_id], upload_urls=urls, upload_url=url
        )

    async def BlobGet(self, request: api_pb2.BlobGetRequest, caller: Caller) -> api_pb2.BlobGetResponse:
        path = self.path(request.blob_id)
        return api_pb2.BlobGetResponse(download_url=self.offer(path, 0, path.stat().st_size))

    def _path(self, blob_id: str) -> Path:
        if not _BLOB_ID.fullmatch(blob_id):
            raise GRPCError(Status.INVALID_ARGUMENT, f"{blob_id!r} is not the id of a blob")
        return self._folder / blob_id

    async def _receive(self, request: web.Request) -> web.Response:
        if self.passage is not None:
            await self.passage()
        allowed = self._addresses.read(request.match_info["token"])
        if not allowed or allowed[0] not in self.receivers:
            raise web.HTTPForbidden(text="This address does not exist or is no longer valid.")
        receiver = self.receivers[str(allowed[0])](str(allowed[1]))
        digest = hashlib.md5(usedforsecurity=False)
        try:
            body = await self._take(request, receiver, digest)
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        except OSError as error:
            if not disk_space.unwritable(error):
                raise
            log.error("an upload of %s bytes was not kept: %s", request.content_length, error)
            # The client reads the answer when it has sent everything.
            async for _ in request.content.iter_chunked(COPY_CHUNK):
                pass
            if str(allowed[0]) in self.asked_again:
                return web.Response()
            raise web.HTTPInsufficientStorage(text=disk_space.words(self._root, disk_space.reason(error))) from error
        # The SDK compares the ETag with the MD5 of what it sent.
        return web.Response(body=body, headers={"ETag": f'"{digest.hexdigest()}"'})

    async def _take(self, request: web.Request, receiver: Receiver, digest: hashlib._Hash) -> bytes:
        descriptor, name = tempfile.mkstemp(dir=self._folder, prefix=".incoming-")
        path = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                async for chunk in request.content.iter_chunked(COPY_CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
            return await receiver(path)
        finally:
            path.unlink(missing_ok=True)

    async def _send(self, request: web.Request) -> web.StreamResponse:
        if self.passage is not None:
            await self.passage()
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
                # What a file lacks at its end are zeros: that is how blocks of volumes are stored.
                chunk = file.read(min(left, COPY_CHUNK)) or bytes(min(left, COPY_CHUNK))
                left -= len(chunk)
                await response.write(chunk)
            await response.write_eof()
        return response
