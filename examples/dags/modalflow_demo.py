"""What a day's work may look like: every task of it runs on Modal, and would run as well anywhere else.

TaskFlow with XCom, a mapped task, a Bash command, a branch, a retry that helps, a sensor that defers, a Variable and a
Connection (`modalflow demo` makes both; elsewhere their defaults do).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.exceptions import AirflowNotFoundException
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.sensors.time_delta import WaitSensor
from airflow.sdk import Connection, Variable, dag, get_current_context, task


@dag(
    dag_id="modalflow_demo",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    default_args={"retries": 1, "retry_delay": timedelta(seconds=1)},
    tags=["modalflow"],
    doc_md=__doc__,
)
def modalflow_demo() -> None:
    @task
    def read_settings() -> dict[str, object]:
        """A Variable and a Connection, asked for through Airflow from wherever the task runs."""
        greeting = Variable.get("modalflow_demo_greeting", default="hello")
        try:
            warehouse = Connection.get("modalflow_demo_warehouse")
        except AirflowNotFoundException:
            warehouse = Connection("modalflow_demo_warehouse", conn_type="generic", host="localhost")
        print(f"{greeting} from a Modal container; the warehouse is at {warehouse.host}")
        return {"greeting": greeting, "warehouse": warehouse.host}

    @task
    def list_regions() -> list[str]:
        """The list that decides how often the mapped task runs."""
        return ["north", "south", "east", "west"]

    @task(executor_config={"modal": {"memory": 512}})
    def count_orders(region: str) -> int:
        """Once per region, each in its own function call."""
        orders = sum(ord(letter) for letter in region)
        print(f"{region}: {orders} orders")
        return orders

    @task
    def sum_up(counts: list[int]) -> int:
        """Collects what the mapped ones returned."""
        total = sum(counts)
        print(f"{total} orders in all")
        return total

    @task.branch
    def big_day(total: int) -> str:
        """Chooses one of two ways; the other one is skipped, and that is right."""
        return "send_report" if total > 1000 else "do_nothing"

    @task
    def do_nothing() -> None:
        """The way not taken."""

    @task(retries=2, retry_delay=timedelta(seconds=1))
    def fetch_flaky() -> str:
        """Fails the first time, as networks do, and succeeds the second time."""
        try_number = get_current_context()["ti"].try_number
        if try_number == 1:
            raise ConnectionError("the first try always fails; Airflow's retry mends it")
        print(f"try {try_number} succeeded")
        return f"fetched at try {try_number}"

    wait_a_moment = WaitSensor(task_id="wait_a_moment", time_to_wait=timedelta(seconds=3), deferrable=True)

    send_report = BashOperator(
        task_id="send_report",
        bash_command='echo "{{ ti.xcom_pull(task_ids="sum_up") }} orders on {{ ds }}, reported by $(whoami)"',
    )

    settings = read_settings()
    total = sum_up(count_orders.expand(region=list_regions()))
    choice = big_day(total)
    settings >> choice
    choice >> [send_report, do_nothing()]
    [fetch_flaky(), wait_a_moment] >> send_report


modalflow_demo()
