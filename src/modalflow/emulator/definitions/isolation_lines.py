"""Options that have their effect in some kinds of isolation only, each with a line for the function's log.

Owns the lines. A deployment does not have them: the kind is known once a container starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from modal_proto import api_pb2

from modalflow.emulator.processes.container_spec import Isolation


def lines_of(spec: api_pb2.Function, isolation: Isolation, *, has_gpus: bool) -> list[str]:
    """Return a line for each option without effect in this isolation. ``has_gpus``: the container got GPUs."""
    lines: list[str] = []
    if isolation is Isolation.GVISOR and has_gpus:
        lines.append("gets GPUs by number alone: a container in gVisor has no devices of this machine")
    if isolation is Isolation.PLAIN:
        lines += _without_namespaces(spec)
    return list(dict.fromkeys(lines))


def _without_namespaces(spec: api_pb2.Function) -> Iterator[str]:
    mounts = [(mount.mount_path, mount.read_only) for mount in spec.volume_mounts]
    mounts += [(mount.mount_path, mount.read_only) for mount in spec.cloud_bucket_mounts]
    for mount_path, is_read_only in mounts:
        path = PurePosixPath("/", mount_path.strip("/"))
        if not path.is_relative_to("/root"):
            yield f"asks for a mount at {path} and has none there: without namespaces, mounts are below its home alone"
        if is_read_only:
            yield f"asks for a read-only mount at {path} and is able to write there: no namespaces are available here"
