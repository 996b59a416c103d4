"""What the acceptance tests ask about a DAG run that has ended: what ran, where, and how often.

The evidence comes from both sides: from Airflow's database and logs, and from the control plane. None of it would be
there if another executor had run the tasks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from modal_proto import api_pb2

from modalflow.demo.airflow_api import TaskInstance, label
from modalflow.demo.calls import containers_of
from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import in_database
from tests.sdk import client_of, rpc

#: The worker's first line in a task's log names the function call and the container.
_STARTED = re.compile(r'Started on Modal.*container_id="(?P<container>ta-\w+)".*function_call_id="(?P<call>fc-\w+)"')
_STARTED_OTHERWISE = re.compile(
    r'Started on Modal.*function_call_id="(?P<call>fc-\w+)".*container_id="(?P<container>ta-\w+)"'
)


@dataclass(frozen=True)
class Start:
    """One function call that worked on a task instance, by the task's log."""

    call: str
    container: str


def starts_in(log: Iterable[str]) -> list[Start]:
    """Every start on Modal that a log tells of, oldest first."""
    found = (_STARTED.search(line) or _STARTED_OTHERWISE.search(line) for line in log)
    return [Start(match["call"], match["container"]) for match in found if match]


def said(log: Iterable[str], what: str) -> int:
    """How often a log says something."""
    return sum(line.count(what) for line in log)


def states_of(stack: ModalStack, dag_id: str, run_id: str) -> dict[str, str | None]:
    """``task`` or ``task [3]`` → state, of every task instance of a DAG run."""
    return {ti.label: ti.state for ti in stack.airflow.api.task_instances(dag_id, run_id)}


def instance_of(stack: ModalStack, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> TaskInstance:
    """The task instance of that name."""
    instances = stack.airflow.api.task_instances(dag_id, run_id)
    (found,) = (ti for ti in instances if (ti.task_id, ti.map_index) == (task_id, map_index))
    return found


def log_of(stack: ModalStack, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> list[str]:
    """The log of a task instance's last try, as the UI shows it."""
    return stack.airflow.api.log(dag_id, run_id, instance_of(stack, dag_id, run_id, task_id, map_index))


def not_on_modal(stack: ModalStack, dag_id: str, run_id: str, but: Iterable[str] = ()) -> list[str]:
    """The task instances of a run that did something, but not in a container that Modal knows them to have had.

    Those that the scheduler settled by itself (skipped, upstream_failed) never had a host. ``but`` are the labels of
    those that are not asked about.
    """
    return [
        f"{row.instance.label} is {row.instance.state} on host {row.container!r}; function call {row.function_call!r}"
        for row in stack.rows(dag_id, run_id)
        if row.instance.label not in set(but)
        and row.instance.state not in (None, "upstream_failed")
        and not (row.instance.state == "skipped" and not row.container)
        and row.container not in row.confirmed
    ]


def calls_by_task(stack: ModalStack, dag_id: str, run_id: str) -> dict[str, str]:
    """``task`` or ``task [3]`` → the function call that Airflow keeps of it."""
    query = (
        "SELECT task_id, map_index, external_executor_id FROM task_instance"
        " WHERE dag_id = :dag_id AND run_id = :run_id AND external_executor_id IS NOT NULL"
    )
    kept = {
        (row["task_id"], row["map_index"]): str(row["external_executor_id"]).partition("/")[0]
        for row in in_database(stack, query, dag_id=dag_id, run_id=run_id)
    }
    return {
        # Airflow drops an executor's event of a task instance that is locked just then; the log has the id too.
        label(*key): call if call.startswith("fc-") else starts_in(log_of(stack, dag_id, run_id, *key))[-1].call
        for key, call in kept.items()
    }


def created(stack: ModalStack, calls: Mapping[str, str]) -> dict[str, datetime]:
    """Name → when the control plane took its function call, in the order of that."""
    found = {}
    with client_of(stack.local.url, stack.local.env) as client:
        for name, call in calls.items():
            request = api_pb2.FunctionCallGetInfoRequest(function_call_id=call)
            found[name] = rpc(client, "FunctionCallGetInfo", request).info.created_at
    return dict(sorted(found.items(), key=lambda item: item[1]))


def confirmed(stack: ModalStack, start: Start) -> bool:
    """Whether Modal says as well that this function call had that container."""
    return start.container in containers_of([start.call], stack.local.env)[start.call]
