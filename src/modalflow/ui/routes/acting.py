"""The routes that act: only for pages of this Airflow, and only with the permission. Each is in Airflow's audit log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import APIRouter, Depends, HTTPException, Request, status
from fastapi.responses import Response, StreamingResponse
from modal import exception
from starlette.concurrency import run_in_threadpool

from modalflow.errors import ModalflowError
from modalflow.names import TaskTry
from modalflow.operations.inventory import Work
from modalflow.operations.profiles.pausing import UnknownProfileError
from modalflow.support.described import describe
from modalflow.ui import paths
from modalflow.ui.access import Access, GetUserDep, from_own_page, record
from modalflow.ui.actions import Actions, HoldAction
from modalflow.ui.answers.actions import Cancel, Hold
from modalflow.ui.routes.answering import answered
from modalflow.ui.sources.sources import Sources
from modalflow.ui.views.common import shown_user

log = logging.getLogger(__name__)

_NO_CANCELLATION = "You need the permission to edit the task instances of a DAG to cancel its work"
_NO_HOLDS = "You need the permission to edit pools to pause, drain or resume a profile"
_NO_DOCTOR = "You need the permissions to edit pools and to read the configuration to run the doctor"


def acting(sources: Sources, actions: Actions) -> APIRouter:
    """Return the routes."""
    router = APIRouter(dependencies=[Depends(from_own_page)])

    @router.post(paths.CANCEL)
    async def post_cancel(request: Request, user: GetUserDep, wanted: Cancel) -> Response:
        access = Access(request, user)
        found = await run_in_threadpool(_permitted, access, sources, wanted.work_ids)
        by = f"cancelled by {access.name} in Airflow's UI"
        with _failures():
            answer = await actions.cancel(wanted.work_ids, found, by)
        sources.live.expire()
        hows = {result.work_id: result.how for result in answer.results}
        await run_in_threadpool(_record_all, access, found, hows)
        return answered(request, answer)

    @router.post(paths.PROFILE)
    async def post_profile(request: Request, user: GetUserDep, name: str, action: HoldAction, hold: Hold) -> Response:
        access = Access(request, user)
        manages, cluster = await run_in_threadpool(lambda: (access.manages, access.sees_cluster))
        if not manages:
            raise HTTPException(status.HTTP_403_FORBIDDEN, _NO_HOLDS)
        with _failures():
            answer = await actions.hold(name, action, access.name, hold.reason)
        # A profile that was already paused in this way keeps its user, who can be one of the command line.
        answer.state_by = shown_user(answer.state_by, cluster=cluster)
        sources.live.expire()
        await run_in_threadpool(_record, access, f"modalflow profile {action.value}", f"{name}: {hold.reason}")
        return answered(request, answer)

    @router.post(paths.DOCTOR)
    async def post_doctor(request: Request, user: GetUserDep) -> Response:
        access = Access(request, user)
        if not await run_in_threadpool(lambda: access.may_examine):
            raise HTTPException(status.HTTP_403_FORBIDDEN, _NO_DOCTOR)
        lines = actions.examination()
        if lines is None:
            raise HTTPException(status.HTTP_409_CONFLICT, "The doctor is already at work for another user")
        await run_in_threadpool(_record, access, "modalflow doctor", "Run in Airflow's UI")
        return StreamingResponse(lines, media_type="application/x-ndjson", headers={"cache-control": "no-store"})

    return router


@contextmanager
def _failures() -> Iterator[None]:
    """Answer with the problem: 404 for an unknown profile, 503 for Modal."""
    try:
        yield
    except UnknownProfileError as error:
        raise HTTPException(status.HTTP_404_NOT_FOUND, str(error)) from error
    except (ModalflowError, exception.Error, TimeoutError) as error:
        raise HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE, describe(error)) from error


def _permitted(access: Access, sources: Sources, work_ids: list[str]) -> dict[str, Work]:
    """Return what is there of the work. Raises 403 if the user may cancel nothing, or may only read some of it."""
    if not access.editable() and not access.manages:
        raise HTTPException(status.HTTP_403_FORBIDDEN, _NO_CANCELLATION)
    live = sources.live.seen().value
    if live is None:
        raise HTTPException(status.HTTP_409_CONFLICT, "The state of work has not been read yet: try again")
    visible = access.visible()
    of_dag = {
        work_id: (work, work.task.dag_id if work.task else "") for work_id, work in live.work_of_ids(work_ids).items()
    }
    # What a user may not read does not exist for that user.
    found = {work_id: (work, dag_id) for work_id, (work, dag_id) in of_dag.items() if visible.sees(dag_id)}
    permitted: dict[str, bool] = {}
    for _, dag_id in found.values():
        if dag_id not in permitted:
            permitted[dag_id] = access.may_edit_tasks_of(dag_id) if dag_id else access.manages
    if refused := sorted(dag_id or "work of no DAG" for dag_id, may in permitted.items() if not may):
        detail = f"You need the permission to edit the task instances of {', '.join(refused)}"
        raise HTTPException(status.HTTP_403_FORBIDDEN, detail)
    return {work_id: work for work_id, (work, _) in found.items()}


def _record_all(access: Access, found: dict[str, Work], hows: dict[str, str]) -> None:
    for work_id, work in found.items():
        _record(access, "modalflow cancel", f"{work.function_call_id or work_id} {hows.get(work_id, '')}", work.task)


def _record(access: Access, event: str, text: str, task: TaskTry | None = None) -> None:
    try:
        record(access, event, text, task)
    except Exception:  # It is done: the user must not read that it failed.
        log.exception("%s by %s is missing in Airflow's audit log", event, access.name)
