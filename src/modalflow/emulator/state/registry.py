"""Objects found by name in an environment or by id: the common part of Dicts, Queues, Volumes and Secrets.

Owns names, ids, the creation modes, ephemeral lifetimes, the order of listings, and their records. Other contents of an
object belong to its service.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator import clock
from modalflow.emulator.ids import new_id
from modalflow.emulator.services.environments import Environments
from modalflow.emulator.state.journal import Journal, Table

#: Clients heartbeat an ephemeral object every 300 seconds (``EPHEMERAL_OBJECT_HEARTBEAT_SLEEP`` in modal/_object.py).
#: After three missed heartbeats it expires (inferred).
EPHEMERAL_LIFETIME = 900.0

CREATED_BY = "local"

_ANONYMOUS = (api_pb2.OBJECT_CREATION_TYPE_EPHEMERAL, api_pb2.OBJECT_CREATION_TYPE_ANONYMOUS_OWNED_BY_APP)


@dataclass(kw_only=True)
class StoredObject:
    """The common fields of every object. ``name`` is empty for an anonymous one."""

    RECORDED: ClassVar[tuple[str, ...]] = ("object_id", "name", "environment", "created_at", "expires_at")
    """The fields kept on disk, as keywords of the class."""

    object_id: str
    name: str
    environment: str
    created_at: float
    expires_at: float | None = None

    @property
    def creation_info(self) -> api_pb2.CreationInfo:
        return api_pb2.CreationInfo(created_at=self.created_at, created_by=CREATED_BY)

    def record(self) -> dict[str, Any]:
        """Return the fields to keep, in types supported by CBOR."""
        return {name: getattr(self, name) for name in self.RECORDED}


T = TypeVar("T", bound=StoredObject)


class Registry(Generic[T]):
    """The objects of one kind. ``noun`` and ``prefix`` are Modal's, e.g. ``Dict`` and ``di``.

    The SDK catches these statuses (NotFoundError and AlreadyExistsError, e.g. in ``Dict.objects``). It does not read
    their texts, and the texts are inferred.
    """

    def __init__(
        self,
        noun: str,
        prefix: str,
        kind: type[T],
        environments: Environments,
        journal: Journal,
        *,
        clock: Callable[[], float] = clock.now,
        on_delete: Callable[[T], None] | None = None,
    ) -> None:
        """Load the objects recorded in the journal."""
        self._noun, self._prefix, self._kind = noun, prefix, kind
        self._environments, self._clock, self._on_delete = environments, clock, on_delete
        self._by_id: dict[str, T] = {}
        self._by_name: dict[tuple[str, str], T] = {}
        self._ephemeral: dict[str, T] = {}
        self._newest = 0.0
        self._records: Table[T] = journal.table(f"{noun.lower()}_objects", lambda kept: kept.record())
        for _, _, record in self._records.load():
            self._add(kind(**record))
        for kept in self._ephemeral.values():
            # Its clients could not heartbeat while the control plane was not running.
            kept.expires_at = clock() + EPHEMERAL_LIFETIME
        environments.subscribe(self)

    def all(self) -> list[T]:
        """Return every object, the oldest first."""
        return list(self._by_id.values())

    def save(self, kept: T) -> None:
        """Record the object's present fields."""
        self._records.put("", kept.object_id, kept)

    def get_or_create(self, name: str, environment_name: str, mode: int) -> tuple[T, bool]:
        """Find or create the object according to the creation mode; return it and whether it is new.

        OVERWRITE returns the existing object, with its id, because references to it must not break. Its service
        replaces the content.
        """
        self._drop_expired()
        environment = self._environments.resolve(environment_name)
        if mode in _ANONYMOUS:
            expires = self._clock() + EPHEMERAL_LIFETIME if mode == api_pb2.OBJECT_CREATION_TYPE_EPHEMERAL else None
            return self._make("", environment, expires), True
        existing = self._by_name.get((environment, name))
        if existing is not None:
            if mode == api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
                raise GRPCError(
                    Status.ALREADY_EXISTS, f"{self._noun} {name!r} already exists in environment {environment!r}"
                )
            return existing, False
        if mode == api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED:
            raise GRPCError(Status.NOT_FOUND, f"{self._noun} {name!r} not found in environment {environment!r}")
        if not name:
            raise GRPCError(Status.INVALID_ARGUMENT, f"The name of a {self._noun} must not be empty")
        return self._make(name, environment, None), True

    def get(self, object_id: str) -> T:
        self._drop_expired()
        kept = self._by_id.get(object_id)
        if kept is None:
            raise GRPCError(Status.NOT_FOUND, f"{self._noun} {object_id!r} not found")
        return kept

    def delete(self, object_id: str) -> None:
        kept = self.get(object_id)
        if kept.name:
            del self._by_name[kept.environment, kept.name]
        self._drop(kept)

    def rename(self, object_id: str, name: str) -> None:
        kept = self.get(object_id)
        if not name:
            raise GRPCError(Status.INVALID_ARGUMENT, f"The name of a {self._noun} must not be empty")
        if (kept.environment, name) in self._by_name:
            raise GRPCError(Status.ALREADY_EXISTS, f"{self._noun} {name!r} already exists")
        if kept.name:
            del self._by_name[kept.environment, kept.name]
        kept.name = name
        self._by_name[kept.environment, name] = kept
        self.save(kept)

    def heartbeat(self, object_id: str) -> None:
        kept = self.get(object_id)
        if kept.expires_at is not None:
            # Not worth a record: after a restart the object gets a whole lifetime anyway.
            kept.expires_at = self._clock() + EPHEMERAL_LIFETIME

    def listed(self, environment_name: str, pagination: api_pb2.ListPagination) -> list[T]:
        """Return one page of an environment's named objects, newest first; a page limit of 0 means no limit."""
        environment = self._environments.resolve(environment_name)
        before = pagination.created_before or float("inf")
        page = [kept for (where, _), kept in self._by_name.items() if where == environment and kept.created_at < before]
        page.sort(key=lambda kept: kept.created_at, reverse=True)
        return page[: pagination.max_objects or None]

    def _make(self, name: str, environment: str, expires_at: float | None) -> T:
        # Creation times are the page marks of a listing. Equal times would let an object fall between two pages. Times
        # finer than the microseconds of the SDK's datetimes would change on the way.
        kept = self._kind(
            object_id=new_id(self._prefix),
            name=name,
            environment=environment,
            created_at=round(max(self._clock(), self._newest + 1e-6), 6),
            expires_at=expires_at,
        )
        self._add(kept)
        self.save(kept)
        return kept

    def _add(self, kept: T) -> None:
        self._newest = max(self._newest, kept.created_at)
        self._by_id[kept.object_id] = kept
        if kept.expires_at is not None:
            self._ephemeral[kept.object_id] = kept
        if kept.name:
            self._by_name[kept.environment, kept.name] = kept

    def _drop(self, kept: T) -> None:
        del self._by_id[kept.object_id]
        self._ephemeral.pop(kept.object_id, None)
        self._records.discard("", kept.object_id)
        if self._on_delete is not None:
            self._on_delete(kept)

    def _drop_expired(self) -> None:
        now = self._clock()
        for kept in [k for k in self._ephemeral.values() if (k.expires_at or now) < now]:
            self._drop(kept)

    def environment_changed(self, old: str, new: str | None) -> None:
        for kept in [k for k in self._by_id.values() if k.environment == old]:
            if new is None:
                self.delete(kept.object_id)
                continue
            if kept.name:
                self._by_name[new, kept.name] = self._by_name.pop((old, kept.name))
            kept.environment = new
            self.save(kept)
