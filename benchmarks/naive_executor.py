"""The executor for comparison: the shortest working executor for Modal, with everything in the loop.

One ``spawn`` per workload in ``_process_workloads``, one read of the ledger per running workload in ``sync``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import modal
from airflow.executors.base_executor import BaseExecutor

from benchmarks.executor_app import NAMES
from modalflow.protocol.messages import Entry, State


class NaiveExecutor(BaseExecutor):
    """Runs every workload as a call of a deployed Modal Function, and asks for each whether it has ended."""

    def __init__(self, client: modal.Client, parallelism: int) -> None:
        super().__init__(parallelism)
        self._run: Any = modal.Function.from_name(NAMES.app, NAMES.function("default"), client=client)
        self._ledger: Any = modal.Dict.from_name(NAMES.ledger, create_if_missing=True, client=client)
        self._work_ids: dict[Any, str] = {}

    def _process_workloads(self, workloads: Sequence[Any]) -> None:
        for workload in workloads:
            self.queued_tasks.pop(workload.key, None)
            self.running.add(workload.key)
            work_id = workload.ti.external_executor_id
            call = self._run.spawn({"work_id": work_id, "workload": workload.model_dump_json()})
            self._work_ids[workload.key] = work_id
            self.running_state(workload.key, call.object_id)

    def sync(self) -> None:
        for key, work_id in list(self._work_ids.items()):
            text = self._ledger.get(work_id)
            if text is None or (entry := Entry.from_json(text)).state is State.RUNNING:
                continue
            del self._work_ids[key]
            (self.success if entry.state is State.SUCCESS else self.fail)(key, work_id)
            self._ledger.pop(work_id)
