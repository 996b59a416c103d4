"""Airflow's own Execution API in this process, for reads alone, and the answer to a task's start without the start."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from modalflow.airflow_compat.task_sdk.api_client import http_library
from modalflow.airflow_compat.versions import AIRFLOW_V_3_1_PLUS, AIRFLOW_V_3_2_PLUS, AIRFLOW_V_3_3_PLUS

#: Headers of an answer that a task's client reads.
_ANSWERED = ("content-type", "content-range")


@dataclass(frozen=True)
class ApiAnswer:
    """The answer to a request."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ExecutionApiReads:
    """Answers to the reads of one task instance, from Airflow's database and secrets backends."""

    def __init__(self, ti_id: object) -> None:
        from airflow.api_fastapi.execution_api.app import InProcessExecutionAPI

        api = InProcessExecutionAPI()
        if AIRFLOW_V_3_3_PLUS:
            _ask_as(api.app, ti_id)
        self._transport: Any = api.transport
        self._client = http_library().Client(transport=self._transport, base_url="http://in-this-process")

    def __call__(self, method: str, path: str, headers: Mapping[str, str]) -> ApiAnswer:
        """Return the answer to a GET or a HEAD; ``path`` is the part behind the API's URL, with its query."""
        assert method in ("GET", "HEAD"), "nothing here writes"
        answer = self._client.request(method, path, headers=dict(headers))
        kept = {name: value for name, value in answer.headers.items() if name in _ANSWERED}
        return ApiAnswer(answer.status_code, kept, answer.content)

    def close(self) -> None:
        """End its connections, and the thread of its event loop."""
        self._client.close()
        if not AIRFLOW_V_3_3_PLUS:
            loop = self._transport.app.loop
            loop.call_soon_threadsafe(loop.stop)
        del self._client, self._transport
        # Airflow ends the thread with the last reference to the transport, which is part of a cycle.
        gc.collect()


def _ask_as(app: Any, ti_id: object) -> None:
    """Let requests come from this task instance: with teams, an answer depends on the team of its DAG."""
    from fastapi import Request

    for dependency, allow in list(app.dependency_overrides.items()):
        app.dependency_overrides[dependency] = _AskedBy(allow, ti_id).dependency(Request)


class _AskedBy:
    """A dependency of FastAPI with the token of one task instance."""

    def __init__(self, allow: Any, ti_id: object) -> None:
        self._allow, self._ti_id = allow, ti_id

    def dependency(self, request_type: type) -> Any:
        async def token(request: Any) -> Any:
            allowed = await self._allow(request)
            return allowed.model_copy(update={"id": self._ti_id})

        token.__annotations__ = {"request": request_type}
        return token


def _of_mapped_groups(ti: Any, session: Any) -> dict[str, Any]:
    """Return the instances of upstream tasks for a task in a mapped group: before 3.2, the API server knows them."""
    if AIRFLOW_V_3_2_PLUS:
        return {}
    from airflow.models.serialized_dag import SerializedDagModel

    routes: Any = import_module("airflow.api_fastapi.execution_api.routes.task_instances")
    model: Any = SerializedDagModel
    dag = model.get(ti.dag_id, session=session).dag
    if AIRFLOW_V_3_1_PLUS:
        found = routes._get_upstream_map_indexes(serialized_dag=dag, ti=ti, session=session)
    else:
        found = routes._get_upstream_map_indexes(dag.get_task(ti.task_id), ti.map_index, ti.run_id, session)
    return {"upstream_map_indexes": dict(found)}


def run_context(dag_id: str, run_id: str, ti: Any) -> dict[str, Any]:
    """Return what Airflow answers to the start of this try, as JSON types."""
    from airflow.api_fastapi.execution_api.datamodels.taskinstance import TIRunContext
    from airflow.models.dagrun import DagRun
    from airflow.models.taskreschedule import TaskReschedule
    from airflow.utils.session import create_session
    from sqlalchemy import func, select
    from sqlalchemy.orm import joinedload

    with create_session() as session:
        mine = select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)
        dag_run: Any = session.scalars(mine.options(joinedload(DagRun.consumed_asset_events))).unique().one()
        count = select(func.count(TaskReschedule.id)).where(TaskReschedule.ti_id == ti.id)
        made: Any = TIRunContext
        context = made(
            dag_run=dag_run,
            task_reschedule_count=session.scalar(count) or 0,
            max_tries=max(0, ti.max_tries or 0),
            variables=[],
            connections=[],
            xcom_keys_to_clear=[],
            should_retry=int(ti.try_number) <= int(ti.max_tries or 0),
            **_of_mapped_groups(ti, session),
        )
        answer: dict[str, Any] = context.model_dump(mode="json", exclude_unset=True)
    return answer
