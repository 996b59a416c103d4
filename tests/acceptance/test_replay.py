"""`modalflow replay` beside a live Airflow: a failed try runs again from its own code, and Airflow's rows stay."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.pool import NullPool

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, in_database, start_run
from tests.acceptance.dag_sources import SHIPPED, Sources
from tests.acceptance.evidence import instance_of, states_of
from tests.command_line import CommandLine

pytestmark = pytest.mark.timeout(480)

DAG_ID, TASK = "replayed", "load"
#: Its own words are those after ``told:``.
DAG = """
import os
import uuid

from airflow.sdk import DAG, Variable, task

from code_of_replayed import CODE

with DAG("replayed", schedule=None, params={"table": "cities"}):

    @task
    def count():
        return 42

    @task(retries=1, retry_delay=0, executor_config={"modal": {"env": {"SIZE": "8"}}})
    def load(rows, ti=None, params=None):
        print("told: code", CODE)
        print("told: try", ti.try_number, "of run", ti.run_id)
        print("told: rows", rows, "of", ti.xcom_pull(task_ids="count"))
        print("told: table", params["table"], "city", Variable.get("replayed_city"))
        print("told: size", os.environ["SIZE"], "who", os.environ["WHO"])
        print("told: before", ti.xcom_pull(task_ids="load", key="seen"))
        ti.xcom_push(key="seen", value=str(uuid.uuid4()))
        Variable.set("replayed_mark", "by the task")
        print("told: mark", Variable.get("replayed_mark"))
        raise ValueError(f"told: no table {params['table']} in {CODE}")

    load(count())
