"""The imports of a zygote before Airflow's."""

from __future__ import annotations

import subprocess
import sys

#: Airflow's order of imports with `[traces] otel_on` and `otel_service`, and then a fork, as for a workload.
FORK = """
import os, sys, time
import modalflow.worker.zygote.server
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

provider = TracerProvider(resource=Resource({"service.name": "acme"}))
from concurrent.futures import ThreadPoolExecutor

pid = os.fork()
if pid == 0:
    os._exit(0)
until = time.monotonic() + 20
while not os.waitpid(pid, os.WNOHANG)[0]:
    if time.monotonic() > until:
        os.kill(pid, 9)
        sys.exit("the fork hangs")
    time.sleep(0.01)
"""


def test_a_fork_with_traces_goes_on() -> None:
    """A task does not wait forever if the host sets the name of the service of its traces."""
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
