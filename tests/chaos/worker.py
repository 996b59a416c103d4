"""The worker of the chaos stack: a bucket with the tally's socket, at the path of its folder on this machine.

A container without a network reaches a socket only in a mounted folder: one of the machine's own files has no server.
"""

from __future__ import annotations

import os

import modal

import modalflow

worker = modalflow.Worker(
    profiles=[
        modalflow.Profile(
            "default", concurrency=16, volumes={os.environ["CHAOS_FOLDER"]: modal.CloudBucketMount("tally")}
        )
    ]
)
