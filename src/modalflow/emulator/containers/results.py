"""Results that the control plane creates for a container, and descriptions of exit codes.

Owns the texts for users if their own code could not report: timeouts, cancellations, crashes. The SDK's
``_process_result`` (modal/_utils/function_utils.py) chooses the exception by the status; it reads no texts, and all are
inferred.
"""

from __future__ import annotations

import signal

from modal_proto import api_pb2

from modalflow.emulator.rpc.wire import sendable

_STATUSES = api_pb2.GenericResult.GenericStatus

#: The status of a container over its memory limit; SDKs without this status get a failure.
OUT_OF_MEMORY = dict(_STATUSES.items()).get(
    "GENERIC_STATUS_KERNEL_OOM_KILL", api_pb2.GenericResult.GENERIC_STATUS_FAILURE
)


def terminated(reason: str) -> api_pb2.GenericResult:
    """Return TERMINATED, a RemoteError in the SDK."""
    return api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_TERMINATED, exception=sendable(reason))


def timed_out(container_id: str, seconds: float) -> api_pb2.GenericResult:
    """Return TIMEOUT, a FunctionTimeoutError in the SDK."""
    return api_pb2.GenericResult(
        status=api_pb2.GenericResult.GENERIC_STATUS_TIMEOUT,
        exception=f"Timed out: container {container_id} ran this input for longer than its timeout of {seconds:g} s",
    )


def startup_timed_out(container_id: str, seconds: float) -> api_pb2.GenericResult:
    """Return TIMEOUT, a FunctionTimeoutError in the SDK. Inferred: the SDK has no other kind of timeout."""
    return api_pb2.GenericResult(
        status=api_pb2.GenericResult.GENERIC_STATUS_TIMEOUT,
        exception=f"Timed out: container {container_id} did not start within its startup timeout of {seconds:g} s",
    )


def crashed(reason: str, exitcode: int) -> api_pb2.GenericResult:
    """Return FAILURE for an input in a crashed container. Without data it is a RemoteError in the SDK."""
    return api_pb2.GenericResult(
        status=api_pb2.GenericResult.GENERIC_STATUS_FAILURE, exception=sendable(reason), exitcode=exitcode
    )


def failed_to_start(container_id: str, ending: str, stderr: str, tries: int) -> api_pb2.GenericResult:
    """Return INIT_FAILURE, a RemoteError in the SDK."""
    reason = f"container {container_id} {ending} before it took an input; it was the last of {tries} tries"
    if stderr:
        reason += f". Its last output:\n{stderr}"
    return api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_INIT_FAILURE, exception=sendable(reason))


def cannot_start(function: str, reason: str) -> api_pb2.GenericResult:
    """Return a failure for a function without any chance to run. Inferred: on Modal it would wait for capacity."""
    return api_pb2.GenericResult(
        status=api_pb2.GenericResult.GENERIC_STATUS_INIT_FAILURE,
        exception=sendable(f"{function} cannot run here: {reason}"),
    )


def out_of_memory(container_id: str, used_mib: int, limit_mib: int) -> api_pb2.GenericResult:
    """Return the result of a container over its memory limit, with the exit code of a killed process."""
    return api_pb2.GenericResult(
        status=OUT_OF_MEMORY,
        exception=f"container {container_id} ran out of memory: {used_mib} MiB in use, the limit is {limit_mib} MiB",
        exitcode=137,
    )


def describe_ending(returncode: int) -> str:
    """Describe the end of a process: ``exited with signal 9 (SIGKILL)``, ``exited with code 3``.

    A shell between the control plane and the container reports a signal as 128 + its number.
    """
    number = -returncode if returncode < 0 else returncode - 128
    if number > 0:
        try:
            return f"exited with signal {number} ({signal.Signals(number).name})"
        except ValueError:
            pass
    return f"exited with code {returncode}"
