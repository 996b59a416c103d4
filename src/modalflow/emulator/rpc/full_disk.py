"""Which RPCs need room on the disk, and how one is refused when there is none.

Owns the table. Everything else goes on: reads, what ends or frees something, and what containers report. What those
change is in memory, and written as soon as there is room; if the control plane is killed before, it is lost.
"""

from __future__ import annotations

from google.protobuf.message import Message
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.rpc.repeats import is_change
from modalflow.emulator.state.disk_space import SMALL

ENDING = frozenset(
    {
        "AppClientDisconnect",
        "AppStop",
        "ContainerStop",
        "DictClear",
        "DictDelete",
        "DictPop",
        "EnvironmentDelete",
        "FunctionCallCancel",
        "FunctionFinishInputs",
        "ImageDelete",
        "ImageNameDelete",
        "QueueClear",
        "QueueDelete",
        "SecretDelete",
        "TaskResult",
        "VolumeDelete",
        "VolumeReload",
        "VolumeRemoveFile",
        "VolumeRemoveFile2",
    }
)
"""They end or free something. A reload is here because what it brings in is on disk already."""

ENDLESS = frozenset({"FunctionPutInputs", "FunctionPutOutputs", "QueuePut"})
"""The SDK repeats them without end, and without a word, if a resource is exhausted."""

_FINDING = (api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED, api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING)


def needs_room(name: str, request: Message) -> bool:
    """Whether the RPC is one to refuse if what it changes cannot be kept."""
    if isinstance(request, api_pb2.FunctionPutOutputsRequest):
        # The container reports a refused result as the call's failure, with a small one.
        succeeded = api_pb2.GenericResult.GENERIC_STATUS_SUCCESS
        return request.ByteSize() > SMALL and any(o.result.status == succeeded for o in request.outputs)
    return is_change(name) and name not in ENDING


def lookup(request: Message) -> Message | None:
    """Return the request to find an object, of one to make it if it is missing; None for any other."""
    name = getattr(request, "deployment_name", "") or getattr(request, "app_name", "")
    if not name or getattr(request, "object_creation_type", None) not in _FINDING:
        return None
    found = type(request)()
    found.CopyFrom(request)
    found.ClearField("object_creation_type")
    return found


def refused(name: str, request: Message | None, words: str) -> GRPCError:
    """Return the error that the SDK shows at once, as ResourceExhaustedError where it does not wait on that."""
    is_endless = name in ENDLESS or getattr(request, "from_spawn_map", False)
    return GRPCError(Status.FAILED_PRECONDITION if is_endless else Status.RESOURCE_EXHAUSTED, words)
