"""An Airflow with Celery and Modal: Redis as the broker, a Celery worker, and a local control plane."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from modalflow.demo.modal_stack import MODAL_EXECUTOR, ModalStack
from modalflow.demo.programs.ports import free_port
from modalflow.demo.stack import SEPARATE
from modalflow.emulator.options import Options
from tests.support import wait_until

REDIS: Final = "MODALFLOW_TEST_REDIS"
#: The worker takes tasks of two queues of Celery. Its server of logs would listen on all interfaces.
PROCESSES: Final[Mapping[str, Sequence[str]]] = {
    **SEPARATE,
    "celery-worker": ("celery", "worker", "--queues", "default,reports", "--concurrency", "2", "--skip-serve-logs"),
}


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A Redis of its own on the loopback interface: its URL."""
    port = free_port()
    program = os.environ.get(REDIS) or shutil.which("redis-server")
    assert program, f"there is no redis-server on PATH or in {REDIS}: run `make test-celery`"
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    server = subprocess.Popen([program, *options], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def answers() -> bool:
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(answers, 20.0, "Redis")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(20.0)


@contextmanager
def side_by_side(folder: Path) -> Iterator[ModalStack]:
    """The stack. Its settings are those of docs/where-airflow-lives.md."""
    dags = folder / "dags"
    shutil.copytree(Path(__file__).parent / "dags", dags)
    with redis(folder) as broker:
        env = {
            "AIRFLOW__CORE__EXECUTOR": f"CeleryExecutor,{MODAL_EXECUTOR}",
            "AIRFLOW__CELERY__BROKER_URL": broker,
            # Airflow's default. A start of the scheduler, and with it of the relay, can be longer than the stack's own.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "300",
        }
        worker = str(Path(__file__).parent / "worker.py")
        with ModalStack(
            dags,
            env=env,
            processes=PROCESSES,
            modal=Options(network="none"),
            deploy=(worker,),
            report=print,
        ) as stack:
            yield stack
