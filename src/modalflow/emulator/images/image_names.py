"""Named images: the image behind ``name:tag`` in an environment, and earlier ones.

Owns names and their history. Images are in images.py.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.ids import new_id
from modalflow.emulator.images.image_store import ImageStore
from modalflow.emulator.rpc.idempotency import CHANGE, READ
from modalflow.emulator.rpc.service import Caller, Service, rpc
from modalflow.emulator.rpc.wire import message, optional
from modalflow.emulator.services.environments import Environments
from modalflow.emulator.state.registry import CREATED_BY
from modalflow.emulator.state.state_dir import StateDir

#: The size of a page if a client sets no limit; the SDK asks for pages until there is no further token.
PAGE = 100


@dataclass(frozen=True)
class Revision:
    """One publication."""

    image_id: str
    revision_id: str = field(default_factory=lambda: new_id("ir"))
    created_at: float = field(default_factory=time.time)


class ImageNames(Service):
    """The RPCs about named images."""

    def __init__(self, state: StateDir, environments: Environments, images: ImageStore) -> None:
        self._environments, self._images = environments, images
        self._revisions: dict[tuple[str, str], list[Revision]] = {}
        """By environment and ``name:tag``, oldest first."""
        self._table = state.journal.table("image_names", _encode)
        for environment, tag, revisions in self._table.load():
            self._revisions[environment, tag] = [Revision(*revision) for revision in revisions]
        environments.subscribe(self)

    @rpc(repeat=CHANGE, inferred="a new publication of a name keeps all its earlier images as revisions.")
    async def ImagePublish(self, request: api_pb2.ImagePublishRequest, caller: Caller) -> api_pb2.ImagePublishResponse:
        self._images.get(request.image_id)
        where = self._place(request.tag, request.environment_name)
        revision = Revision(request.image_id)
        self._revisions.setdefault(where, []).append(revision)
        self._table.put(*where, self._revisions[where])
        return message(api_pb2.ImagePublishResponse, image_id=request.image_id, revision_id=revision.revision_id)

    @rpc(repeat=READ)
    async def ImageGetByTag(
        self, request: api_pb2.ImageGetByTagRequest, caller: Caller
    ) -> api_pb2.ImageGetByTagResponse:
        image = self._images.get(self._published(*self._place(request.tag, request.environment_name))[-1].image_id)
        return message(api_pb2.ImageGetByTagResponse, image_id=image.image_id, metadata=image.metadata)

    @rpc(repeat=READ, inferred="the format of page tokens.")
    async def ImageListTags(
        self, request: api_pb2.ImageListTagsRequest, caller: Caller
    ) -> api_pb2.ImageListTagsResponse:
        """Return a page of an environment's names, in order; a page's token is the last name before it."""
        environment = self._environments.resolve(request.environment_name)
        image_id = optional(request, "image_id") or ""
        found = sorted(
            tag
            for (where, tag), revisions in self._revisions.items()
            if where == environment
            and tag.startswith(request.tag_prefix)
            and tag > request.page_token
            and image_id in ("", revisions[-1].image_id)
        )
        page = found[: request.max_objects or PAGE]
        items = []
        for tag in page:
            revisions = self._revisions[environment, tag]
            items.append(
                message(
                    api_pb2.ImageListTagsItem,
                    tag=tag,
                    image_id=revisions[-1].image_id,
                    revision_id=revisions[-1].revision_id,
                    created_at=revisions[0].created_at,
                    updated_at=revisions[-1].created_at,
                    last_published_by=CREATED_BY,
                )
            )
        return message(
            api_pb2.ImageListTagsResponse,
            items=items,
            next_page_token=page[-1] if len(page) < len(found) else "",
            environment_name=environment,
        )

    @rpc(repeat=READ)
    async def ImageTagRevisions(
        self, request: api_pb2.ImageTagRevisionsRequest, caller: Caller
    ) -> api_pb2.ImageTagRevisionsResponse:
        """Return a page of a name's publications, newest first; the page token is the number of earlier ones."""
        environment, tag = self._place(request.tag, request.environment_name)
        revisions = self._revisions.get((environment, tag), [])[::-1]
        first = int(request.page_token) if request.page_token.isdecimal() else 0
        end = first + (request.max_objects or PAGE)
        items = [
            message(
                api_pb2.ImageTagRevisionsItem,
                image_id=revision.image_id,
                revision_id=revision.revision_id,
                created_at=revision.created_at,
                published_by=CREATED_BY,
            )
            for revision in revisions[first:end]
        ]
        return message(
            api_pb2.ImageTagRevisionsResponse,
            items=items,
            next_page_token=str(end) if end < len(revisions) else "",
            tag=tag,
            environment_name=environment,
        )

    @rpc(repeat=CHANGE, needs_room=False)
    async def ImageNameDelete(self, request: api_pb2.ImageNameDeleteRequest, caller: Caller) -> Empty:
        where = self._place(request.tag, "")
        self._published(*where)
        del self._revisions[where]
        self._table.discard(*where)
        return Empty()

    def _place(self, tag: str, environment_name: str) -> tuple[str, str]:
        """Return the environment and ``name:tag``. Newer SDKs write the environment before the name, with a ``/``."""
        environment, _, name = tag.rpartition("/")
        if not name:
            raise GRPCError(Status.INVALID_ARGUMENT, "The name of an Image must not be empty")
        return self._environments.resolve(environment or environment_name), name

    def _published(self, environment: str, tag: str) -> list[Revision]:
        revisions = self._revisions.get((environment, tag))
        if revisions is None:
            raise GRPCError(Status.NOT_FOUND, f"No image is published as {tag!r} in environment {environment!r}")
        return revisions

    def environment_changed(self, old: str, new: str | None) -> None:
        for where, tag in [key for key in self._revisions if key[0] == old]:
            revisions = self._revisions.pop((where, tag))
            self._table.discard(where, tag)
            if new is not None:
                self._revisions[new, tag] = revisions
                self._table.put(new, tag, revisions)


def _encode(revisions: list[Revision]) -> Any:
    return [[revision.image_id, revision.revision_id, revision.created_at] for revision in revisions]
