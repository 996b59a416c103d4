"""DAGs and tasks with every kind of name that Airflow takes."""

from __future__ import annotations

from airflow.sdk import DAG, task

#: Names of 250 characters, the most that Airflow takes: some are longer than a file name, which has 255 bytes.
NAMED = {
    "d" * 250: "t" * 250,
    "ж" * 100: "任务" * 45,
    "named_é": "задача",
    "named.with.dots": "and.more.",
}

for dag_id, task_id in NAMED.items():
    with DAG(dag_id, schedule=None, dag_display_name="named") as dag:

        @task(task_id=task_id, executor_config={"pod_override": {"spec": {}}})
        def says(run_id: str | None = None) -> str:
            print("this is run", run_id)
            return "ü"

        says()
    globals()[f"dag_{len(dag_id)}"] = dag
