"""Tasks whose container is stopped: a retry would come long after the test."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

from modalflow import modal_config


def on_failure(context: object) -> None:
    """Leave a trace in the log of the try."""
    print("a callback of the failure ran", flush=True)


#: Ends at once if it is asked to, with an error of its own: its supervisor would report a failed try.
SLEEP_ONCE = """
[ {{ ti.try_number }} = 1 ] || exit 0
trap 'echo asked to end; exit 7' TERM
echo waiting at the start
sleep 120 &
wait
"""

for dag_id, retries, config in (
    ("stopped_with_retry", 1, {}),
    ("stopped_with_option", 0, modal_config(infrastructure_retries=1)),
):
    with DAG(dag_id, schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
        BashOperator(
            task_id="sleep_once",
            bash_command=SLEEP_ONCE,
            retries=retries,
            retry_delay=timedelta(hours=1),
            executor_config=config,
            on_retry_callback=on_failure,
            on_failure_callback=on_failure,
        )
