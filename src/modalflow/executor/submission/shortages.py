"""What the tries of task instances ran out of: kept in the ledger for their next try, and in the usage records.

A shortage is written before the end of the try is reported to Airflow, so the executor that submits the next try finds
it. Only work that ended so costs an RPC here, and its next tries. Modal drops an entry after seven days without a use.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from modalflow.cost.timeline import Timeline
from modalflow.cost.usage import OUT_OF_MEMORY, Record, Reserved, longest, most_memory
from modalflow.errors import MalformedMessageError
from modalflow.executor.connection import Connection
from modalflow.executor.lifecycle.call import Call
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.reporting.task_log_notes import TaskLogNotes
from modalflow.names import SHORTAGE, USAGE_FOLDER, TaskTry, file_name
from modalflow.protocol.messages import Entry
from modalflow.protocol.shortage import NO_SHORTAGE, Shortage
from modalflow.reasons import Cause, explain
from modalflow.support.described import describe

log = logger(__name__)

#: Longest wait of a try's end for the write of its shortage, in seconds.
PATIENCE = 10.0

#: Unwritten shortages, kept here instead.
KEPT = 1_000

#: The ends that more would have prevented.
CAUSES = (Cause.OUT_OF_MEMORY, Cause.FUNCTION_TIMEOUT)


class Shortages:
    """Writes and reads shortages."""

    def __init__(self, connection: Connection, notes: TaskLogNotes) -> None:
        self._connection = connection
        self._notes = notes
        self._unwritten: dict[str, Shortage] = {}

    async def note(self, call: Call, cause: Cause, entry: Entry | None) -> None:
        """Note the end of a call for this cause, if more would have prevented it. Raises nothing of Modal's.

        ``entry`` is what the ledger has of the try.
        """
        if cause not in CAUSES or entry is None or entry.task is None:
            return
        resources = call.submission.resources if call.submission is not None else {}
        if cause is Cause.OUT_OF_MEMORY:
            shortage = Shortage(memory_mib=most_memory(resources) if resources else entry.memory_mib)
            self._record(call, entry, resources, shortage.memory_mib)
        else:
            shortage = Shortage(timeout=longest(resources) if resources else entry.timeout)
        await self._write(SHORTAGE + entry.task.instance, shortage, call.label)

    async def of(self, task: TaskTry) -> Shortage:
        """Return what the earlier tries of a task instance ran out of. Raises what the SDK raises."""
        key = SHORTAGE + task.instance
        return await self._read(key) | self._unwritten.get(key, NO_SHORTAGE)

    async def _read(self, key: str) -> Shortage:
        text = await self._connection.get().note(key)
        try:
            return NO_SHORTAGE if text is None else Shortage.from_json(text)
        except MalformedMessageError as error:
            log.warning("%s", error)
            return NO_SHORTAGE

    async def _write(self, key: str, shortage: Shortage, label: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                before = await self._read(key)
                shortage |= before | self._unwritten.get(key, NO_SHORTAGE)
                if shortage != before:
                    await self._connection.get().put_note(key, shortage.to_json())
            self._unwritten.pop(key, None)
        except Exception as error:  # noqa: BLE001  Whatever the SDK raises, the end of the try is reported.
            log.warning("What %s ran out of could not be written to the ledger (%s)", label, describe(error))
            self._unwritten[key] = shortage
            while len(self._unwritten) > KEPT:
                del self._unwritten[next(iter(self._unwritten))]

    def _record(self, call: Call, entry: Entry, resources: Mapping[str, Any], had: float) -> None:
        """Write the usage record of a try that ran out of memory: its container could not."""
        seconds = max(0.0, time.time() - entry.started_at)
        record = Record(
            function_call_id=entry.function_call_id,
            container_id=entry.container_id,
            taken_at=entry.started_at,
            label=call.label,
            work_id=call.work_id,
            profile=call.submission.profile if call.submission is not None else "",
            outcome=OUT_OF_MEMORY,
            reserved=Reserved.read(resources) if resources else None,
            running=seconds,
            occupied=seconds,
            limit_mib=had,
            **(entry.task._asdict() if entry.task is not None else {}),
        )
        # Another executor may write the same end: then it writes the same file.
        name = file_name(f"executor-{call.work_id}.jsonl")
        path = f"{USAGE_FOLDER}/{datetime.now(UTC):%Y-%m-%d}/{name}"
        self._notes.add_file(path, record.to_line(_timeline(call, entry)).encode())


def _timeline(call: Call, entry: Entry) -> Timeline:
    reason = explain(Cause.OUT_OF_MEMORY, container=entry.container_id, call=entry.function_call_id)
    return Timeline(
        submitted_at=entry.submitted_at,
        spawned_at=entry.spawned_at,
        container_started_at=entry.container_started_at,
        claimed_at=entry.started_at,
        asked=call.submission.asked if call.submission is not None else {},
        sized=call.submission.sized if call.submission is not None else {},
        cause=reason.cause.value,
        reason=str(reason),
    )
