"""DAGs that something else than a trigger starts: an asset event, a backfill; and a task that tells its trace."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.sdk import DAG, Asset, task

HARVEST = Asset(name="harvest", uri="modalflow-test://harvest")


@task(outlets=[HARVEST])
def bring_in(**context: Any) -> None:
    context["outlet_events"][HARVEST].extra = {"baskets": 7}


@task
def count(**context: Any) -> list[Any]:
    return [event.extra["baskets"] for event in context["triggering_asset_events"][HARVEST]]


@task
def tell_day(**context: Any) -> str:
    return str(context["ds"])


@task
def tell_trace() -> str:
    from opentelemetry import trace

    return f"{trace.get_current_span().get_span_context().trace_id:032x}"


with DAG("producer", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    bring_in()

with DAG("consumer", schedule=[HARVEST], start_date=datetime(2026, 1, 1), catchup=False):
    count()

with DAG("daily", schedule="@daily", start_date=datetime(2026, 1, 1), catchup=False):
    tell_day()

with DAG("traced", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    tell_trace()