"""
WORKER = str(Path(__file__).parent / "worker.py")
#: Tables that the processes of any Airflow write while nothing runs: heartbeats, and the times of parsing.
RESTLESS = frozenset({"job", "dag", "dag_bundle", "dag_warning", "callback_request", "revoked_token"})
#: The rows of a table that can be of a replay: those of this DAG if the table has DAGs. The audit log also has rows
#: without a DAG, such as those of changed variables. Of these, only the starts of Airflow's processes are not compared.
OF_THIS_DAG = f"WHERE dag_id = '{DAG_ID}'"
PROCESSES = ("cli_api_server", "cli_dag_processor", "cli_scheduler", "cli_triggerer")
IN_THE_AUDIT_LOG = f"WHERE coalesce(dag_id, '{DAG_ID}') = '{DAG_ID}' AND event NOT IN {PROCESSES}"
#: Each row's version, which PostgreSQL changes with any write, even with one of the same values.
ROWS = "SELECT ctid::text, xmin::text, * FROM {table} {where} ORDER BY ctid"
#: Seconds for a replay on a busy machine.
PATIENCE = 200.0


@dataclass(frozen=True)
class Failed:
    """A run whose task failed twice, with the code ``one``. The folder of its DAGs has the code ``two``."""

    run_id: str
    logs: dict[int, list[str]]
    """Try number → its log before any replay."""


@pytest.fixture(scope="module")
def failed(stack: ModalStack, sources: Sources) -> Failed:
    sources.edit(sources.shipped, DAG_ID, "one")
    (sources.shipped / f"{DAG_ID}.py").write_text(DAG)
    api = stack.airflow.api
    api.set_variable("replayed_city", "Rome")
    with sources.parsed(stack):
        run_id = start_run(stack, DAG_ID)
        assert finish_run(stack, DAG_ID, run_id) == "failed", states_of(stack, DAG_ID, run_id)
    (row,) = in_database(
        stack, "SELECT bundle_version FROM dag_run WHERE run_id = :run AND dag_id = 'replayed'", run=run_id
    )
    assert row["bundle_version"]
    (sources.shipped / f"code_of_{DAG_ID}.py").write_text("CODE = 'two'\n")
    api.request("PATCH", "variables/replayed_mark", json={"key": "replayed_mark", "value": "by a person"})
    instance = instance_of(stack, DAG_ID, run_id, TASK)
    assert (instance.state, instance.try_number) == ("failed", 2)
    return Failed(run_id, {number: api.log(DAG_ID, run_id, instance, number) for number in (1, 2)})


def told(lines: list[str]) -> list[str]:
    """What the task itself put into its log. Its output and its error reach the log in no certain order."""
    found = (re.search(r"told: [^\"\\]*", line) for line in lines)
    return sorted(match[0].strip() for match in found if match)


def rows(stack: ModalStack) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables with their versions: of tables with DAGs, those that can be of this DAG."""
    engine = create_engine(stack.airflow.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"], poolclass=NullPool)
    with engine.connect() as connection:
        found = {}
        tables = inspect(connection)
        for table in sorted({*tables.get_table_names()} - RESTLESS):
            of_dags = any(column["name"] == "dag_id" for column in tables.get_columns(table))
            where = IN_THE_AUDIT_LOG if table == "log" else OF_THIS_DAG if of_dags else ""
            query = ROWS.format(table=table, where=where)
            found[table] = [tuple(map(_comparable, row)) for row in connection.execute(text(query))]
    return found


def _comparable(value: Any) -> str:
    return repr(value.tobytes() if isinstance(value, memoryview) else value)


@contextmanager
def unchanged(stack: ModalStack, failed: Failed) -> Iterator[None]:
    """Check that the run, its XComs, its logs and the rows of the database are the same afterwards."""
    api = stack.airflow.api
    seen, before = api.xcom(DAG_ID, failed.run_id, TASK, "seen"), rows(stack)
    assert len(before["task_instance"]) == 2 and len(before["xcom"]) == 2 and before["task_instance_history"]
    yield
    after = rows(stack)
    assert {table for table in before if before[table] != after[table]} == set()
    assert before.keys() == after.keys()
    assert api.xcom(DAG_ID, failed.run_id, TASK, "seen") == seen
    assert api.request("GET", "variables/replayed_mark").json()["value"] == "by a person"
    assert states_of(stack, DAG_ID, failed.run_id) == {"count": "success", TASK: "failed"}
    instance = instance_of(stack, DAG_ID, failed.run_id, TASK)
    assert {number: api.log(DAG_ID, failed.run_id, instance, number) for number in (1, 2)} == failed.logs


@pytest.mark.parametrize(("dag_id", "event"), [(DAG_ID, "failed"), (None, "patch_variable")])
def test_a_written_row_of_the_audit_log_is_seen(
    stack: ModalStack, failed: Failed, dag_id: str | None, event: str
) -> None:
    """The other tests would fail if a replay left a trace there."""
    engine = create_engine(stack.airflow.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"], poolclass=NullPool)
    with pytest.raises(AssertionError, match="'log'"), unchanged(stack, failed), engine.begin() as connection:
        row = {"dag_id": dag_id, "event": event}
        connection.execute(text("INSERT INTO log (dttm, dag_id, event) VALUES (now(), :dag_id, :event)"), row)


def test_a_failed_try_runs_again_with_its_own_code_and_inputs(
    stack: ModalStack, failed: Failed, modalflow: CommandLine
) -> None:
    """The newest try: its bundle version, params, variables, upstream XComs and profile; its outcome and its log."""
    with unchanged(stack, failed):
        words = ("replay", DAG_ID, TASK, failed.run_id, "--worker", WORKER, "--yes")
        done = modalflow.run(*words, patience=PATIENCE)
    shown = done.stdout + done.stderr
    assert done.returncode == 1 and "The replay ended: failed." in shown, shown
    assert told(shown.splitlines()) == told(failed.logs[2]), shown
    lines = told(failed.logs[2])
    for line in ("told: code one", f"told: try 2 of run {failed.run_id}", "told: rows 42 of 42", "told: before None"):
        assert line in lines, lines
    assert {"told: table cities city Rome", "told: size 8 who deployment", "told: mark by the task"} <= {*lines}
    assert "told: no table cities in one" in lines
    assert re.search(rf"DAG bundle {SHIPPED} version \w+, profile default", shown), shown
    assert "not written to Airflow: XCom seen; variables replayed_mark." in shown


def test_an_earlier_try_runs_again_with_the_deployed_profile(
    stack: ModalStack, failed: Failed, modalflow: CommandLine
) -> None:
    """`--try 1`, without the Worker's file: Modal has recorded the names of its variables alone."""
    with unchanged(stack, failed):
        words = ("replay", DAG_ID, TASK, failed.run_id, "--try", "1", "--env", "WHO=deployment", "--yes")
        done = modalflow.run(*words, patience=PATIENCE)
    shown = done.stdout + done.stderr
    assert done.returncode == 1 and "The replay ended: up_for_retry." in shown, shown
    assert told(shown.splitlines()) == told(failed.logs[1]), shown
    assert f"told: try 1 of run {failed.run_id}" in told(shown.splitlines())
    assert "Modal has recorded only the names of variables: WHERE, WHO." in shown


class Terminal:
    """A command on a terminal of its own, as a user has it."""

    def __init__(self, env: dict[str, str], *words: str) -> None:
        self._master, theirs = pty.openpty()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "modalflow.cli", *words],
                env=env,
                # In a session of its own, with this terminal: otherwise Ctrl-C would be no signal.
                preexec_fn=lambda: os.login_tty(theirs),
            )
        finally:
            os.close(theirs)
        self.screen = ""
        self._read = 0

    def type(self, line: str) -> None:
        os.write(self._master, line.encode())

    def wait_for(self, what: str, seconds: float = PATIENCE) -> str:
        """Read until the command shows this, behind what was waited for before; return the part up to it."""
        until = time.monotonic() + seconds
        while (found := self.screen.find(what, self._read)) < 0:
            assert time.monotonic() < until, f"{what!r} is not shown in {self.screen}"
            assert self._more(0.5), f"it ended without {what!r}: {self.screen}"
        part = self.screen[self._read : found]
        self._read = found + len(what)
        return part

    def end(self) -> int:
        """Read to the end of the command, and return its exit code."""
        until = time.monotonic() + PATIENCE
        while self._more(0.5):
            assert time.monotonic() < until, self.screen
        return self._process.wait(PATIENCE)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._master)

    def _more(self, seconds: float) -> bool:
        """Read what there is; False after the end."""
        if not select.select([self._master], [], [], seconds)[0]:
            return True
        try:
            part = os.read(self._master, 65_536)
        except OSError:
            # EIO: no process has the terminal open.
            return False
        self.screen += part.decode(errors="replace").replace("\r\n", "\n")
        return bool(part)


