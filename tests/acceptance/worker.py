"""What the acceptance tests deploy: a profile beside `default`, as a user's file has it."""

from __future__ import annotations

import os

import modal

import modalflow

worker = modalflow.Worker(
    env={"WHO": "deployment", "WHERE": "deployment"},
    profiles=[
        # Few containers that stay: each imports Airflow once, which costs more than the tasks here do.
        modalflow.Profile(
            "default",
            concurrency=16,
            scaledown_window=900,
            # The Git repository of ``dag_sources``, at its path on the Airflow host.
            volumes={os.environ["DAG_SOURCES"]: modal.CloudBucketMount("sources", read_only=True)},
        ),
        modalflow.Profile(
            "etl",
            image=modal.Image.debian_slim().env({"IMAGE": "its own"}),
            memory="512MiB",
            concurrency=2,
            env={"WHERE": "etl"},
        ),
    ],
)
