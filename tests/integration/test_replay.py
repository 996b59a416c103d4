"""A try runs again on a local control plane, with Airflow's own tables, and these stay as they were."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from airflow import settings
from airflow.configuration import conf
from airflow.models.connection import Connection
from airflow.models.dag import DagModel
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.models.variable import Variable
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from click.testing import CliRunner
from sqlalchemy import select

from modalflow import modal_config
from modalflow.bundles.configured import LOCAL_BUNDLE
from modalflow.cli.task.replay import replay
from modalflow.config.settings import Settings
from modalflow.names import DEBUG_CONSOLE
from modalflow.operations.single_task.console import Console
from modalflow.operations.single_task.finding import NamedTry, find_try
from modalflow.operations.single_task.profiles import Profiles
from modalflow.operations.single_task.reading import airflow_database
from modalflow.operations.single_task.replaying import ReplayOutcome, prepare_replay, run_replay
from tests.unit.executor.airflow_tables import DAG_ID, AirflowTables, airflow_tables

pytestmark = pytest.mark.timeout(300)

DAG_FILE = """
import os
from datetime import datetime, timedelta, timezone
from airflow.configuration import conf
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator, Variable, task

try:
    from airflow.sdk import BaseHook
except ImportError:
    from airflow.hooks.base import BaseHook

with DAG("losses", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), params={"table": "a"}):

    @task
    def once(ti=None, params=None):
        print("variable", Variable.get("city"))
        print("connection", BaseHook.get_connection("store").password)
        print("upstream", ti.xcom_pull(task_ids="twice"))
        print("own", ti.xcom_pull(task_ids="once", key="mark"))
        quiet = ("logging_config_class", "remote_logging")
        print("logging", [conf.get("logging", name) for name in quiet], "sentry", conf.get("sentry", "sentry_on"))
        print("table", params["table"], "size", os.environ["SIZE"], "more", os.environ["MORE"])
        ti.xcom_push(key="mark", value="new")
        print("own now", ti.xcom_pull(task_ids="once", key="mark"))
        Variable.set("city", "Paris")
        print("variable now", Variable.get("city"))
        if os.environ.get("FAILS"):
            rows = 41 + 1
            raise ValueError("no such table")
        return {"rows": 3}

    class Waiter(BaseOperator):
        def execute(self, context):
            context["ti"].xcom_push(key="before", value=1)
            self.defer(trigger=TimeDeltaTrigger(timedelta(0)), method_name="resume", kwargs={"at": timedelta(hours=1)})

        def resume(self, context, at, event):
            print("resumed", at, event, context["ti"].xcom_pull(task_ids="twice", key="before"))
            return 9

    once() << Waiter(task_id="twice")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dags")
    (folder / "losses.py").write_text(DAG_FILE)
    return folder


@pytest.fixture(scope="module")
def tables(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowTables]:
    bundle = [{"name": "bundle", "classpath": LOCAL_BUNDLE, "kwargs": {"path": str(folder)}}]
    with pytest.MonkeyPatch.context() as patch, airflow_tables(tmp_path_factory.mktemp("airflow")) as tables:
        # The API's own sessions.
        patch.setattr(settings, "NonScopedSession", cast(Any, settings.Session).session_factory)
        patch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps(bundle))
        with create_session() as session:
            model = session.scalar(select(DagModel))
            assert model is not None
            model.relative_fileloc = "losses.py"
            session.add(Connection(conn_id="store", conn_type="http", password="pass-word"))
        Variable.set("city", "Rome")
        yield tables


@pytest.fixture
def failed(tables: AirflowTables) -> TaskInstanceKey:
    """A failed try, with an upstream XCom and one of its own, as the try left them."""
    own = modal_config(memory="1GiB", env={"SIZE": "8"})
    key = tables.add("once", "w", state="failed", executor_config=own)
    tables.add("twice", "v", state="success", beside=key)
    for task_id, name, value in (("twice", "return_value", 7), ("once", "mark", "old")):
        XComModel.set(key=name, value=value, dag_id=DAG_ID, task_id=task_id, run_id=key.run_id)
    return key


def contents(tables: AirflowTables) -> dict[str, list[Any]]:
    """All rows of all tables."""
    with closing(sqlite3.connect(str(cast(Any, settings.engine).url.database))) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: database.execute(f"SELECT * FROM {name}").fetchall() for name in names}


def replayed(
    key: TaskInstanceKey, lines: list[str], console: Console | None = None, number: int | None = None, **env: str
) -> ReplayOutcome:
    options = Settings.read(conf)
    with airflow_database() as airflow:
        found = find_try(NamedTry(key.dag_id, key.task_id, key.run_id, None, number))
        ready = prepare_replay(found, options, airflow, Profiles(None, "none"))
        return run_replay(ready, options, env=env, show=lines.append, on_line=lines.append, console=console)


def test_a_replay_reads_airflow_and_leaves_it_unchanged(
    tables: AirflowTables, failed: TaskInstanceKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables, connections, params and upstream XComs are Airflow's; what the task writes stays in memory.

    Remote logging and Sentry are off, whichever variables of the user would turn them on.
    """
    noisy = {"AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "acme_logs.CONFIG", "AIRFLOW__LOGGING__REMOTE_LOGGING": "True"}
    monkeypatch.setenv("AIRFLOW__MODAL_EXECUTOR__WORKER_ENV", json.dumps(noisy))
    env = {"SIZE": "of the worker", "AIRFLOW__SENTRY__SENTRY_ON": "True", **noisy}
    worker = tmp_path / "worker_of_replay.py"
    worker.write_text(f"import modalflow\nworker = modalflow.Worker(env={env!r})\n")
    before = contents(tables)
    words = [DAG_ID, "once", failed.run_id, "--worker", str(worker), "--env", "MORE=more", "--yes"]
    done = CliRunner().invoke(replay, words)
    assert done.exit_code == 0, done.output
    for text in ("variable Rome", "upstream 7", "own None", "table a size 8 more more", "own now new"):
        assert text in done.output
    assert "variable now Paris" in done.output
    assert "logging ['', 'False'] sentry False" in done.output
    assert "The replay ended: success." in done.output
    assert "not written to Airflow: XCom mark; XCom return_value; variables city." in done.output
    assert contents(tables) == before


def test_a_deferred_task_goes_on_after_its_trigger(tables: AirflowTables) -> None:
    """The trigger runs in the command's process, and the task resumes in a container with its own XComs."""
    key = tables.add("twice", "w", state="up_for_retry")
    before = contents(tables)
    lines: list[str] = []
    outcome = replayed(key, lines)
    log = "\n".join(lines)
    assert outcome.state == "success", log
    assert "is deferred to airflow.providers.standard.triggers.temporal.DateTimeTrigger" in log
    assert "resumed 1:00:00" in log
    assert [state["state"] for state in outcome.kept.states] == ["deferred", "success"]
    assert contents(tables) == before


def test_a_debugger_opens_where_the_task_fails(tables: AirflowTables, failed: TaskInstanceKey) -> None:
    """The user's lines reach the frame of the error in the container, and the try then fails."""
    typed = iter(["p rows\n", "p params['table']\n", "q\n", ""])
    shown: list[str] = []
    lines: list[str] = []
    console = Console(DEBUG_CONSOLE, lambda: next(typed), shown.append)
    outcome = replayed(failed, lines, console, MORE="more", FAILS="1")
    screen = "".join(shown)
    assert outcome.state == "failed", "\n".join(lines)
    assert "ValueError: no such table" in screen
    assert "42" in screen
    assert "'a'" in screen
    assert console.connections == 1
