"""Options of a function that are accepted without effect, each with a line for the function's log.

Owns the tables. function.py refuses unsupported features (``refuse_unsupported``), capacity.py fits resources to the
machine. A test finds every field of a definition in one of these tables, or among the fields with an effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modal_proto import api_pb2

from modalflow.emulator.rpc.wire import optional

_SNAPSHOT = "asks for memory snapshots and starts without them: each container imports its modules again"
_GPU_SNAPSHOT = "asks for snapshots of GPU memory and starts without them: none are taken here"

#: Field of a definition → the line if it is set. A ``{}`` is its value.
OF_FUNCTION: Mapping[str, str] = {
    "i6pn_enabled": "asks for i6pn and runs without it: containers here share the network of this machine",
    "checkpointing_enabled": _SNAPSHOT,
    "is_checkpointing_function": _SNAPSHOT,
    "is_auto_snapshot": _SNAPSHOT,
    "_experimental_enable_gpu_snapshot": _GPU_SNAPSHOT,
    "enable_gpu_snapshot": _GPU_SNAPSHOT,
    "cloud_provider_str": "asks for cloud={} and runs on this machine",
    "routing_region": "asks for routing_region={}: calls reach it on this machine",
    "worker_id": "asks for the worker {} and runs on this machine",
    "runtime": "asks for the runtime {} and runs in this machine's runtime",
    "rate_limit": "asks for a rate limit and has none",
    "_experimental_custom_scaling": "asks for custom scaling and is scaled like any other function",
    "_experimental_task_templates_enabled": "asks for task templates and runs without them",
}

OF_RESOURCES: Mapping[str, str] = {
    "ephemeral_disk_mb": "asks for ephemeral_disk={} MiB and has the free space of this machine",
    "rdma": "asks for RDMA and runs without it",
}

OF_PLACEMENT: Mapping[str, str] = {
    "regions": "asks for region={} and runs on this machine",
    "_zone": "asks for zone {} and runs on this machine",
    "_instance_types": "asks for instance types {} and runs on this machine",
    "_lifecycle": "asks for {} instances and runs on this machine",
}

#: Values that the SDK sends for every Function, or removes from ``experimental_options`` itself.
_USUAL: Mapping[str, object] = {"runtime": "gvisor"}


def ignored_options(definition: api_pb2.Function) -> list[str]:
    """Return a line for each option of the definition that has no effect here."""
    placement = optional(definition, "scheduler_placement") or api_pb2.SchedulerPlacement()
    lines_found = [
        line.format(_shown(value))
        for message, lines in (
            (definition, OF_FUNCTION),
            (definition.resources, OF_RESOURCES),
            (placement, OF_PLACEMENT),
        )
        for field, line in lines.items()
        if (value := optional(message, field)) and value != _USUAL.get(field)
    ]
    lines_found += [
        f"has the experimental option {name}={_shown(value)}, which has no effect here"
        for name, value in sorted((optional(definition, "experimental_options") or {}).items())
    ]
    return list(dict.fromkeys(lines_found))


def _shown(value: Any) -> str:
    # Repeated fields of a message have a length, but are no Iterable to isinstance.
    if isinstance(value, str) or not hasattr(value, "__len__"):
        return str(value)
    return ", ".join(str(each) for each in value)
