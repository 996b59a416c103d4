"""The file of `modalflow deploy FILE`: found, imported, and every mistake in it told in a line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from modalflow.errors import DeployError
from modalflow.worker.deploy.worker import read_worker

HEAD = "import modalflow\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user's file is; what importing it changes is undone."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


def test_the_one_worker_of_a_file_is_found(folder: Path) -> None:
    """With what lies beside the file, as `modal deploy` has it; two names of one Worker are one."""
    (folder / "beside_it.py").write_text("CORES = 3\n")
    file = folder / "worker.py"
    file.write_text(
        HEAD
        + "from beside_it import CORES\n"
        + "worker = again = modalflow.Worker(profiles=[modalflow.Profile('etl', cpu=CORES)])\n"
    )
    assert [(p.name, p.cpu) for p in read_worker(str(file)).profiles] == [("default", None), ("etl", 3.0)]


def test_one_of_several_is_named(folder: Path) -> None:
    """Several Workers in a file: each is deployed by its name, and without one the error lists how."""
    file = folder / "two.py"
    file.write_text(HEAD + "a = modalflow.Worker(app='app-a')\nb = modalflow.Worker(app='app-b')\n")
    assert read_worker(f"{file}::b").app == "app-b"
    with pytest.raises(DeployError, match=rf"more than one.*{file}::a or {file}::b"):
        read_worker(str(file))
    with pytest.raises(DeployError, match=r"has no modalflow\.Worker called 'c'; there are: a, b"):
        read_worker(f"{file}::c")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("worker = (\n", r"file\.py, line 1: '\(' was never closed"),
        ("\nimport no_such_module\n", r"file\.py, line 2: ModuleNotFoundError: No module named 'no_such_module'"),
        (HEAD, "has no modalflow.Worker; expected a line such as"),
        (HEAD + "\n\nworker = modalflow.Worker(profiles=[modalflow.Profile('x', memory=1)])\n", "line 4: memory of "),
        (HEAD + "modalflow.Profile(gpus='T4')\n", r"line 2: TypeError: .*unexpected keyword argument 'gpus'"),
        ("raise SystemExit(3)\n", r"line 1: it ends the program"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_with_its_place(folder: Path, content: str, message: str) -> None:
    """No traceback through modalflow: the file, the line, what is wrong."""
    file = folder / "file.py"
    file.write_text(content)
    with pytest.raises(DeployError, match=message) as raised:
        read_worker(str(file))
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there(folder: Path) -> None:
    """The error repeats what was given."""
    with pytest.raises(DeployError, match=r"nowhere\.py does not exist; expected a Python file"):
        read_worker("nowhere.py")


def test_a_file_may_be_called_as_a_package_is(folder: Path) -> None:
    """A user's `json.py` replaces nobody's."""
    import json

    file = folder / "json.py"
    file.write_text(HEAD + "worker = modalflow.Worker()\n")
    assert read_worker(str(file)).profiles
    assert sys.modules["json"] is json


def test_an_edit_in_the_same_second_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python takes compiled code for fresh if the time, in seconds, and the size of its file are unchanged."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = folder / "worker.py"
    apps = []
    for name in ("app-a", "app-b"):
        file.write_text(f"import modalflow\nw = modalflow.Worker(app={name!r})\n")
        os.utime(file, (1e9, 1e9))
        apps.append(read_worker(str(file)).app)
    assert apps == ["app-a", "app-b"]
