"""Modal environments: the namespaces that every named object lives in.

Owns the environments and their settings. Services with objects in environments subscribe, and follow a rename or a
deletion.

The SDK prints the errors as they come (modal/cli/environment.py). It is inferred how they are worded, and that the
default environment cannot be deleted.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Protocol

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator import clock
from modalflow.emulator.ids import new_id
from modalflow.emulator.rpc.idempotency import CHANGE, READ
from modalflow.emulator.rpc.service import Caller, Service, rpc
from modalflow.emulator.rpc.wire import message, optional
from modalflow.emulator.state.journal import Journal, Table

DEFAULT_ENVIRONMENT = "main"

#: The newest one that every supported SDK knows (``ImageBuilderVersion`` in modal/_image.py).
IMAGE_BUILDER_VERSION = "2025.06"


class EnvironmentMember(Protocol):
    """A service with objects in environments."""

    def environment_changed(self, old: str, new: str | None) -> None:
        """Follow the rename of an environment, or its deletion if ``new`` is None."""
        ...


@dataclass
class Environment:
    """One Modal environment and its settings."""

    name: str
    web_suffix: str = ""
    image_builder_version: str = IMAGE_BUILDER_VERSION
    environment_type: int = 0
    is_managed: bool = False
    object_id: str = field(default_factory=lambda: new_id("en"))
    created_at: float = field(default_factory=clock.now)


class Environments(Service):
    """The Environment RPCs, and the resolution of names for all other services."""

    def __init__(self, journal: Journal) -> None:
        self._records: Table[Environment] = journal.table("environments", asdict)
        self._by_name = {kept.name: kept for kept in (Environment(**record) for _, _, record in self._records.load())}
        self._members: list[EnvironmentMember] = []
        if DEFAULT_ENVIRONMENT not in self._by_name:
            self._add(Environment(DEFAULT_ENVIRONMENT))

    def subscribe(self, member: EnvironmentMember) -> None:
        """Notify a service of every rename and deletion, after it happened."""
        self._members.append(member)

    def resolve(self, name: str) -> str:
        """Return the environment's name, the default one's for ``""``; NOT_FOUND for an unknown one."""
        return self.get(name).name

    def get(self, name: str) -> Environment:
        environment = self._by_name.get(name or DEFAULT_ENVIRONMENT)
        if environment is None:
            raise GRPCError(
                Status.NOT_FOUND,
                f"Environment {name!r} not found; create it with `modal environment create {name}`",
            )
        return environment

    def by_id(self, environment_id: str) -> Environment:
        """Return the environment of that id; NOT_FOUND for an unknown one."""
        for environment in self._by_name.values():
            if environment.object_id == environment_id:
                return environment
        raise GRPCError(Status.NOT_FOUND, f"Environment {environment_id!r} not found")

    @rpc(repeat=CHANGE)
    async def EnvironmentGetOrCreate(
        self, request: api_pb2.EnvironmentGetOrCreateRequest, caller: Caller
    ) -> api_pb2.EnvironmentGetOrCreateResponse:
        name = request.deployment_name or DEFAULT_ENVIRONMENT
        mode = request.object_creation_type
        if name in self._by_name:
            if mode == api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
                raise GRPCError(Status.ALREADY_EXISTS, f"Environment {name!r} already exists")
        elif mode != api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED:
            self._add(Environment(name))
        environment = self.get(name)
        return message(
            api_pb2.EnvironmentGetOrCreateResponse,
            environment_id=environment.object_id,
            metadata=message(
                api_pb2.EnvironmentMetadata,
                name=environment.name,
                environment_type=environment.environment_type,
                settings=message(
                    api_pb2.EnvironmentSettings,
                    image_builder_version=environment.image_builder_version,
                    webhook_suffix=environment.web_suffix,
                ),
            ),
        )

    @rpc(repeat=CHANGE)
    async def EnvironmentCreate(self, request: api_pb2.EnvironmentCreateRequest, caller: Caller) -> Empty:
        if not request.name:
            raise GRPCError(Status.INVALID_ARGUMENT, "The name of an environment must not be empty")
        if request.name in self._by_name:
            raise GRPCError(Status.ALREADY_EXISTS, f"Environment {request.name!r} already exists")
        managed = bool(optional(request, "is_managed"))
        if optional(request, "default_member_role_str") and not managed:
            raise GRPCError(
                Status.INVALID_ARGUMENT, "A default member role can only be set for a restricted environment"
            )
        self._add(
            Environment(
                request.name,
                web_suffix=request.name,
                environment_type=optional(request, "environment_type") or 0,
                is_managed=managed,
            )
        )
        return Empty()

    @rpc(repeat=READ)
    async def EnvironmentList(self, request: Empty, caller: Caller) -> api_pb2.EnvironmentListResponse:
        return api_pb2.EnvironmentListResponse(items=[_item(e) for e in self._by_name.values()])

    @rpc(repeat=CHANGE)
    async def EnvironmentUpdate(
        self, request: api_pb2.EnvironmentUpdateRequest, caller: Caller
    ) -> api_pb2.EnvironmentListItem:
        environment = self.get(request.current_name)
        if request.HasField("name") and request.name.value != environment.name:
            self._rename(environment, request.name.value)
        if request.HasField("web_suffix"):
            environment.web_suffix = request.web_suffix.value
        environment.image_builder_version = (
            optional(request, "image_builder_version") or environment.image_builder_version
        )
        self._records.put("", environment.object_id, environment)
        return _item(environment)

    @rpc(repeat=CHANGE, needs_room=False)
    async def EnvironmentDelete(self, request: api_pb2.EnvironmentDeleteRequest, caller: Caller) -> Empty:
        environment = self.get(request.name)
        if environment.name == DEFAULT_ENVIRONMENT:
            raise GRPCError(Status.FAILED_PRECONDITION, f"{DEFAULT_ENVIRONMENT!r} is the default: it cannot be deleted")
        del self._by_name[environment.name]
        self._records.discard("", environment.object_id)
        self._notify(environment.name, None)
        return Empty()

    def _add(self, environment: Environment) -> None:
        self._by_name[environment.name] = environment
        self._records.put("", environment.object_id, environment)

    def _rename(self, environment: Environment, name: str) -> None:
        old = environment.name
        if not name:
            raise GRPCError(Status.INVALID_ARGUMENT, "The name of an environment must not be empty")
        if name in self._by_name:
            raise GRPCError(Status.ALREADY_EXISTS, f"Environment {name!r} already exists")
        if old == DEFAULT_ENVIRONMENT:
            raise GRPCError(Status.FAILED_PRECONDITION, f"{DEFAULT_ENVIRONMENT!r} is the default: it keeps its name")
        self._by_name[name] = self._by_name.pop(old)
        environment.name = name
        self._notify(old, name)

    def _notify(self, old: str, new: str | None) -> None:
        for member in self._members:
            member.environment_changed(old, new)


def _item(environment: Environment) -> api_pb2.EnvironmentListItem:
    return message(
        api_pb2.EnvironmentListItem,
        name=environment.name,
        webhook_suffix=environment.web_suffix,
        created_at=environment.created_at,
        default=environment.name == DEFAULT_ENVIRONMENT,
        is_managed=environment.is_managed,
        environment_id=environment.object_id,
        environment_type=environment.environment_type,
        image_builder_version=environment.image_builder_version,
    )
