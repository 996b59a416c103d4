"""What the acceptance tests do with a stack: run a DAG, wait for its task instances, find containers."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from modalflow.control_plane import ControlPlane
from modalflow.demo.airflow_api import TaskInstance
from modalflow.demo.calls import containers_of
from modalflow.demo.dags import example_dags
from modalflow.demo.modal_stack import ModalStack
from modalflow.emulator.options import Options
from modalflow.logs.log_volume import LogVolume
from modalflow.names import Names
from tests.airflows import AIRFLOW
from tests.forked_stack import forked_stack
from tests.sdk import client_of
from tests.support import wait_until

ENDED = ("success", "failed")
#: A scheduler that looks five times a second, as the demo's does, takes a tenth of a core while it waits.
CALM = {"AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5"}
#: Settings that Airflow's defaults lack and some test needs.
ENV = {**CALM, "AIRFLOW__CORE__TEST_CONNECTION": "Enabled"}
#: Containers that reach Airflow by the relay alone.
WITHOUT_NETWORK = Options(network="none")
#: DAG files that an older Airflow cannot import.
DAGS_SINCE = {"flow.py": (3, 2), "late.py": (3, 2), "strange.py": (3, 2)}
_days = count()


@contextmanager
def stack_of(
    folder: Path, processes: Mapping[str, Sequence[str]], env: Mapping[str, str], **modal: Any
) -> Iterator[ModalStack]:
    """A stack whose DAGs are the examples and the tests' own. ``env`` is besides ENV, ``modal`` WITHOUT_NETWORK."""
    shutil.copytree(example_dags(), folder, dirs_exist_ok=True)
    too_new = shutil.ignore_patterns(*(name for name, needed in DAGS_SINCE.items() if needed > AIRFLOW))
    shutil.copytree(Path(__file__).parent / "dags", folder, dirs_exist_ok=True, ignore=too_new)
    deploy = (str(Path(__file__).parent / "worker.py"),)
    options = dataclasses.replace(WITHOUT_NETWORK, **modal)
    with forked_stack(
        folder, env={**ENV, **env}, processes=processes, modal=options, deploy=deploy, report=print
    ) as stack:
        yield stack


def start_run(stack: ModalStack, dag_id: str, **conf: object) -> str:
    """Trigger a DAG with a logical date that no other run has; its run id."""
    api = stack.airflow.api
    stack.airflow.wait_for_dag(dag_id)
    api.unpause(dag_id)
    return api.trigger(dag_id, datetime(2026, 1, 2, tzinfo=UTC) + timedelta(days=next(_days)), conf)


def finish_run(stack: ModalStack, dag_id: str, run_id: str, timeout: float = 120.0) -> str:
    """Wait until a DAG run has ended; its state."""

    def state() -> str | None:
        now = stack.airflow.api.run_state(dag_id, run_id)
        return now if now in ENDED else None

    try:
        return wait_until(state, timeout, f"the end of {dag_id}", interval=0.2) or ""
    except AssertionError as error:
        left = {each.label: each.state for each in stack.airflow.api.task_instances(dag_id, run_id)}
        raise AssertionError("\n".join([str(error), str(left), *scheduler_log(stack)[-20:]])) from error


def the_task(stack: ModalStack, dag_id: str, run_id: str) -> TaskInstance:
    """The one task instance of a DAG run that has one."""
    (instance,) = stack.airflow.api.task_instances(dag_id, run_id)
    return instance


def wait_at_gate(stack: ModalStack, dag_id: str, run_id: str, try_number: int = 1) -> TaskInstance:
    """Wait until the task of a gate DAG runs, and is at its gate as far as its log tells."""

    def waiting() -> TaskInstance | None:
        instance = the_task(stack, dag_id, run_id)
        if instance.state != "running" or instance.try_number != try_number:
            return None
        log = stack.airflow.api.log(dag_id, run_id, instance)
        return instance if any("waiting at" in line for line in log) else None

    instance = wait_until(waiting, 90.0, f"{dag_id} at its gate, with its log readable", interval=0.2)
    assert instance is not None
    return instance


def in_database(stack: ModalStack, query: str, **values: object) -> list[dict[str, Any]]:
    """What Airflow's metadata database says where its API is silent."""
    engine = create_engine(stack.airflow.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"], poolclass=NullPool)
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(query), values).mappings()]


def log_on_volume(stack: ModalStack, log_path: str) -> list[dict[str, Any]]:
    """The structured log lines of a workload that has no log in Airflow's API.

    A logger that a library made before logging was set up writes lines of its own form among them.
    """
    with client_of(stack.local.url, stack.local.env) as client:
        _, texts = LogVolume(ControlPlane(client, None), Names()).read(log_path)
    return [json.loads(line) for line in "".join(texts).splitlines() if line.startswith("{")]


def where_it_ran(stack: ModalStack, log: list[dict[str, Any]]) -> str:
    """The container that a log tells of, once Modal has confirmed it for the function call that the log tells of."""
    started = next(line for line in log if line["event"].startswith("Started on Modal"))
    call = started["function_call_id"]
    assert containers_of([call], stack.local.env)[call] == {started["container_id"]}
    return str(started["container_id"])


def scheduler_log(stack: ModalStack) -> list[str]:
    """What the scheduler has logged so far, the executor's lines among it."""
    return stack.airflow.programs["scheduler"].log.read_text(errors="replace").splitlines()
