"""The profiles on Modal of the Airflow that has Celery as well."""

from __future__ import annotations

import modalflow

worker = modalflow.Worker(
    profiles=[
        modalflow.Profile("default", concurrency=8, scaledown_window=600),
        modalflow.Profile("etl", concurrency=4, scaledown_window=600, env={"WHERE": "etl"}),
    ],
)
