"""The worker of ``test_host_settings``: a bucket at the path that the Airflow host has for the tasks' common folder."""

from __future__ import annotations

import os

import modal

import modalflow

worker = modalflow.Worker(
    profiles=[
        modalflow.Profile(
            "default",
            concurrency=16,
            scaledown_window=900,
            volumes={os.environ["ACME_FOLDER"]: modal.CloudBucketMount("acme")},
        )
    ]
)
