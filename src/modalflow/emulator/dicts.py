"""Modal Dicts: key-value stores whose keys and values are the client's serialized bytes.

Owns the entries, their lifetime and their limits. It never looks into a key or a value: two keys are the same where
their bytes are.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.environments import Environments
from modalflow.emulator.registry import Kept, Registry
from modalflow.emulator.rpc import Caller, Service
from modalflow.emulator.wire import message

MAX_ITEM_BYTES = 100 * 1024 * 1024
MAX_ENTRIES_PER_UPDATE = 10_000
MAX_REPORTED_LENGTH = 100_000
ENTRY_LIFETIME = 7 * 24 * 3600.0


class Entries:
    """The contents of one Dict. An entry is forgotten ENTRY_LIFETIME seconds after it was last read or written."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        # In the order of last use, so that what expired is always at the front.
        self._entries: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()

    def __len__(self) -> int:
        self._expire()
        return len(self._entries)

    def __contains__(self, key: bytes) -> bool:
        self._expire()
        return key in self._entries

    def get(self, key: bytes) -> bytes | None:
        self._expire()
        found = self._entries.get(key)
        if found is None:
            return None
        self._entries[key] = (found[0], self._clock())
        self._entries.move_to_end(key)
        return found[0]

    def put(self, key: bytes, value: bytes) -> None:
        self._expire()
        self._entries[key] = (value, self._clock())
        self._entries.move_to_end(key)

    def pop(self, key: bytes) -> bytes | None:
        self._expire()
        found = self._entries.pop(key, None)
        return None if found is None else found[0]

    def clear(self) -> None:
        self._entries.clear()

    def snapshot(self) -> list[tuple[bytes, bytes]]:
        """Return every entry as it is now; this reads them all."""
        self._expire()
        now = self._clock()
        contents = [(key, value) for key, (value, _) in self._entries.items()]
        for key, value in contents:
            self._entries[key] = (value, now)
        return contents

    def _expire(self) -> None:
        horizon = self._clock() - ENTRY_LIFETIME
        while self._entries:
            key, (_, used) = next(iter(self._entries.items()))
            if used >= horizon:
                return
            del self._entries[key]


@dataclass(kw_only=True)
class Dict(Kept):
    """One Modal Dict."""

    entries: Entries = field(default_factory=Entries)

    @property
    def metadata(self) -> api_pb2.DictMetadata:
        return api_pb2.DictMetadata(name=self.name, creation_info=self.creation_info)


class Dicts(Service):
    """Answers the Dict RPCs."""

    # A claim (if_not_exists) or a pop that was answered but whose answer got lost must tell the repeated call the same.
    deduplicated: ClassVar[frozenset[str]] = frozenset({"DictUpdate", "DictPop"})

    def __init__(self, environments: Environments) -> None:
        self._dicts = Registry("Dict", "di", Dict, environments)

    async def DictGetOrCreate(
        self, request: api_pb2.DictGetOrCreateRequest, caller: Caller
    ) -> api_pb2.DictGetOrCreateResponse:
        _check(request.data)
        found, new = self._dicts.get_or_create(
            request.deployment_name, request.environment_name, request.object_creation_type
        )
        if new:
            for entry in request.data:
                found.entries.put(entry.key, entry.value)
        return message(api_pb2.DictGetOrCreateResponse, dict_id=found.object_id, metadata=found.metadata)

    async def DictGetById(self, request: api_pb2.DictGetByIdRequest, caller: Caller) -> api_pb2.DictGetByIdResponse:
        found = self._dicts.get(request.dict_id)
        return api_pb2.DictGetByIdResponse(dict_id=found.object_id, metadata=found.metadata)

    async def DictList(self, request: api_pb2.DictListRequest, caller: Caller) -> api_pb2.DictListResponse:
        return message(
            api_pb2.DictListResponse,
            environment_name=request.environment_name,
            dicts=[
                message(
                    api_pb2.DictListResponse.DictInfo,
                    name=d.name,
                    created_at=d.created_at,
                    dict_id=d.object_id,
                    metadata=d.metadata,
                )
                for d in self._dicts.listed(request.environment_name, request.pagination)
            ],
        )

    async def DictDelete(self, request: api_pb2.DictDeleteRequest, caller: Caller) -> Empty:
        self._dicts.delete(request.dict_id)
        return Empty()

    async def DictHeartbeat(self, request: api_pb2.DictHeartbeatRequest, caller: Caller) -> Empty:
        self._dicts.heartbeat(request.dict_id)
        return Empty()

    async def DictUpdate(self, request: api_pb2.DictUpdateRequest, caller: Caller) -> api_pb2.DictUpdateResponse:
        entries = self._entries(request.dict_id)
        _check(request.updates)
        if request.if_not_exists:
            if len(request.updates) != 1:
                raise GRPCError(Status.INVALID_ARGUMENT, "if_not_exists takes exactly one entry")
            if request.updates[0].key in entries:
                return api_pb2.DictUpdateResponse(created=False)
        for entry in request.updates:
            entries.put(entry.key, entry.value)
        return api_pb2.DictUpdateResponse(created=True)

    async def DictGet(self, request: api_pb2.DictGetRequest, caller: Caller) -> api_pb2.DictGetResponse:
        value = self._entries(request.dict_id).get(request.key)
        return api_pb2.DictGetResponse(found=value is not None, value=value)

    async def DictPop(self, request: api_pb2.DictPopRequest, caller: Caller) -> api_pb2.DictPopResponse:
        value = self._entries(request.dict_id).pop(request.key)
        return api_pb2.DictPopResponse(found=value is not None, value=value)

    async def DictContains(self, request: api_pb2.DictContainsRequest, caller: Caller) -> api_pb2.DictContainsResponse:
        return api_pb2.DictContainsResponse(found=request.key in self._entries(request.dict_id))

    async def DictLen(self, request: api_pb2.DictLenRequest, caller: Caller) -> api_pb2.DictLenResponse:
        return api_pb2.DictLenResponse(len=min(len(self._entries(request.dict_id)), MAX_REPORTED_LENGTH))

    async def DictClear(self, request: api_pb2.DictClearRequest, caller: Caller) -> Empty:
        self._entries(request.dict_id).clear()
        return Empty()

    async def DictContents(
        self, request: api_pb2.DictContentsRequest, caller: Caller
    ) -> AsyncIterator[api_pb2.DictEntry]:
        # Values always come with their key: the SDK names the key when it cannot read the value.
        for key, value in self._entries(request.dict_id).snapshot():
            yield api_pb2.DictEntry(key=key, value=value if request.values else b"")

    def _entries(self, dict_id: str) -> Entries:
        return self._dicts.get(dict_id).entries


def _check(updates: Iterable[api_pb2.DictEntry]) -> None:
    entries = list(updates)
    if len(entries) > MAX_ENTRIES_PER_UPDATE:
        raise GRPCError(
            Status.INVALID_ARGUMENT,
            f"An update of {len(entries)} entries is too large; expected at most {MAX_ENTRIES_PER_UPDATE}",
        )
    largest = max((len(e.key) + len(e.value) for e in entries), default=0)
    if largest > MAX_ITEM_BYTES:
        # The SDK recognises a request that is too large by the HTTP status which Modal's gateway answers.
        raise GRPCError(
            Status.INVALID_ARGUMENT,
            f"An entry of {largest} bytes is too large; expected at most {MAX_ITEM_BYTES} (status = '413')",
        )
