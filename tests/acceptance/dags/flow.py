"""A DAG with a turn in every place: branches, groups, mapped tasks, trigger rules, XComs, callbacks."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG, TaskGroup, TriggerRule, task, task_group
from airflow.sdk.exceptions import AirflowSkipException


@task
def numbers() -> list[int]:
    return [1, 2, 3]


@task(map_index_template="{{ n }}")
def double(n: int) -> int:
    return 2 * n


@task
def total(doubled: list[int]) -> int:
    return sum(doubled)


@task.branch
def choose() -> str:
    return "chosen.left"


@task
def left() -> str:
    return "left"


@task
def right() -> str:
    return "right"


@task.short_circuit
def go_no_further() -> bool:
    return False


@task
def never_reached() -> None:
    """Its short circuit skips it."""


@task
def skip_itself() -> None:
    raise AirflowSkipException("nothing to do today")


def call_back(context: dict[str, Any]) -> None:
    """Say that something failed, and where this is."""
    name = context["task_instance"].task_id
    print(f"called back for {name} in {os.environ['MODAL_TASK_ID']}: {context['exception']}")


@task(on_failure_callback=call_back)
def fail() -> None:
    raise ValueError("no more of this")


@task(retries=1, retry_delay=timedelta(seconds=0))
def fail_once() -> int:
    from airflow.sdk import get_current_context

    number = int(get_current_context()["ti"].try_number)
    if number == 1:
        raise ValueError("the first try always fails")
    return number


@task(trigger_rule=TriggerRule.ONE_FAILED)
def make_up_for_it() -> str:
    return "made up for it"


@task(trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
def join() -> str:
    return "joined"


@task
def behind_the_failure() -> None:
    """Its upstream fails: it never runs."""


@task(trigger_rule=TriggerRule.ALL_DONE)
def at_last(**context: Any) -> dict[str, Any]:
    """What templates and the context say, here."""
    return {"run": context["run_id"], "greeting": (context["dag_run"].conf or {}).get("greeting")}


@task_group
def for_each(n: int) -> None:
    """A group that is mapped as a whole."""

    @task
    def add(n: int) -> int:
        return n + 1

    @task
    def tell(n: int) -> str:
        return f"it is {n}"

    tell(add(n))  # type: ignore[arg-type]  # An XComArg is what it stands for.


with DAG("flow", schedule=None, start_date=datetime(2026, 1, 1), catchup=False, max_active_tasks=32):
    total(double.expand(n=numbers()))  # type: ignore[arg-type]  # An XComArg is what it stands for.
    for_each.expand(n=[10, 20])
    with TaskGroup("chosen"):
        ways = [left(), right()]
    choose() >> ways >> join()
    go_no_further() >> never_reached()
    end = at_last()
    broken = fail()
    broken >> [make_up_for_it(), behind_the_failure()] >> end
    [fail_once(), skip_itself()] >> end
