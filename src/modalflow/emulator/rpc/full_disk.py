"""How an RPC is refused if the disk has no room for what it changes.

Owns the refusal. Which RPCs need room, their handlers declare. Everything else goes on: reads, what ends or frees
something, and what containers report. Those changes are in memory, and are written as soon as there is room; if the
control plane is killed before, they are lost.
"""

from __future__ import annotations

from google.protobuf.message import Message
from grpclib import GRPCError, Status
from modal_proto import api_pb2

_FINDING = (api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED, api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING)


def lookup(request: Message) -> Message | None:
    """Return the request to find an object, for one to make it if it is missing; None for any other."""
    name = getattr(request, "deployment_name", "") or getattr(request, "app_name", "")
    if not name or getattr(request, "object_creation_type", None) not in _FINDING:
        return None
    found = type(request)()
    found.CopyFrom(request)
    found.ClearField("object_creation_type")
    return found


def refused(words: str, request: Message | None, *, retried_forever: bool) -> GRPCError:
    """Return an error that the SDK raises at once; ResourceExhaustedError unless it would retry that forever."""
    forever = retried_forever or getattr(request, "from_spawn_map", False)
    return GRPCError(Status.FAILED_PRECONDITION if forever else Status.RESOURCE_EXHAUSTED, words)
