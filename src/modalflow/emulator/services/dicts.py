"""Modal Dicts: key-value stores whose keys and values are the client's serialized bytes.

Owns the entries, their lifetime, their limits and their records. It never decodes a key or a value: keys with the same
bytes are equal.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator import clock
from modalflow.emulator.rpc.idempotency import CHANGE, HEARTBEAT, READ
from modalflow.emulator.rpc.service import Caller, Service, rpc
from modalflow.emulator.rpc.wire import message
from modalflow.emulator.services.environments import Environments
from modalflow.emulator.state.journal import Journal, Table
from modalflow.emulator.state.registry import Registry, StoredObject

#: Bytes of an entry, and entries of an update: Modal's guide, "Dicts". It is inferred that the key counts too.
MAX_ITEM_BYTES = 100 * 1024 * 1024
MAX_ENTRIES_PER_UPDATE = 10_000

#: The docstring of the SDK's ``Dict.len``: "will return at most 100,000".
MAX_REPORTED_LENGTH = 100_000

#: The docstring of the SDK's ``Dict``: "7 days of inactivity (no reads or writes)".
ENTRY_LIFETIME = 7 * 24 * 3600.0

#: A read is recorded only if the last recorded use is this old: otherwise a read would cost as much as a write. After a
#: restart an entry may live longer by this time (0.6 % of its lifetime), never shorter.
USE_NOTED_AFTER = 3600.0


@dataclass
class DictEntry:
    """One value and when it was last read or written."""

    value: bytes
    used: float
    noted: float
    """The last recorded time of use."""
    noted_apart: bool = False
    """Whether a later use is in a record of its own: a read must not write the value again."""


class DictRecords:
    """The records of all entries of all Dicts: values, and separately later uses."""

    def __init__(self, journal: Journal) -> None:
        self._values: Table[DictEntry] = journal.table("dict_entries", lambda entry: [entry.value, entry.noted])
        self._uses: Table[float] = journal.table("dict_uses", float)

    def load(self) -> dict[str, list[tuple[bytes, DictEntry]]]:
        """Return the entries of each Dict id, the least recently used first."""
        uses = {(owner, key): used for owner, key, used in self._uses.load()}
        found: dict[str, list[tuple[bytes, DictEntry]]] = {}
        for owner, key, (value, written) in self._values.load():
            noted = uses.get((owner, key), written)
            # It may have been read until then without a record.
            entry = DictEntry(value, noted + USE_NOTED_AFTER, noted, noted_apart=(owner, key) in uses)
            found.setdefault(owner, []).append((key, entry))
        for entries in found.values():
            entries.sort(key=lambda item: item[1].used)
        return found

    def put(self, owner: str, key: bytes, entry: DictEntry) -> None:
        self._values.put(owner, key, entry)

    def used(self, owner: str, key: bytes, entry: DictEntry) -> None:
        if entry.used - entry.noted >= USE_NOTED_AFTER:
            entry.noted, entry.noted_apart = entry.used, True
            self._uses.put(owner, key, entry.used)

    def discard(self, owner: str, key: bytes, entry: DictEntry) -> None:
        self._values.discard(owner, key)
        self.value_replaced(owner, key, entry)

    def value_replaced(self, owner: str, key: bytes, entry: DictEntry) -> None:
        if entry.noted_apart:
            self._uses.discard(owner, key)

    def discard_all(self, owner: str) -> None:
        self._values.discard_all(owner)
        self._uses.discard_all(owner)


class DictEntries:
    """The contents of one Dict. An entry is forgotten ENTRY_LIFETIME seconds after it was last read or written."""

    def __init__(
        self,
        clock: Callable[[], float] = clock.now,
        records: DictRecords | None = None,
        owner: str = "",
        kept: Iterable[tuple[bytes, DictEntry]] = (),
    ) -> None:
        """``kept`` are the entries in the records of ``owner``."""
        self._clock = clock
        self._records = records or DictRecords(Journal())
        self._owner = owner
        # In the order of last use, so that expired entries are always at the front.
        self._entries: OrderedDict[bytes, DictEntry] = OrderedDict(kept)
        now = clock()
        for entry in self._entries.values():
            entry.used = min(entry.used, now)

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
        self._use(key, found)
        return found.value

    def put(self, key: bytes, value: bytes) -> None:
        self._expire()
        replaced = self._entries.get(key)
        if replaced is not None:
            self._records.value_replaced(self._owner, key, replaced)
        now = self._clock()
        entry = self._entries[key] = DictEntry(value, now, now)
        self._entries.move_to_end(key)
        self._records.put(self._owner, key, entry)

    def pop(self, key: bytes) -> bytes | None:
        self._expire()
        found = self._entries.pop(key, None)
        if found is None:
            return None
        self._records.discard(self._owner, key, found)
        return found.value

    def clear(self) -> None:
        self._entries.clear()
        self._records.discard_all(self._owner)

    def snapshot(self) -> list[tuple[bytes, bytes]]:
        """Return every entry as it is now; this counts as a read of all of them."""
        self._expire()
        contents = list(self._entries.items())
        for key, entry in contents:
            self._use(key, entry)
        return [(key, entry.value) for key, entry in contents]

    def _use(self, key: bytes, entry: DictEntry) -> None:
        entry.used = self._clock()
        self._entries.move_to_end(key)
        self._records.used(self._owner, key, entry)

    def _expire(self) -> None:
        horizon = self._clock() - ENTRY_LIFETIME
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            if entry.used >= horizon:
                return
            del self._entries[key]
            self._records.discard(self._owner, key, entry)


@dataclass(kw_only=True)
class Dict(StoredObject):
    """One Modal Dict."""

    entries: DictEntries = field(default_factory=DictEntries)

    @property
    def metadata(self) -> api_pb2.DictMetadata:
        return api_pb2.DictMetadata(name=self.name, creation_info=self.creation_info)


class Dicts(Service):
    """The Dict RPCs."""

    def __init__(self, environments: Environments, journal: Journal, *, clock: Callable[[], float] = clock.now) -> None:
        self._clock = clock
        self._dicts = Registry("Dict", "di", Dict, environments, journal, clock=clock, on_delete=self._forget)
        self._records = DictRecords(journal)
        kept = self._records.load()
        for found in self._dicts.all():
            found.entries = DictEntries(clock, self._records, found.object_id, kept.get(found.object_id, ()))

    @rpc(repeat=CHANGE)
    async def DictGetOrCreate(
        self, request: api_pb2.DictGetOrCreateRequest, caller: Caller
    ) -> api_pb2.DictGetOrCreateResponse:
        _check(request.data)
        found, new = self._dicts.get_or_create(
            request.deployment_name, request.environment_name, request.object_creation_type
        )
        if new:
            found.entries = DictEntries(self._clock, self._records, found.object_id)
            for entry in request.data:
                found.entries.put(entry.key, entry.value)
        return message(api_pb2.DictGetOrCreateResponse, dict_id=found.object_id, metadata=found.metadata)

    @rpc(repeat=READ)
    async def DictGetById(self, request: api_pb2.DictGetByIdRequest, caller: Caller) -> api_pb2.DictGetByIdResponse:
        found = self._dicts.get(request.dict_id)
        return api_pb2.DictGetByIdResponse(dict_id=found.object_id, metadata=found.metadata)

    @rpc(repeat=READ)
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

    @rpc(repeat=CHANGE, needs_room=False)
    async def DictDelete(self, request: api_pb2.DictDeleteRequest, caller: Caller) -> Empty:
        self._dicts.delete(request.dict_id)
        return Empty()

    @rpc(repeat=HEARTBEAT)
    async def DictHeartbeat(self, request: api_pb2.DictHeartbeatRequest, caller: Caller) -> Empty:
        self._dicts.heartbeat(request.dict_id)
        return Empty()

    @rpc(repeat=CHANGE, inferred="an update over a limit changes nothing at all.")
    async def DictUpdate(self, request: api_pb2.DictUpdateRequest, caller: Caller) -> api_pb2.DictUpdateResponse:
        entries = self._entries(request.dict_id)
        _check(request.updates)
        if request.if_not_exists:
            if len(request.updates) != 1:
                # Inferred: the SDK sends one.
                raise GRPCError(Status.INVALID_ARGUMENT, "if_not_exists takes exactly one entry")
            if request.updates[0].key in entries:
                return api_pb2.DictUpdateResponse(created=False)
        for entry in request.updates:
            entries.put(entry.key, entry.value)
        return api_pb2.DictUpdateResponse(created=True)

    @rpc(
        repeat=READ,
        inferred=("reading an entry, also by `DictContents`, extends its life; `DictContains` and `DictLen` do not."),
    )
    async def DictGet(self, request: api_pb2.DictGetRequest, caller: Caller) -> api_pb2.DictGetResponse:
        value = self._entries(request.dict_id).get(request.key)
        return api_pb2.DictGetResponse(found=value is not None, value=value)

    @rpc(repeat=CHANGE, needs_room=False)
    async def DictPop(self, request: api_pb2.DictPopRequest, caller: Caller) -> api_pb2.DictPopResponse:
        value = self._entries(request.dict_id).pop(request.key)
        return api_pb2.DictPopResponse(found=value is not None, value=value)

    @rpc(repeat=READ)
    async def DictContains(self, request: api_pb2.DictContainsRequest, caller: Caller) -> api_pb2.DictContainsResponse:
        return api_pb2.DictContainsResponse(found=request.key in self._entries(request.dict_id))

    @rpc(repeat=READ)
    async def DictLen(self, request: api_pb2.DictLenRequest, caller: Caller) -> api_pb2.DictLenResponse:
        return api_pb2.DictLenResponse(len=min(len(self._entries(request.dict_id)), MAX_REPORTED_LENGTH))

    @rpc(repeat=CHANGE, needs_room=False)
    async def DictClear(self, request: api_pb2.DictClearRequest, caller: Caller) -> Empty:
        self._entries(request.dict_id).clear()
        return Empty()

    @rpc(repeat=READ)
    async def DictContents(
        self, request: api_pb2.DictContentsRequest, caller: Caller
    ) -> AsyncIterator[api_pb2.DictEntry]:
        # Each value comes with its key: the SDK names the key if it cannot read the value.
        for key, value in self._entries(request.dict_id).snapshot():
            yield api_pb2.DictEntry(key=key, value=value if request.values else b"")

    def _forget(self, gone: Dict) -> None:
        self._records.discard_all(gone.object_id)

    def _entries(self, dict_id: str) -> DictEntries:
        return self._dicts.get(dict_id).entries


def _check(updates: Iterable[api_pb2.DictEntry]) -> None:
    entries = list(updates)
    if len(entries) > MAX_ENTRIES_PER_UPDATE:
        # Status and wording are inferred.
        raise GRPCError(
            Status.INVALID_ARGUMENT,
            f"An update of {len(entries)} entries is too large; expected at most {MAX_ENTRIES_PER_UPDATE}",
        )
    largest = max((len(e.key) + len(e.value) for e in entries), default=0)
    if largest > MAX_ITEM_BYTES:
        # The SDK's ``Dict.update`` and ``Dict.put`` search for "status = '413'", the answer of Modal's gateway.
        raise GRPCError(
            Status.INVALID_ARGUMENT,
            f"An entry of {largest} bytes is too large; expected at most {MAX_ITEM_BYTES} (status = '413')",
        )
