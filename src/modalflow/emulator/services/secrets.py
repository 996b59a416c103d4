"""Modal Secrets: sets of environment variables that functions are started with.

Owns the values. A state folder holds them in its file of records, unencrypted but readable by this user only. No value
is written to a log.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator import clock
from modalflow.emulator.rpc.idempotency import CHANGE, READ
from modalflow.emulator.rpc.service import Caller, Service, rpc
from modalflow.emulator.rpc.wire import message, optional
from modalflow.emulator.services.environments import Environments
from modalflow.emulator.state.journal import Journal
from modalflow.emulator.state.registry import Registry, StoredObject

#: A use of a Secret is recorded only if the last recorded one is this old: nothing but listings shows it.
USE_NOTED_AFTER = 60.0


@dataclass(kw_only=True)
class Secret(StoredObject):
    """One Modal Secret."""

    RECORDED: ClassVar[tuple[str, ...]] = (*StoredObject.RECORDED, "values", "last_used_at")

    values: dict[str, str] = field(default_factory=dict, repr=False)
    last_used_at: float = 0.0

    @property
    def metadata(self) -> api_pb2.SecretMetadata:
        return message(
            api_pb2.SecretMetadata,
            name=self.name,
            creation_info=self.creation_info,
            keys=sorted(self.values),
            environment_name=self.environment,
            last_used_at=self.last_used_at,
        )


class Secrets(Service):
    """The Secret RPCs; the launcher uses ``values``."""

    def __init__(self, environments: Environments, journal: Journal) -> None:
        self._secrets = Registry("Secret", "st", Secret, environments, journal)

    def values(self, secret_id: str) -> dict[str, str]:
        """Return the variables of a Secret and record its use; NOT_FOUND for an unknown one."""
        secret = self._secrets.get(secret_id)
        before, secret.last_used_at = secret.last_used_at, clock.now()
        if secret.last_used_at - before >= USE_NOTED_AFTER:
            self._secrets.save(secret)
        return dict(secret.values)

    @rpc(repeat=CHANGE)
    async def SecretGetOrCreate(
        self, request: api_pb2.SecretGetOrCreateRequest, caller: Caller
    ) -> api_pb2.SecretGetOrCreateResponse:
        mode = request.object_creation_type
        secret, new = self._secrets.get_or_create(request.deployment_name, request.environment_name, mode)
        if new or mode == api_pb2.OBJECT_CREATION_TYPE_CREATE_OVERWRITE_IF_EXISTS:
            secret.values = dict(request.env_dict)
            # The SDK sends no heartbeats for an ephemeral Secret, and functions refer to it by its id.
            secret.expires_at = None
            self._secrets.save(secret)
        _require(secret, request.required_keys)
        return message(api_pb2.SecretGetOrCreateResponse, secret_id=secret.object_id, metadata=secret.metadata)

    @rpc(repeat=READ)
    async def SecretGetInfo(
        self, request: api_pb2.SecretGetInfoRequest, caller: Caller
    ) -> api_pb2.SecretGetInfoResponse:
        return api_pb2.SecretGetInfoResponse(metadata=self._secrets.get(request.secret_id).metadata)

    @rpc(repeat=CHANGE, inferred="running containers keep the values from their start.")
    async def SecretUpdate(self, request: api_pb2.SecretUpdateRequest, caller: Caller) -> Empty:
        secret = self._secrets.get(request.secret_id)
        for update in request.updates:
            value = optional(update, "value")
            if value is None:
                secret.values.pop(update.key, None)
            else:
                secret.values[update.key] = value
        self._secrets.save(secret)
        return Empty()

    @rpc(repeat=READ)
    async def SecretList(self, request: api_pb2.SecretListRequest, caller: Caller) -> api_pb2.SecretListResponse:
        return message(
            api_pb2.SecretListResponse,
            environment_name=request.environment_name,
            items=[
                message(
                    api_pb2.SecretListItem,
                    label=s.name,
                    created_at=s.created_at,
                    last_used_at=s.last_used_at,
                    environment_name=s.environment,
                    secret_id=s.object_id,
                    metadata=s.metadata,
                )
                for s in self._secrets.listed(request.environment_name, request.pagination)
            ],
        )

    @rpc(repeat=CHANGE, needs_room=False)
    async def SecretDelete(self, request: api_pb2.SecretDeleteRequest, caller: Caller) -> Empty:
        self._secrets.delete(request.secret_id)
        return Empty()


def _require(secret: Secret, keys: Iterable[str]) -> None:
    missing = sorted(set(keys) - set(secret.values))
    if missing:
        # Inferred: the SDK only passes the keys on (``required_keys`` of ``Secret.from_name``).
        raise GRPCError(
            Status.INVALID_ARGUMENT,
            f"Secret {secret.name!r} is missing required key(s): {', '.join(missing)}; "
            f"it has: {', '.join(sorted(secret.values)) or 'none'}",
        )
