"""The routes that read. Each is answered from memory and Airflow's database; none waits for Modal."""

from __future__ import annotations

import time
from datetime import date
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Path, Query, Request, status
from fastapi.responses import RedirectResponse, Response

from modalflow.budgets.spending import local_day
from modalflow.cost.rates import DATED, Rates
from modalflow.names import TaskTry
from modalflow.ui import paths
from modalflow.ui.access import Access, GetUserDep
from modalflow.ui.answers.work import COLUMNS, MOST_ROWS
from modalflow.ui.extra_link import link_of
from modalflow.ui.routes.answering import answered
from modalflow.ui.sources import airflow_rows
from modalflow.ui.sources.sources import Sources
from modalflow.ui.sources.usage_sums import first_day
from modalflow.ui.views.common import freshness, links
from modalflow.ui.views.overview import Facts, overview
from modalflow.ui.views.run import RunFacts, run_answer
from modalflow.ui.views.spend import By, spend
from modalflow.ui.views.task import TaskFacts, task_answer
from modalflow.ui.views.work import Filters, work_table

_Several = Annotated[list[str], Query(max_length=100)]
_States = Annotated[list[Literal["running", "submitted", "waiting"]], Query(max_length=100)]
_Sort = Annotated[str, Query(pattern=f"^(-?({'|'.join(COLUMNS)}))?$")]

# Databases answer a NUL, or a number above their integers, with an error that nobody expects.
_Id = Annotated[str, Path(pattern=r"^[^\x00]*$")]
_MapIndex = Annotated[int, Path(ge=-1, le=2**31 - 1)]
_TryNumber = Annotated[int, Path(ge=0, le=2**31 - 1)]


def reading(sources: Sources) -> APIRouter:
    """Return the routes."""
    router = APIRouter()
    _add_tables(router, sources)
    _add_pages(router, sources)
    return router


def _add_tables(router: APIRouter, sources: Sources) -> None:
    @router.get(paths.OVERVIEW)
    def get_overview(request: Request, user: GetUserDep) -> Response:
        access = Access(request, user)
        live, losses = sources.live.seen(), sources.losses.seen()
        sources.usage.seen()
        now = time.time()
        facts = Facts(live.value, sources.spending, losses.value or ())
        answer = overview(facts, access.visible(), manage=access.manages, freshness=freshness(now, live), now=now)
        answer.viewer.examine = access.may_examine
        return answered(request, answer, empty=live.value is None)

    @router.get(paths.WORK)
    def get_work(
        request: Request,
        user: GetUserDep,
        state: _States = [],  # noqa: B006  FastAPI copies it.
        profile: _Several = [],  # noqa: B006
        dag: _Several = [],  # noqa: B006
        q: Annotated[str, Query(max_length=250)] = "",
        sort: _Sort = "",
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=0, le=MOST_ROWS)] = MOST_ROWS,
    ) -> Response:
        access = Access(request, user)
        live = sources.live.seen()
        filters = Filters(frozenset(state), frozenset(profile), frozenset(dag), q, sort, offset, limit)
        age = freshness(time.time(), live)
        body = work_table(live.value, access.visible(), access.editable(), filters, age, links(live.value))
        return answered(request, body, empty=live.value is None)

    @router.get(paths.SPEND)
    def get_spend(request: Request, user: GetUserDep, by: By = By.DAG, since: date | None = None) -> Response:
        access = Access(request, user)
        usage = sources.usage.seen()
        sums = sources.spending.sums if sources.spending is not None else None
        now, zone = time.time(), sums.zone if sums is not None else None
        today = local_day(now, zone) if zone is not None else date.today()
        first = first_day(now, zone) if zone is not None else today
        answer = spend(
            sums,
            access.visible(),
            by,
            min(today, max(first, since or first)),
            today,
            freshness(now, usage),
            complete=usage.value is not None,
        )
        return answered(request, answer, empty=sums is None)


def _add_pages(router: APIRouter, sources: Sources) -> None:
    @router.get(paths.TASK)
    def get_task(
        request: Request, user: GetUserDep, dag_id: _Id, run_id: _Id, task_id: _Id, map_index: _MapIndex
    ) -> Response:
        access = Access(request, user)
        access.require_reading(dag_id)
        instance = airflow_rows.instance_of(dag_id, run_id, task_id, map_index)
        if instance is None:
            raise HTTPException(status.HTTP_404_NOT_FOUND, "There is no such task instance")
        live, calls = sources.live.seen(), sources.calls_of_instance(instance)
        work = live.value.of_instance(dag_id, run_id, task_id, map_index) if live.value is not None else []
        samples = sources.samples_of_running(instance, work)
        facts = TaskFacts(
            instance, calls.value or (), work, samples.value or {}, _rates(sources), calls.value is not None
        )
        now = time.time()
        age = freshness(now, live, calls)
        age.problem = age.problem or samples.problem
        answer = task_answer(
            facts,
            editable=access.may_edit_tasks_of(dag_id),
            cluster=access.sees_cluster,
            freshness=age,
            links=links(live.value),
            now=now,
        )
        return answered(request, answer, empty=calls.value is None)

    @router.get(paths.RUN)
    def get_run(request: Request, user: GetUserDep, dag_id: _Id, run_id: _Id) -> Response:
        Access(request, user).require_reading(dag_id)
        run = airflow_rows.run_of(dag_id, run_id)
        if run is None:
            raise HTTPException(status.HTTP_404_NOT_FOUND, "There is no such DAG run")
        live, calls, rows = sources.live.seen(), sources.calls_of_run(run), sources.rows_of_run(run)
        work = live.value.of_run(dag_id, run_id) if live.value is not None else []
        known = rows.value or airflow_rows.RunRows()
        facts = RunFacts(run, calls.value or (), work, known, _rates(sources), calls.value is not None)
        now = time.time()
        answer = run_answer(facts, freshness=freshness(now, live, calls), links=links(live.value), now=now)
        return answered(request, answer, empty=calls.value is None)

    @router.get(paths.CALL)
    def get_call(
        request: Request,
        user: GetUserDep,
        dag_id: _Id,
        run_id: _Id,
        task_id: _Id,
        map_index: _MapIndex,
        try_number: _TryNumber,
    ) -> Response:
        Access(request, user).require_reading(dag_id)
        link = link_of(TaskTry(dag_id, task_id, run_id, map_index, try_number))
        if not link:
            raise HTTPException(status.HTTP_404_NOT_FOUND, "This try has no function call")
        return RedirectResponse(quote(link, safe=":/?=&%+~"), status.HTTP_302_FOUND)


def _rates(sources: Sources) -> Rates:
    return sources.spending.sums.rates if sources.spending is not None else DATED
