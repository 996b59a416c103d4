"""What becomes of a call that is repeated because its answer got lost: the SDK sends it with the same idempotency key.

Owns the table. An RPC that changes something is answered a second time as it was the first time, without a second
effect; that is the rule, and what stands in none of the other lists follows it. A test fails when an RPC that is
answered here stands in no list at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

CHANGES = frozenset(
    {
        "AppClientDisconnect",
        "AppCreate",
        "AppGetOrCreate",
        "AppPromote",
        "AppPublish",
        "AppRollback",
        "AppRollover",
        "AppSetTags",
        "AppStop",
        "ClassCreate",
        "ContainerStop",
        "DictClear",
        "DictDelete",
        "DictGetOrCreate",
        "DictPop",
        "DictUpdate",
        "EnvironmentCreate",
        "EnvironmentDelete",
        "EnvironmentGetOrCreate",
        "EnvironmentUpdate",
        "FunctionBindParams",
        "FunctionCallCancel",
        "FunctionCallPutDataOut",
        "FunctionCreate",
        "FunctionFinishInputs",
        "FunctionMap",
        "FunctionPrecreate",
        "FunctionPutInputs",
        "FunctionPutOutputs",
        "FunctionUpdateSchedulingParams",
        "ImageDelete",
        "ImageGetOrCreate",
        "ImageNameDelete",
        "ImagePublish",
        "MountGetOrCreate",
        "QueueClear",
        "QueueDelete",
        "QueueGetOrCreate",
        "QueuePut",
        "SecretDelete",
        "SecretGetOrCreate",
        "SecretUpdate",
        "TaskResult",
        "VolumeCommit",
        "VolumeCopyFiles",
        "VolumeCopyFiles2",
        "VolumeDelete",
        "VolumeGetOrCreate",
        "VolumePutFiles",
        "VolumePutFiles2",
        "VolumeReload",
        "VolumeRemoveFile",
        "VolumeRemoveFile2",
        "VolumeRename",
    }
)
"""They change something: one effect and one answer for each idempotency key."""

READS = frozenset(
    {
        "AppCountLogs",
        "AppDeploymentHistory",
        "AppFetchLogs",
        "AppGetByDeploymentName",
        "AppGetInfo",
        "AppGetLayout",
        "AppGetLifecycle",
        "AppGetTags",
        "AppList",
        "AuthTokenGet",
        "BlobGet",
        "ClassGet",
        "ClientHello",
        "ContainerHello",
        "DictContains",
        "DictGet",
        "DictGetById",
        "DictLen",
        "DictList",
        "EnvironmentGetRoles",
        "EnvironmentList",
        "FunctionCallFromId",
        "FunctionCallGetInfo",
        "FunctionCallList",
        "FunctionGet",
        "FunctionGetById",
        "FunctionGetCallGraph",
        "FunctionGetCurrentStats",
        "FunctionGetDynamicConcurrency",
        "FunctionGetSchedulingParams",
        "ImageBuildChainGet",
        "ImageFromId",
        "ImageGetByTag",
        "ImageListTags",
        "ImageTagRevisions",
        "MountBatchedCheckExistence",
        "ObjectSuggest",
        "QueueGetById",
        "QueueLen",
        "QueueList",
        "QueueNextItems",
        "SecretGetInfo",
        "SecretList",
        "TaskGetInfo",
        "TaskList",
        "TokenInfoGet",
        "VolumeGetById",
        "VolumeGetFile2",
        "VolumeList",
        "WorkspaceMembersList",
        "WorkspaceNameLookup",
    }
)
"""They change nothing that a client could tell: whoever asks again is told how it is now."""

ANEW: Mapping[str, str] = {
    "AppHeartbeat": "it says that the client lives, which a repetition says as well",
    "BlobCreate": "an address that nobody uploads to costs nothing; one made before a restart would be a dead one",
    "ContainerHeartbeat": "it is held until there is news, and news is told until the container acts on it",
    "DictHeartbeat": "it says that the client lives, which a repetition says as well",
    "MountPutFile": "a file is known by its content: the repetition finds it there",
    "QueueGet": "who hangs up while it waits must not take an item; what was delivered, the service remembers itself",
    "QueueHeartbeat": "it says that the client lives, which a repetition says as well",
    "VolumeHeartbeat": "it says that the client lives, which a repetition says as well",
}
"""They change something, and are answered anew all the same: the RPC and the reason."""


DELIVERIES: Mapping[str, Callable[[Any, Any], bool]] = {
    "FunctionGetInputs": lambda _request, answer: bool(answer.inputs),
    "FunctionGetOutputs": lambda request, answer: bool(request.clear_on_success and answer.outputs),
}
"""They are held until there is something to deliver, and deliver it once: a caller that hangs up meanwhile takes
nothing, and an answer that delivered something, as told by request and answer, is kept for a repetition."""


def is_change(name: str) -> bool:
    """Whether an RPC follows the rule: one effect, one answer."""
    return name not in READS and name not in ANEW and name not in DELIVERIES