@contextmanager
def terminal(stack: ModalStack, *words: str) -> Iterator[Terminal]:
    opened = Terminal({**os.environ, **stack.airflow.env, "COLUMNS": "200"}, *words)
    try:
        yield opened
    finally:
        opened.close()


def test_a_shell_has_the_environment_of_the_try(stack: ModalStack, failed: Failed) -> None:
    """`--shell` on a terminal: the task's files, variables, params and XComs, in a container; what it writes stays."""
    words = ("replay", DAG_ID, TASK, failed.run_id, "--worker", WORKER, "--shell", "--yes")
    asked = {
        "ti.try_number, params['table'], task.task_id, dag.dag_id": "(2, 'cities', 'load', 'replayed')",
        "ti.xcom_pull(task_ids='count'), ti.xcom_pull(task_ids='load', key='seen')": "(42, None)",
        "import os, code_of_replayed; code_of_replayed.CODE, os.environ['SIZE']": "('one', '8')",
        "os.environ['MODAL_TASK_ID'][:3]": "'ta-'",
        "from airflow.sdk import Variable; Variable.get('replayed_city')": "'Rome'",
        "ti.xcom_push('seen', 'by hand'); Variable.set('replayed_mark', 'by hand')": "",
        "ti.xcom_pull(task_ids='load', key='seen'), Variable.get('replayed_mark')": "('by hand', 'by hand')",
        "sh('echo $SIZE of $WHO')": "8 of deployment\n0",
        "task.execute(context)": "ValueError: told: no table cities in one",
    }
    with unchanged(stack, failed), terminal(stack, *words) as shell:
        shell.wait_for("A Python shell in place of the task's execution")
        shell.wait_for(">>> ")
        for line, expected in asked.items():
            shell.type(f"{line}\n")
            answer = shell.wait_for(">>> ")
            assert expected in answer.replace(line, "", 1), shell.screen
        shell.type("\x04")
        shell.wait_for("The replay ended: success.")
        shell.wait_for("not written to Airflow: XCom seen; variables replayed_mark.")
        assert shell.end() == 0, shell.screen


def test_a_shell_is_left_with_ctrl_c(stack: ModalStack, failed: Failed) -> None:
    """The whole replay ends, its control plane and container included."""
    words = ("replay", DAG_ID, TASK, failed.run_id, "--worker", WORKER, "--shell")
    with unchanged(stack, failed), terminal(stack, *words) as shell:
        shell.wait_for("Replay it? [y/N]:")
        shell.type("y\n")
        shell.wait_for(">>> ")
        shell.type("\x03")
        assert shell.end() != 0, shell.screen
    assert "Traceback" not in shell.screen, shell.screen
