"""Log entries as Modal sends them: in batches, each of one container."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from modal_proto import api_pb2

from modalflow.emulator.logs.log_records import LogEntry
from modalflow.emulator.rpc.wire import message

#: The most entries in one batch, and characters after which it gets no further ones.
BATCH = 500
BATCH_SIZE = 2**20

NANOSECONDS = 1_000_000_000


def batches(entries: Iterable[LogEntry]) -> Iterator[api_pb2.TaskLogsBatch]:
    """Group entries as Modal sends them: neighbours of one container in one batch, in order."""
    batch: api_pb2.TaskLogsBatch | None = None
    size = 0
    for entry in entries:
        is_full = batch is not None and (len(batch.items) >= BATCH or size >= BATCH_SIZE)
        if batch is None or batch.task_id != entry.container_id or is_full:
            size = 0
            if batch is not None:
                yield batch
            batch = message(
                api_pb2.TaskLogsBatch,
                task_id=entry.container_id,
                function_id=entry.function_id,
                root_function_id=entry.root_function_id,
                input_id=entry.input_id,
            )
        size += len(entry.data)
        batch.entry_id = f"{entry.number}-0"
        batch.items.append(item(entry))
    if batch is not None:
        yield batch


def item(entry: LogEntry) -> api_pb2.TaskLogs:
    """Return an entry as Modal sends it."""
    return message(
        api_pb2.TaskLogs,
        data=entry.data,
        timestamp=entry.timestamp_ns / NANOSECONDS,
        timestamp_ns=entry.timestamp_ns,
        file_descriptor=entry.source,
        function_call_id=entry.function_call_id,
        input_id=entry.input_id,
    )
