"""Tasks that behave, and tasks that do what a worker must survive."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import Any

from airflow.sdk import BaseOperator, dag, task

FOREVER = 600


class Stubborn(BaseOperator):
    """Runs until somebody ends it, and says so."""

    def execute(self, context: Any) -> None:
        print("stubborn is running", flush=True)
        time.sleep(FOREVER)

    def on_kill(self) -> None:
        print("on_kill was called", flush=True)


class Docile(Stubborn):
    """Fails with an error of its own as soon as somebody ends it."""

    def on_kill(self) -> None:
        super().on_kill()
        raise InterruptedError("ended as asked")


def on_failure(context: Any) -> None:
    print("a callback of the failure ran", flush=True)


@task
def hello() -> int:
    print("hello from the task,", os.environ.get("GREETING"))
    return 1


@task
def fails() -> None:
    raise ValueError("a failure of the user's own")


@task
def exits() -> None:
    os._exit(7)


@task
def closes_everything() -> None:
    for descriptor in range(3, 64):
        with contextlib.suppress(OSError):
            os.close(descriptor)


@task
def prints_garbage() -> None:
    os.write(1, b"\xff\xfe garbage\n")


@task
def prints_much() -> None:
    for number in range(30_000):
        print(f"line {number} {'.' * 200}")
    print("x" * 1_000_000)
    os.write(1, b"half a line, \xc3(, \x00, ")
    os.write(1, b"and its end\nno end")


@task
def kills_its_supervisor() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(FOREVER)


@task
def leaves_a_daemon() -> None:
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    daemon = subprocess.Popen(["sleep", str(FOREVER)], start_new_session=True, **quiet)  # type: ignore[call-overload]
    print("daemon", daemon.pid)


@dag(dag_id="d", schedule=None)
def d() -> None:
    (
        hello(),
        fails(),
        exits(),
        closes_everything(),
        prints_garbage(),
        prints_much(),
        kills_its_supervisor(),
        leaves_a_daemon(),
    )
    Stubborn(task_id="stubborn")
    Docile(task_id="docile", on_failure_callback=on_failure)


d()
