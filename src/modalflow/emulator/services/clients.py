"""The RPCs of a client that starts: its greeting, its auth token and the name of the workspace."""

from __future__ import annotations

import base64
import json

from google.protobuf.empty_pb2 import Empty
from modal_proto import api_pb2

from modalflow.emulator import clock
from modalflow.emulator.rpc.idempotency import READ
from modalflow.emulator.rpc.service import Caller, Service, rpc
from modalflow.emulator.rpc.wire import message
from modalflow.emulator.services.environments import IMAGE_BUILDER_VERSION

WORKSPACE = "local"

#: Seconds for which an auth token is valid. The SDK renews it; nothing here checks it.
AUTH_TOKEN_LIFETIME = 7 * 24 * 3600


class Clients(Service):
    """The RPCs of a client that starts."""

    @rpc(repeat=READ)
    async def ClientHello(self, request: Empty, caller: Caller) -> api_pb2.ClientHelloResponse:
        return message(api_pb2.ClientHelloResponse, image_builder_version=IMAGE_BUILDER_VERSION)

    @rpc(repeat=READ, inferred="an unsigned token that nothing checks: there is no input plane here.")
    async def AuthTokenGet(self, request: api_pb2.AuthTokenGetRequest, caller: Caller) -> api_pb2.AuthTokenGetResponse:
        """Return a token in the form of a JWT: the SDK reads its expiry, and no signature."""
        claims = {"exp": int(clock.now()) + AUTH_TOKEN_LIFETIME, "iat": int(clock.now())}
        parts = ({"alg": "none", "typ": "JWT"}, claims)
        encoded = [base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts]
        return api_pb2.AuthTokenGetResponse(token=".".join([*encoded, ""]))

    @rpc(repeat=READ)
    async def WorkspaceNameLookup(self, request: Empty, caller: Caller) -> api_pb2.WorkspaceNameLookupResponse:
        return message(api_pb2.WorkspaceNameLookupResponse, workspace_name=WORKSPACE, username=WORKSPACE)
