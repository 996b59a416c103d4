"""Each way in which a DAG can be missing reads differently, and says what to do."""

from __future__ import annotations

import time
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalflow.worker.run.missing_dag import DagSearch, why_missing, why_no_bundle

TIMEOUT = (
    "airflow.exceptions.AirflowTaskTimeout: DagBag import timeout for /b/d.py after 30.0s.\nPlease take a look at "
    "these docs to improve your DAG import time:\n* https://airflow.apache.org, PID: 14"
)


def looked(folder: Path, *, dags: dict[str, list[str]] | None = None, error: str = "", version: str = "") -> DagSearch:
    errors = {"d.py": error} if error else {}
    return DagSearch("d", "t", "mine", version or None, folder, folder / "d.py", dags or {}, errors)


def error_of(code: str) -> str:
    """The traceback of code, as Airflow has it."""
    try:
        exec(compile(code, "/b/d.py", "exec"), {})
    except BaseException:  # noqa: BLE001  The traceback of it is what the test wants.
        return traceback.format_exc(limit=-2)
    raise AssertionError("it did not fail")


@pytest.mark.parametrize(
    ("error", "said", "do"),
    [
        (error_of("import acme_ops"), "a module that this container does not have: 'acme_ops'", "requirements"),
        ("No module named 'acme.ops'", "does not have: 'acme.ops'", "$AIRFLOW_HOME/plugins"),
        (
            error_of("try:\n    import acme_ops\nexcept ImportError:\n    import acme_old"),
            "modules that this container does not have: 'acme_ops', 'acme_old'",
            "requirements",
        ),
        (error_of("from json import acme"), "imports 'acme' from 'json'", "requirements"),
        (error_of("def broken(:\n    pass"), "not valid for this container's Python: SyntaxError", "Fix the file"),
        (error_of("if 1:\nx"), "not valid for this container's Python: IndentationError", "Fix the file"),
        ("invalid syntax (d.py, line 1)", "not valid for this container's Python", "Fix the file"),
        (TIMEOUT, "took longer to import than [core] dagbag_import_timeout allows (30.0 s)", "worker_env"),
        (error_of("import sys; sys.exit(3)"), "ends the process at its import (SystemExit: 3)", "exit()"),
        (error_of("{}['HOME_OF_DATA']"), "KeyError: 'HOME_OF_DATA'", "only the Airflow host has"),
        (
            "UnknownExecutorException: Task 't' names executor 'gpu'",
            "names executor 'gpu'",
            "only the Airflow host has",
        ),
    ],
)
def test_an_import_that_fails(tmp_path: Path, error: str, said: str, do: str) -> None:
    """The first line says what the exception means for the worker; the traceback follows."""
    first, *rest = why_missing(looked(tmp_path, error=error)).splitlines()
    assert said in first and do in first, first
    assert rest == [] or rest[-1].strip() in error


def test_a_traceback_begins_in_the_users_file(tmp_path: Path) -> None:
    """Frames of Airflow and of the import system are left out, with the source lines below them."""
    error = """Traceback (most recent call last):
  File "/usr/lib/python3.11/site-packages/airflow/dag_processing/importers/python_importer.py", line 238, in parse
    loader.exec_module(new_module)
    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "<frozen importlib._bootstrap_external>", line 940, in exec_module
  File "<frozen importlib._bootstrap>", line 241, in _call_with_frames_removed
  File "/b/airflow/dags/d.py", line 1, in <module>
    import helpers
  File "/b/airflow/dags/helpers.py", line 3, in <module>
    1 / 0
    ~~^~~
ZeroDivisionError: division by zero"""
    _, *shown = why_missing(looked(tmp_path, error=error)).splitlines()
    assert [line.split(",")[0] for line in shown if "File" in line] == [
        '  File "/b/airflow/dags/d.py"',
        '  File "/b/airflow/dags/helpers.py"',
    ]
    assert shown[0].startswith("Traceback") and shown[-1] == "ZeroDivisionError: division by zero"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """No folder, an empty one, one with other files, and one with the file in another place are four things."""
    assert "has no folder" in why_missing(looked(tmp_path / "nowhere"))
    said = why_missing(looked(tmp_path, version="v7"))
    assert "is an empty folder" in said and "check that it has the files" in said and "version v7" in said
    for number in range(12):
        (tmp_path / f"f{number:02}.py").touch()
    said = why_missing(looked(tmp_path))
    assert "has no file d.py" in said and "f09.py and 2 more" in said and "12 Python files" in said
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "d.py").touch()
    assert "One is at dags/d.py" in why_missing(looked(tmp_path))


def test_a_file_that_defines_something_else(tmp_path: Path) -> None:
    """Other DAGs, none, and the DAG without the task."""
    (tmp_path / "d.py").touch()
    assert "defines no DAG 'd' here, but: a, b." in why_missing(looked(tmp_path, dags={"b": [], "a": []}))
    assert "defines no DAG at all" in why_missing(looked(tmp_path))
    said = why_missing(looked(tmp_path, dags={"d": ["other"]}))
    assert "without task 't' here; its tasks are: other." in said


def test_a_bundle_that_cannot_be_opened() -> None:
    """One that is not configured is told from one that fails."""
    assert "not configured in this container; configured are: a, b." in why_no_bundle("mine", None, ["b", "a"], "x")
    said = why_no_bundle("mine", "v7", ["mine"], "ValueError: no such version")
    assert "version v7, cannot be opened in this container: ValueError: no such version." in said


@given(st.text())
def test_no_text_of_an_exception_raises(error: str) -> None:
    """What a DAG file raises has any text."""
    assert why_missing(looked(Path("/nowhere"), error=error))


@pytest.mark.parametrize(
    "error",
    [
        f"ValueError: {'x' * 3_000_000}",
        f"No module named '{'x' * 3_000_000}'",
        f"ValueError: {'DagBag import timeout for ' * 100_000}",
        f"ValueError: {'cannot import name ' * 100_000}",
    ],
    ids=["long", "module", "timeouts", "names"],
)
def test_an_error_of_megabytes_is_explained_briefly_and_soon(tmp_path: Path, error: str) -> None:
    """A user's exception can have any length, and the task waits for the explanation."""
    began = time.process_time()
    assert len(why_missing(looked(tmp_path, error=error))) < 10_000
    assert time.process_time() - began < 5
