"""What Airflow imports for few tasks, and a zygote leaves to them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
