"""The variables that the operator's code reads at its import."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

import pytest

from modalflow.worker.zygote.variables_read import VariablesRead


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VariablesRead:
    monkeypatch.syspath_prepend(str(tmp_path / "plugins"))
    return VariablesRead(str(tmp_path))


def run(folder: Path, source: str) -> None:
    """Import a module of this source from the folder of plugins."""
    (folder / "plugins").mkdir()
    (folder / "plugins" / "acme_read.py").write_text(source)
    try:
        import_module("acme_read")
    finally:
        sys.modules.pop("acme_read", None)


def test_only_reads_of_code_in_the_folder_count(tmp_path: Path, read: VariablesRead) -> None:
    """In every way in which Python reads one variable, also in a library that the code calls."""
    with read.recording():
        os.environ.get("NOT_THE_OPERATORS")
        run(
            tmp_path,
            "import os, tempfile\n"
            "os.environ.get('GOT')\nos.getenv('ASKED')\n'IN' in os.environ\n"
            "os.path.expandvars('$EXPANDED')\n"
            "try:\n    os.environ['TAKEN']\nexcept KeyError: pass\n",
        )
    os.environ.get("LATER")
    assert {"GOT", "ASKED", "IN", "TAKEN"} <= read.names
    assert not {"NOT_THE_OPERATORS", "LATER"} & read.names


@pytest.mark.parametrize("name", ["AIRFLOW__CORE__FERNET_KEY", "PYTHONPATH", "TMPDIR", "MODAL_TASK_ID", "OTEL_X"])
def test_variables_that_cannot_make_a_new_difference_do_not_count(
    tmp_path: Path, read: VariablesRead, name: str
) -> None:
    """Some make a difference to every zygote anyway, and others have another value in each call."""
    with read.recording():
        run(tmp_path, f"import os\nos.environ.get({name!r})")
    assert name not in read.names


def test_all_reads_count_within_everything(read: VariablesRead) -> None:
    """Installed plugins read variables too, with no file in the folder."""
    with read.recording(), read.everything():
        os.environ.get("INSTALLED")
    assert read.names == {"INSTALLED"}
