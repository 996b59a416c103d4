"""What Airflow imports for few tasks, and a zygote leaves to them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from modalflow.worker.run.later_imports import without_libcst
with without_libcst():
    import airflow.sdk.bases.decorator as decorator
assert "libcst" not in sys.modules
source = "@task.virtualenv\\ndef f():\\n    return 1\\n"
print(decorator.remove_task_decorator(source, "@task.virtualenv"))
import libcst
assert libcst.parse_module(source).code == source
assert not [each for each in sys.meta_path if type(each).__module__.startswith("modalflow.worker")]
"""


def test_a_task_that_needs_libcst_imports_it(tmp_path: Path) -> None:
    """A zygote does not have it, and Airflow's function works."""
    env = {**os.environ, "AIRFLOW_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, env=env, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "def f():\n    return 1\n" in run.stdout
    assert "@task" not in run.stdout


OTHER = """
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from modalflow.worker.run.later_imports import _WithoutLibrary
module = module_from_spec(spec_from_loader("other", _WithoutLibrary(SourceFileLoader("other", sys.argv[1]))))
module.__spec__.loader.exec_module(module)
print(module.text, sys.modules["libcst"].__name__)
"""


@pytest.mark.parametrize("line", ["from libcst import Name", "from libcst.nodes import Name", "Name = libcst.Name"])
def test_a_module_that_needs_more_of_libcst_gets_all_of_it(tmp_path: Path, line: str) -> None:
    """Another Airflow may use it otherwise, and its import must not fail."""
    library = tmp_path / "libcst"
    library.mkdir()
    (library / "__init__.py").write_text("from libcst.nodes import Name\n")
    (library / "nodes.py").write_text("Name = 'the real one'\n")
    (tmp_path / "other.py").write_text(f"import libcst\n{line}\ntext = Name\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", OTHER, tmp_path / "other.py"],
        capture_output=True,
        text=True,
        timeout=60,
        env=env,
        check=False,
    )
    assert run.stdout == "the real one libcst\n", run.stderr
