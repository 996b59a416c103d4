"""Tasks that call Functions of another team's app on Modal."""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import dag, task

from modalflow.operators import ModalFunctionOperator

START = datetime(2026, 1, 1)


@dag(schedule=None, start_date=START, catchup=False)
def calls() -> None:
    """The result of one call is an argument of the next."""
    first = ModalFunctionOperator(
        task_id="first", app_name="called", function_name="add", function_args=[2], function_kwargs={"b": 3}
    )

    @task.modal_function(app_name="called", function_name="Greeter.greet", class_parameters={"greeting": "Good day"})
    def second(found: dict[str, int]) -> dict[str, str]:
        return {"name": f"number {found['sum']}"}

    second(first.output)  # type: ignore[arg-type]  # It is the XCom when the task runs.


@dag(schedule=None, start_date=START, catchup=False)
def held_calls() -> None:
    """Waits for longer than any test."""
    ModalFunctionOperator(task_id="hold", app_name="called", function_name="sleep", function_args=[600])


calls()
held_calls()
